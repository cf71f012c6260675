//! `Idempotency-Key`: the same key is the same request, and a signal that comes again is not sent again.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use carillon_bus::TableError;
use carillon_service::problem::Problem;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Api;
use super::request::Asked;
use crate::backoff::Backoff;

impl Api {
    /// Refuses a key that came with another request before.
    pub(super) async fn same_request(
        &self,
        name: &str,
        asked: &[Asked],
        deadline: Instant,
    ) -> Result<(), Problem> {
        // INGEST may take the event at the last moment, and must not remember its name for longer.
        let ttl = self.dedupe + deadline.saturating_duration_since(Instant::now());
        let key = format!("key.{name}");
        match self.write_once(&key, fingerprint(asked), ttl, deadline).await? {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "the Idempotency-Key came with another request before",
            )),
        }
    }

    /// Marks a signal as sent; `None` where it was sent before.
    pub(super) async fn mark_sent(&self, key: &str, deadline: Instant) -> Result<Option<u64>, Problem> {
        let own = Bytes::from(format!("{:016x}", fastrand::u64(..)));
        self.write_once(key, own, self.dedupe, deadline).await
    }

    /// Writes a key unless it is there, however often that has to be tried until the deadline. Returns its revision,
    /// or `None` where it has another value.
    async fn write_once(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Option<u64>, Problem> {
        let attempts = async {
            let mut backoff = Backoff::new();
            loop {
                self.intake.connected().await;
                let written = match self.sent.create(key, value.clone(), Some(ttl)).await {
                    Ok(revision) => return Some(revision),
                    // Perhaps by an attempt whose acknowledgement was lost.
                    Err(TableError::Conflict) => self.sent.get(key).await,
                    Err(error) => Err(error),
                };
                match written {
                    Ok(Some(entry)) => return (entry.value == value).then_some(entry.revision),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "idempotency key is not written yet"),
                }
                backoff.wait().await;
            }
        };
        tokio::time::timeout_at(deadline, attempts)
            .await
            .map_err(|_| Problem::unavailable("NATS is away", 2))
    }
}

/// Tells requests apart by what they publish; whether a receipt is wanted makes no other publish.
fn fingerprint(asked: &[Asked]) -> Bytes {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    for event in asked {
        part(event.namespace.as_str().as_bytes());
        part(&[u8::from(event.ephemeral)]);
        part(&event.rooms.len().to_be_bytes());
        for room in &event.rooms {
            part(room.as_str().as_bytes());
        }
        part(&event.body);
    }
    Bytes::copy_from_slice(&hash.finalize())
}
