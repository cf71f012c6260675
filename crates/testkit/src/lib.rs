//! What Carillon's tests stand on: real servers, real processes and stock clients, started in a moment
//! and never left behind.
//!
//! - [`nats`] starts a `nats-server`, or a cluster of three, and stops, kills and restarts it.
//! - [`process`] starts the `carillon` binary, keeps its log and sends it signals.
//! - [`clients`] drives unmodified npm clients in one Node process.
//! - [`proxy`] stands between clients and servers and sends each request to the next one.
//! - [`wait`], [`net`], [`http`], [`tokens`] and [`optional`] are the small parts the others share.
//!
//! Everything panics with what was seen instead of what was expected: this is test code.

pub mod nats;
pub mod process;

pub mod clients;
pub mod proxy;

pub mod http;
pub mod net;
pub mod optional;
pub mod tokens;
pub mod wait;

mod checkout;
mod child;

pub use child::Log;
