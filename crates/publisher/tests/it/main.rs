//! The publisher over a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod before;
mod cluster;
mod dead;
mod demo;
mod http;
mod idempotency;
mod lists;
mod mqtt;
mod publish;
mod receipt;
mod restart;
mod schedule;
mod signal;
mod stage;
mod takeover;
