//! Where this checkout lies, and the scripts that fetch what its tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn root() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crates.ancestors().nth(2);
    root.unwrap_or_else(|| panic!("{} is not inside a checkout", crates.display()))
        .to_owned()
}

pub(crate) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a script of `deploy/tools`; each does nothing when its work is done already.
pub(crate) fn fetch(script: &str) {
    let path = root().join("deploy/tools").join(script);
    let output = Command::new("bash").arg(&path).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {}: {e}", path.display()));
    assert!(
        output.status.success(),
        "{script} failed; `make tools` shows it alone:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
