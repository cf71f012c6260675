//! The way into INGEST for what does not come over NATS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bus, Outgoing, StoreError, Stored};
use carillon_protocol::headers::Headers;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Puts events into INGEST within a time.
#[derive(Clone)]
pub(crate) struct Intake {
    bus: Bus,
    timeout: Duration,
}

/// A message for INGEST.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) subject: Arc<str>,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

/// Why a message is not known to be in INGEST.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntakeError {
    #[error("NATS did not take the event in time")]
    Away,
    #[error("the event does not fit into a message")]
    TooLarge,
}

impl Intake {
    pub(crate) fn new(bus: Bus, timeout: Duration) -> Self {
        Self { bus, timeout }
    }

    /// Returns when a message that comes now has to be in.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Stores a message; the same one may be stored twice where an acknowledgement was lost, so it must carry
    /// an id or a name by which duplicates are removed.
    pub(crate) async fn store(&self, incoming: &Incoming, deadline: Instant) -> Result<Stored, IntakeError> {
        let attempts = self.attempts(incoming);
        tokio::time::timeout_at(deadline, attempts)
            .await
            .unwrap_or(Err(IntakeError::Away))
    }

    /// Stores messages in their order; each of them as [`Intake::store`] does.
    pub(crate) async fn store_all(
        &self,
        incoming: &[Incoming],
        deadline: Instant,
    ) -> Result<Vec<Stored>, IntakeError> {
        let attempts = self.attempts_in_order(incoming);
        tokio::time::timeout_at(deadline, attempts)
            .await
            .unwrap_or(Err(IntakeError::Away))
    }

    async fn attempts_in_order(&self, incoming: &[Incoming]) -> Result<Vec<Stored>, IntakeError> {
        let messages: Vec<Outgoing> = incoming
            .iter()
            .map(|message| Outgoing {
                subject: message.subject.to_string(),
                headers: message.headers.clone(),
                body: message.body.clone(),
            })
            .collect();
        let mut stored = Vec::with_capacity(messages.len());
        let mut backoff = Backoff::new();
        while stored.len() < messages.len() {
            self.connected().await;
            let (mut acknowledged, rest) = self.bus.store_in_order(&messages[stored.len()..]).await;
            stored.append(&mut acknowledged);
            match rest {
                Ok(()) => break,
                Err(StoreError::TooLarge) => return Err(IntakeError::TooLarge),
                // All from the first that is not known to be stored go once more, in their order.
                Err(error) => {
                    tracing::debug!(%error, stored = stored.len(), "events are not all taken in yet")
                }
            }
            backoff.wait().await;
        }
        Ok(stored)
    }

    async fn attempts(&self, incoming: &Incoming) -> Result<Stored, IntakeError> {
        let mut backoff = Backoff::new();
        loop {
            self.connected().await;
            match self
                .bus
                .store(&incoming.subject, &incoming.headers, incoming.body.clone())
                .await
            {
                Ok(stored) => return Ok(stored),
                Err(StoreError::TooLarge) => return Err(IntakeError::TooLarge),
                Err(error) => {
                    tracing::debug!(%error, subject = %incoming.subject, "event is not taken in yet")
                }
            }
            backoff.wait().await;
        }
    }

    /// Waits until NATS is there: what is sent while it is away would be kept and sent late.
    pub(crate) async fn connected(&self) {
        let mut state = self.bus.link_state();
        if state.wait_for(|state| state.connected).await.is_err() {
            // The connection is closed for good; the deadline ends the wait.
            std::future::pending::<()>().await;
        }
    }
}

/// Takes over the headers of a message, but not the orders to the server among them.
pub(crate) fn without_orders(headers: &Headers) -> Headers {
    let mut kept = Headers::new();
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| !name.to_ascii_lowercase().starts_with("nats-"))
    {
        kept.push(name, value);
    }
    kept
}
