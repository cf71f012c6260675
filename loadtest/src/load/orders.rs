//! What a load process is told, and what it answers.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Connect every client that is not, so many at once.
    Connect { at_once: usize },
    /// Close every connection.
    Drop,
    /// Publish at a rate of events per second.
    Paced { kind: Kind, rate: f64, seconds: f64 },
    /// Publish as fast as the clients take it, with so many events under way.
    Window { kind: Kind, window: u64, seconds: f64 },
    /// Ask a plain NATS responder at a rate.
    Requests { rate: f64, seconds: f64 },
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Signal,
    Durable,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Connected {
        connected: usize,
        failed: usize,
        seconds: f64,
    },
    Measured(Measured),
}

/// What came of publishing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) published: u64,
    /// Deliveries that are due for what was published.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    /// Events that came after a later one, or not at all.
    pub(crate) missing: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// From the first event published to the last delivered.
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}
