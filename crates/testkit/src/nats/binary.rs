use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{checkout, optional};

/// The `nats-server` to test with: `CARILLON_NATS_SERVER`, the pinned one in `.tools/`, one in PATH, or else
/// the pinned one once it is fetched.
pub fn binary() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("CARILLON_NATS_SERVER") {
        return path.into();
    }
    let pinned = checkout::root().join(".tools/nats-server");
    if pinned.is_file() {
        return pinned;
    }
    if let Some(path) = optional::find("nats-server") {
        return path;
    }
    checkout::fetch("fetch-nats-server");
    pinned
}
