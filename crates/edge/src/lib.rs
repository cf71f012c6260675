//! An edge of a Carillon cluster: it holds the clients' connections and delivers events to them.
//!
//! A request comes in by [`accept`] and [`http`]; a transport (`transport`) moves frames between a client's queue
//! ([`client`], [`outbox`]) and its socket; what the frames mean is decided in [`conversation`] (Socket.IO) and
//! [`plain`] (JSON). Either opens a [`session`] in a [`namespace`], by [`entrance`], which is where recovery
//! happens. Deliveries come in by [`delivery`], per [`room`], and are repaired ([`repair`]) and verified
//! ([`verify`]) there; what rooms had is read back by [`history`]. What a client may do is decided by [`rules`] and carried out by [`actions`].

pub mod config;
mod server;

mod hub;
mod members;
mod namespace;
mod room;
mod session;
mod user;

mod accept;
mod address;
mod demo;
mod http;
mod origin;
mod socket;
mod tls;
mod transport;
mod upgrade;

mod client;
mod frame;
mod outbox;

mod admission;
mod asks;
mod conversation;
mod engine;
mod entrance;
mod expiry;
mod plain;
mod pulse;
mod revocation;
mod ticket;

mod actions;
mod backend;
mod lifecycle;
pub mod rules;
mod up;

mod barrier;
mod delivery;
mod doubts;
mod drain;
mod history;
mod lease;
mod membership;
mod pending;
mod rebalance;
mod recent;
mod record;
mod repair;
mod requests;
mod turn;
mod verify;

mod metrics;

#[cfg(any(test, feature = "bench"))]
pub mod bench;
#[cfg(test)]
mod footprint;

pub use config::Config;
pub use server::{BindError, Reloader, RunError, Server, Shared};
