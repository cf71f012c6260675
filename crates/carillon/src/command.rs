//! A module for each subcommand that is more than one service.

pub(crate) mod check;
pub(crate) mod dead;
pub(crate) mod dev;
pub(crate) mod healthcheck;
pub(crate) mod nats_child;
pub(crate) mod publish;
pub(crate) mod tail;
pub(crate) mod token;
pub(crate) mod who;
