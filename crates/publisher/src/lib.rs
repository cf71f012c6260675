//! The publisher: the one way in for events, from teams to the history of their rooms.
//!
//! Durable events come over NATS, HTTP and MQTT, and all enter by the stream INGEST. The publisher that holds
//! the lease of a partition of INGEST checks each body and stores it in EVENTS, in order and once; whatever is
//! refused is kept as a dead letter. Signals take the same check and go straight to the edges.
//!
//! The modules, in reading order:
//!
//! - `config` and `server`: what can be set, what runs, and in which order it stops;
//! - `check`: is a body an event, and for which rooms; `dead` keeps those that are none;
//! - `pipeline`: the owner of a partition, with the `queue` that keeps the order of each room, the `tails` that
//!   tell what a room already has, and the `store` that repeats until it is there;
//! - `schedule` and `signal`: events for later, and events for now only;
//! - `intake`, `http`, `receipt`: the HTTP interface;
//! - `mqtt` and `demo`: the other sources.

mod backoff;
mod check;
mod config;
mod dead;
mod demo;
mod http;
mod intake;
mod metrics;
mod mqtt;
mod pipeline;
mod receipt;
mod schedule;
mod server;
mod signal;
mod trace;

pub use config::{Config, ConfigError, Demo, Mqtt};
pub use mqtt::template::Template;
pub use server::{BindError, RunError, Server, Setup};
