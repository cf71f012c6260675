//! The parts of a process, over real sockets and files.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod admin;
mod http;
mod problem;
mod reload;
mod signal;
mod telemetry;
mod wire;
