//! Tests of what the other tests stand on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod clients;
mod echo;
mod fleet;
mod history;
mod leaks;
mod nats;
mod process;
mod proxy;

use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
