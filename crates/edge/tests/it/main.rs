//! Edges over a real nats-server, with stock npm clients; events are stored as a publisher stores them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod deliver;
mod handshake;
mod recover;
mod repair;
mod stage;
mod subscribe;
