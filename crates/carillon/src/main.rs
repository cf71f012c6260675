//! The one binary of Carillon: it reads the command line and the settings, and calls the services.
//!
//! - `cli` holds the command line, and `command` a file for each subcommand;
//! - `config` is the root of the settings, with the checks that need more than one section;
//! - `service` binds a service to its part of the settings, and `process` runs one of them for as long as
//!   the process lives; `command::dev` runs all of them.

mod cli;
mod command;
mod config;
mod process;
mod reload;
mod service;
mod shell;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Keeps allocations of different sizes apart: what a request needed for a moment leaves no holes among what its
/// connection keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread: the process becomes another program.
    if let Command::NatsChild(args) = cli.command {
        return fail(&command::nats_child::run(&args));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    // There is no other provider that could be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = runtime.block_on(cli.run());
    // What still runs has had its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // One sentence a line: the problems of a config file are several.
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
