use std::time::Duration;

use serde::Deserialize;

use crate::config::{bytes, duration};

/// `[history]`: how long durable events can be replayed.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Age at which an event leaves the history; at least 2 minutes.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// Size of a stream of events; 0 is without limit.
    #[serde(with = "bytes")]
    pub max_bytes: u64,
    /// Events kept per room; also the most that one resume reads of a room.
    pub max_per_room: u64,
    /// How long an id or `Nats-Msg-Id` is remembered, if events stay as long; see [`History::memory`].
    #[serde(with = "duration")]
    pub dedupe: Duration,
    /// Where events are kept.
    pub storage: Storage,
}

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    File,
    Memory,
}

impl History {
    /// Returns how long ids are remembered: an id is forgotten with its event, wherever it is known.
    pub fn memory(&self) -> Duration {
        self.dedupe.min(self.max_age)
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 3600),
            max_bytes: 0,
            max_per_room: 10_000,
            dedupe: Duration::from_secs(600),
            storage: Storage::File,
        }
    }
}
