//! The folder that a nats-server keeps its streams in, for one `dev` at a time.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A folder that is ours until this is dropped.
pub(super) struct Store {
    folder: PathBuf,
    /// Whether the streams outlive this run.
    kept: bool,
    _lock: File,
}

impl Store {
    /// Takes the named folder as it is, or an empty one for this address.
    pub(super) fn open(named: Option<&Path>, address: SocketAddr) -> anyhow::Result<Self> {
        let folder = match named {
            Some(folder) => std::path::absolute(folder)?,
            None => fresh(address),
        };
        fs::create_dir_all(&folder)
            .with_context(|| format!("the store directory {} cannot be made", folder.display()))?;
        let lock = lock(&folder)?;
        let store = Self {
            folder,
            kept: named.is_some(),
            _lock: lock,
        };
        if !store.kept {
            store.clear();
        }
        fs::create_dir_all(store.run())?;
        Ok(store)
    }

    /// Returns where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells whether the streams outlive this run.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Returns where JetStream keeps its files.
    pub(super) fn jetstream(&self) -> PathBuf {
        self.folder.join("streams")
    }

    /// Returns where the files of one run of the server are.
    pub(super) fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn clear(&self) {
        for folder in [self.jetstream(), self.run()] {
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, folder = %folder.display(), "cannot clear the store directory");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.kept {
            self.clear();
        }
    }
}

/// The same folder at every start, so that what a killed run left is cleared by the next.
fn fresh(address: SocketAddr) -> PathBuf {
    let name = match address.port() {
        0 => format!("dev-any-{}", std::process::id()),
        port => format!("dev-{port}"),
    };
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = cache.or(home).filter(|base| base.is_absolute());
    base.filter(|base| fs::create_dir_all(base.join("carillon")).is_ok())
        .unwrap_or_else(std::env::temp_dir)
        .join("carillon")
        .join(name)
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("the store directory {} cannot be written", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!(
                "the store directory {} is in use by another carillon dev",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("the store directory {} cannot be locked", folder.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_at_a_time_and_kept_if_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:4222".parse().unwrap();
        let store = Store::open(Some(folder.path()), address).unwrap();
        fs::create_dir_all(store.jetstream()).unwrap();
        let error = Store::open(Some(folder.path()), address)
            .err()
            .unwrap()
            .to_string();
        assert!(error.ends_with("is in use by another carillon dev"), "{error}");
        let streams = store.jetstream();
        drop(store);
        assert!(streams.is_dir());
        assert!(
            Store::open(Some(folder.path()), address)
                .unwrap()
                .jetstream()
                .is_dir()
        );
    }
}
