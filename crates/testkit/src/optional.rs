//! Tools that some tests use where they are found, and that count as "not run" where they are not.

use std::io::Write as _;
use std::path::PathBuf;

/// Names a file to which a test that cannot run adds a line; set by `make test`.
pub const NOT_RUN: &str = "CARILLON_NOT_RUN";

/// Finds the first of `names` in PATH and where Debian keeps daemons. Where there is none the test
/// is written down as not run, and should return.
pub fn tool(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find_map(|name| find(name));
    if found.is_none() {
        not_run(&format!("{} is not installed", names.join(" or ")));
    }
    found
}

/// An MQTT broker of its own.
pub fn mosquitto() -> Option<PathBuf> {
    tool(&["mosquitto"])
}

/// A browser that can run without a screen.
pub fn chromium() -> Option<PathBuf> {
    tool(&["chromium", "chromium-browser", "google-chrome"])
}

/// Writes the current test down as not run.
pub fn not_run(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Set by cargo for the tests that it runs.
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    eprintln!("not run: {reason}");
    let Some(path) = std::env::var_os(NOT_RUN) else {
        return;
    };
    let file = std::fs::File::options().create(true).append(true).open(&path);
    if let Err(e) = file.and_then(|mut file| writeln!(file, "{package} {test}: {reason}")) {
        panic!("cannot write to {}: {e}", path.display());
    }
}

pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
