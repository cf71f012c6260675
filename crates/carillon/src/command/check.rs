//! `carillon check`: is a config good?

use crate::cli::File;
use crate::{config, shell};

/// Prints `ok`, or fails with every problem on a line of its own.
pub(crate) fn run(file: File) -> anyhow::Result<()> {
    let loaded = config::load(file.config.as_deref())?;
    if let Some(reason) = loaded.value.closed_to_clients() {
        eprintln!("note: an edge needs more: {reason}");
    }
    shell::say("ok")?;
    Ok(())
}
