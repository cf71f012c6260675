//! The start of the `nats-server` of `carillon dev`: it becomes that program, and dies with its parent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The process that must not be outlived
    #[arg(long)]
    parent: i32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Runs in the child, since only a process itself can ask for the signal; it returns if that fails.
pub(crate) fn run(args: &Args) -> anyhow::Error {
    if let Err(error) = die_with(args.parent) {
        return error;
    }
    let error = Command::new(&args.program).args(&args.args).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", args.program.display()))
}

#[cfg(target_os = "linux")]
fn die_with(parent: i32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for the death signal")?;
    // The parent may be gone already, and then no signal comes.
    let is_there = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    anyhow::ensure!(is_there, "the parent has ended");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: i32) -> anyhow::Result<()> {
    Ok(())
}
