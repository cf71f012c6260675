//! What is stored in EVENTS, and what of it the stream may remember.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::{Bus, Outgoing, StoreError, Stored};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Namespace;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::check::Refusal;
use crate::pipeline::tails::{Origin, Tail};
use crate::pipeline::voyage::Voyage;

/// No room's sequence: a store that expects it is never done.
const NEVER: u64 = 1 << 62;

/// An event as it is written to each of its rooms.
#[derive(Debug)]
pub(crate) struct Content {
    /// All headers but those that depend on the room and the moment.
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) origin: Origin,
    /// What names the event within a room, for the removal of duplicates.
    pub(crate) once: Option<String>,
    /// Seconds that it stays, if not as long as the history.
    pub(crate) ttl: Option<u64>,
}

/// One event in one room.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) room: Arc<str>,
    pub(crate) content: Arc<Content>,
    /// The entry of the shipment that it belongs to.
    pub(crate) entry: usize,
}

/// What is stored together: events for one room, or one event for several.
#[derive(Debug)]
pub(crate) struct Shipment {
    pub(crate) namespace: Namespace,
    pub(crate) stream: String,
    pub(crate) copies: Vec<Copy>,
    pub(crate) entries: usize,
    /// The rooms that are known; the others are looked up.
    pub(crate) tails: HashMap<Arc<str>, Tail>,
}

/// What became of a shipment.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tails: HashMap<Arc<str>, Tail>,
    /// By entry.
    pub(crate) fates: Vec<Fate>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the history; the highest sequence of its copies, where that is known.
    Stored(Option<u64>),
    /// The server does not take it.
    Refused(Refusal),
}

/// Where shipments go.
#[derive(Clone)]
pub(crate) struct Store {
    pub(super) bus: Bus,
    /// A server bears 50 atomic batches of a stream at a time.
    batches: Arc<Semaphore>,
}

impl Store {
    pub(crate) fn new(bus: Bus, batches: usize) -> Self {
        Self {
            bus,
            batches: Arc::new(Semaphore::new(batches.max(1))),
        }
    }

    /// Stores a shipment, however long it takes.
    pub(crate) async fn deliver(&self, shipment: Shipment) -> Outcome {
        Voyage::new(self, shipment).run().await
    }

    /// Returns whether the stream remembers an event of this name in the room.
    ///
    /// An atomic batch whose last message can never be stored is a question: it fails for the repeated name, or
    /// else for its end.
    pub(super) async fn remembers(&self, copy: &Copy) -> bool {
        let Some(id) = copy.message_id() else { return false };
        let message = |name, value| Outgoing {
            subject: copy.room.to_string(),
            headers: Headers::new().with(name, value),
            body: Bytes::new(),
        };
        let question = vec![
            message(name::MSG_ID, id),
            message(name::EXPECTED, NEVER.to_string()),
        ];
        matches!(
            self.store_batch(question).await,
            Err(StoreError::DuplicateInBatch)
        )
    }

    /// Stores messages as one atomic batch, when there is room for one.
    pub(super) async fn store_batch(&self, messages: Vec<Outgoing>) -> Result<Stored, StoreError> {
        let _batch = self
            .batches
            .acquire()
            .await
            .expect("the semaphore is never closed");
        self.bus.store_batch(messages).await
    }
}

impl Content {
    /// Returns when the event expires, if it does, where it is stored at a time; both in milliseconds since 1970.
    pub(super) fn expires(&self, stored: u64) -> Option<u64> {
        Some(stored.saturating_add(self.ttl?.saturating_mul(1000)))
    }
}

impl Copy {
    /// JetStream removes duplicates in the whole stream, so the room is part of the name.
    pub(super) fn message_id(&self) -> Option<String> {
        let once = self.content.once.as_ref()?;
        let mut hash = Sha256::new();
        hash.update(self.room.as_bytes());
        hash.update([0]);
        hash.update(once.as_bytes());
        Some(
            hash.finalize()[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

impl Fate {
    pub(super) fn stored_at(&mut self, sequence: u64) {
        if let Self::Stored(known) = self {
            *known = (*known).max(Some(sequence));
        }
    }
}
