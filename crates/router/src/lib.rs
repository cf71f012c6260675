//! The router: the view over all sessions of the cluster.
//!
//! It tells who is where, takes orders to sessions, asks clients, and looks after sessions that no edge looks
//! after: those of dead edges, those that were away for too long, and what their users missed. Edges write the
//! records of their own sessions; no client waits for a router.
//!
//! Reading order: `config`, `server`; `table` and `view` hold the sessions, `leases` and `sweep` find dead
//! edges, `expiry` and `offline` end sessions; `requests` and `http` are the ways in to `presence`, `orders`,
//! `revocation` and `ask`; `announce` tells `joined` and `left`.

mod announce;
mod ask;
mod config;
mod contact;
mod expiry;
mod http;
mod leases;
mod metrics;
mod offline;
mod orders;
mod presence;
mod refusal;
mod replicas;
mod requests;
mod revocation;
mod router;
mod server;
mod sweep;
mod table;
mod target;
mod view;
mod watches;

pub use config::Config;
pub use server::{BindError, RunError, Server, Setup};
