//! The program as its users start it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod check;
mod dev;
mod environment;
mod latency;
mod metrics;
mod secrets;
mod service;
mod shell;
mod stalled;
mod survive;
mod token;

use std::time::Duration;

use carillon_testkit::process::{Builder, Carillon};

/// Long enough for a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// A command of the program under test.
fn carillon<const N: usize>(args: [&str; N]) -> Builder {
    Carillon::command(env!("CARGO_BIN_EXE_carillon"), args)
}

/// Runs a command to its end: whether it succeeded, and all it printed.
async fn run(builder: Builder) -> (bool, String) {
    let (status, text) = builder.run(LIMIT).await;
    // A signal leaves no words.
    let text = match status.code() {
        Some(_) => text,
        None => format!("{text}{status}"),
    };
    (status.success(), text)
}
