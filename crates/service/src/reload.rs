//! Tells when settings should be read again: on SIGHUP, and when the file's contents change.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a file must be left alone before it is read.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the file is read although nothing told of a change: some file systems tell nothing.
const POLL: Duration = Duration::from_secs(10);

/// Why settings should be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Somebody sent SIGHUP.
    Signal,
    /// The file has other contents than before.
    Changed,
}

/// Watches a file until shutdown; requests that nobody took yet are merged into one.
///
/// Folders are watched, not the file, since editors and ConfigMap mounts put another file in its place.
pub fn watch(path: impl Into<PathBuf>, shutdown: CancellationToken) -> io::Result<mpsc::Receiver<Reload>> {
    let path = path.into();
    let mut hangup = signal(SignalKind::hangup())?;
    let (requests, receiver) = mpsc::channel(1);
    let (changes, mut changed) = mpsc::channel(1);
    let mut folders = Folders::new(changes);
    folders.follow(&path);
    let mut contents = std::fs::read(&path).ok();
    tokio::spawn(async move {
        let mut poll = tokio::time::interval(POLL);
        loop {
            let by_signal = tokio::select! {
                () = shutdown.cancelled() => return,
                () = requests.closed() => return,
                signal = hangup.recv() => signal.is_some(),
                Some(()) = changed.recv() => {
                    settled(&mut changed).await;
                    false
                }
                _ = poll.tick() => false,
            };
            // A file that is missing for a moment is one that is being replaced.
            let now = tokio::fs::read(&path).await.ok();
            let differs = now.is_some() && now != contents;
            if differs {
                contents = now;
                folders.follow(&path);
            }
            // A full channel holds a request that will read these contents too.
            if by_signal {
                let _ = requests.try_send(Reload::Signal);
            } else if differs {
                let _ = requests.try_send(Reload::Changed);
            }
        }
    });
    Ok(receiver)
}

/// Waits until changes pause, but not for ever.
async fn settled(changed: &mut mpsc::Receiver<()>) {
    for _ in 0..10 {
        match tokio::time::timeout(SETTLE, changed.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// The folders that hold the file and what it links to.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
}

impl Folders {
    fn new(changes: mpsc::Sender<()>) -> Self {
        let told = move |event: notify::Result<notify::Event>| {
            let read_only = event.is_ok_and(|event| event.kind.is_access());
            if !read_only {
                let _ = changes.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(told)
            .inspect_err(
                |error| tracing::warn!(%error, "cannot watch the settings file, it is polled instead"),
            )
            .ok();
        Self {
            watcher,
            watched: Vec::new(),
        }
    }

    /// Watches where the file is now.
    fn follow(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = vec![folder(path)];
        if let Ok(target) = path.canonicalize() {
            let folder = folder(&target);
            if !wanted.contains(&folder) {
                wanted.push(folder);
            }
        }
        // A folder that was removed took its watch with it.
        for folder in self
            .watched
            .iter()
            .filter(|folder| !wanted.contains(folder) && folder.exists())
        {
            if let Err(error) = watcher.unwatch(folder) {
                tracing::debug!(%error, folder = %folder.display(), "cannot end the watch of a folder");
            }
        }
        for folder in wanted.iter().filter(|folder| !self.watched.contains(folder)) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, folder = %folder.display(), "cannot watch a folder of the settings file");
            }
        }
        self.watched = wanted;
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
