//! Finding a `nats-server` that is new enough.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The oldest that has what the services use.
const OLDEST: Version = Version(2, 12, 0);
const NAME: &str = "nats-server";

/// A `nats-server` that can be run.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Takes the one that is named, or the first in PATH and in `.tools/` that is new enough.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<Program> {
    if let Some(path) = named {
        let program = Program::at(path.to_owned())?;
        anyhow::ensure!(program.version >= OLDEST, program.too_old());
        return Ok(program);
    }
    let mut too_old = None;
    for path in candidates() {
        match Program::at(path) {
            Ok(program) if program.version >= OLDEST => return Ok(program),
            Ok(program) => too_old = too_old.or_else(|| Some(program.too_old())),
            Err(error) => tracing::debug!(reason = format!("{error:#}"), "a nats-server is passed over"),
        }
    }
    match too_old {
        Some(problem) => anyhow::bail!(problem),
        None => anyhow::bail!(
            "no nats-server found in PATH or .tools/: `make tools` fetches one, --nats-server names one, and --nats \
             uses one that runs"
        ),
    }
}

impl Program {
    fn at(path: PathBuf) -> anyhow::Result<Self> {
        let output = Command::new(&path).arg("--version").output();
        let output = output.with_context(|| format!("cannot run the nats-server {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse(&text)
            .with_context(|| format!("{} does not tell a version as nats-server does", path.display()))?;
        Ok(Self { path, version })
    }

    fn too_old(&self) -> String {
        format!(
            "nats-server {} at {} is too old: {OLDEST} or newer is needed, and `make tools` fetches one",
            self.version,
            self.path.display()
        )
    }
}

/// Reads `nats-server: v2.12.1`.
fn parse(text: &str) -> Option<Version> {
    let version = text.trim().rsplit_once(": v").map(|(_, version)| version)?;
    let mut numbers = version
        .split(['.', '-', '+'])
        .map(|part| part.trim().parse().ok());
    Some(Version(numbers.next()??, numbers.next()??, numbers.next()??))
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .collect();
    let own = std::env::current_exe().ok();
    let starts = [std::env::current_dir().ok(), own];
    let in_tools = starts.into_iter().flatten().flat_map(|start| {
        let folders: Vec<PathBuf> = start
            .ancestors()
            .map(|folder| folder.join(".tools").join(NAME))
            .collect();
        folders
    });
    in_path.into_iter().chain(in_tools).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(parse("nats-server: v2.15.1\n"), Some(Version(2, 15, 1)));
        assert_eq!(parse("nats-server: v2.12.0-RC.1"), Some(Version(2, 12, 0)));
        assert!(parse("nats-server: v2.9.10").unwrap() < OLDEST);
        for text in ["", "nats-server", "nats-server: v2", "nats-server: vX.Y.Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
