//! The router over a real nats-server, with edges that only write what edges write.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod announce;
mod ask;
mod cluster;
mod edge;
mod http;
mod offline;
mod orders;
mod presence;
mod readiness;
mod replicas;
mod revocation;
mod sweep;
