//! What operators' tools need beside the services: which stream has a subject, and the removal of a message.

use async_nats::jetstream::context::GetStreamByNameErrorKind;

use crate::connection::Bus;

/// Why a stream could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("the stream cannot be looked up: {0}")]
    Lookup(String),
    #[error("the message cannot be removed: {0}")]
    Remove(String),
}

impl Bus {
    /// Returns the name of the stream that takes a subject, or part of it where it has wildcards.
    pub async fn stream_of(&self, subject: &str) -> Result<Option<String>, InspectError> {
        match self.inner.jetstream.stream_by_subject(subject).await {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
            Err(error) => Err(InspectError::Lookup(error.to_string())),
        }
    }

    /// Removes one message from a stream; tells whether it was there.
    pub async fn remove(&self, stream: &str, sequence: u64) -> Result<bool, InspectError> {
        let found = self.inner.jetstream.get_stream_no_info(stream).await;
        let stream = found.map_err(|error| InspectError::Remove(error.to_string()))?;
        let removed = stream.delete_message(sequence).await;
        removed.map_err(|error| InspectError::Remove(error.to_string()))
    }
}
