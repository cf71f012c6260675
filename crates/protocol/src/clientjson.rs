//! The JSON of plain WebSocket clients at `/ws`, and of server-sent events.
//!
//! Data stays JSON text in both directions.

pub mod encode;
mod fields;
mod parse;

pub use parse::{BadMessage, Message, Problem, Token, parse};

#[cfg(test)]
mod tests;
