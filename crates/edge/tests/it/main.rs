//! Edges over a real nats-server, with stock npm clients; events are stored as a publisher stores them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod accept_rate;
mod admission;
mod ask;
mod awaited;
mod deliver;
mod doubts;
mod enter;
mod evicted;
mod expiry;
mod handshake;
mod held;
mod lifecycle;
mod limits;
mod mortal;
mod moves;
mod order;
mod part;
mod parted;
mod polling;
mod raw_polling;
mod rebalance;
mod recover;
mod repair;
mod replay;
mod silent;
mod slow;
mod socket;
mod sse;
mod stage;
mod strange;
mod subscribe;
mod upgrade;
