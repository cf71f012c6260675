//! Stores that the server acknowledges, one by one or as an atomic batch.

use std::future::Future;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError as JsError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use carillon_protocol::headers::Headers;
use serde::Deserialize;

use crate::connection::{Bus, RequestError, wire_size, write_headers};
use crate::intake::{NO_RESPONDERS, Received};

/// How long an acknowledgement may take, where many are waited for.
const ACK: Duration = Duration::from_secs(5);
/// How long an acknowledgement of a batch may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A message for a stream.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub subject: String,
    pub headers: Headers,
    pub body: Bytes,
}

/// What the server acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The sequence of the message; of a batch, of its last message.
    pub sequence: u64,
    /// The stream already had a message of this id; the sequence is that message's.
    pub duplicate: bool,
}

/// Why nothing was acknowledged. Only a refusal says that nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the subject's last sequence is another one")]
    WrongLastSequence,
    #[error("the batch has an id that the stream already has")]
    DuplicateInBatch,
    #[error("the message is too large")]
    TooLarge,
    #[error("no acknowledgement in time")]
    Timeout,
    #[error("no stream takes the subject")]
    NoStream,
    #[error("NATS is away")]
    Away,
    #[error("refused by the server: {description} ({code})")]
    Refused { code: u64, description: String },
}

impl StoreError {
    /// Returns whether the same store may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::NoStream | Self::Away | Self::Refused { .. }
        )
    }

    /// Returns whether the same message is refused for ever.
    pub fn is_permanent(&self) -> bool {
        /// The server's answers to headers and a TTL that it cannot take.
        const CODES: [u64; 4] = [10052, 10097, 10165, 10166];
        match self {
            Self::TooLarge => true,
            Self::Refused { code, .. } => CODES.contains(code),
            _ => false,
        }
    }

    fn from_code(code: u64, description: String) -> Self {
        match code {
            10071 | 10164 => Self::WrongLastSequence,
            10201 => Self::DuplicateInBatch,
            10054 => Self::TooLarge,
            _ => Self::Refused { code, description },
        }
    }
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Bus {
    /// Stores a message and waits for its acknowledgement.
    pub async fn store(&self, subject: &str, headers: &Headers, body: Bytes) -> Result<Stored, StoreError> {
        self.store_later(subject, headers, body).await?.await
    }

    /// Sends a message for a stream now; the acknowledgement is awaited by the returned future.
    pub async fn store_later(
        &self,
        subject: &str,
        headers: &Headers,
        body: Bytes,
    ) -> Result<impl Future<Output = Result<Stored, StoreError>> + Send + use<>, StoreError> {
        let message = PublishMessage::build()
            .payload(body)
            .headers(write_headers(headers));
        let ack = self
            .inner
            .jetstream
            .send_publish(subject.to_owned(), message)
            .await
            .map_err(store_error)?;
        Ok(async move {
            let ack = ack.await.map_err(store_error)?;
            Ok(Stored {
                sequence: ack.sequence,
                duplicate: ack.duplicate,
            })
        })
    }

    /// Stores messages in their order, without waiting for one acknowledgement before the next message. Returns what was
    /// acknowledged up to the first message that was not, and why that was not.
    ///
    /// All go over one connection: where it breaks, nothing is stored behind what is lost with it.
    pub async fn store_in_order(&self, messages: &[Outgoing]) -> (Vec<Stored>, Result<(), StoreError>) {
        let intake = &self.inner.intake;
        let mut state = intake.link().state();
        let generation = state.borrow_and_update().generation;
        let mut sent = Ok(());
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            let Outgoing {
                subject,
                headers,
                body,
            } = message;
            if wire_size(headers, body) > self.max_payload() {
                sent = Err(StoreError::TooLarge);
                break;
            }
            let Ok(answer) = intake.request_on(generation, subject, headers, body).await else {
                sent = Err(StoreError::Away);
                break;
            };
            answers.push(answer);
        }
        let mut stored = Vec::with_capacity(answers.len());
        for answer in answers {
            let broken = async {
                let _ = state
                    .wait_for(|state| !state.connected || state.generation != generation)
                    .await;
            };
            let ack = tokio::select! {
                biased;
                received = answer.come() => read_answer(received),
                () = broken => Err(StoreError::Away),
                () = tokio::time::sleep(ACK) => Err(StoreError::Timeout),
            };
            match ack {
                Ok(ack) => stored.push(ack),
                Err(error) => return (stored, Err(error)),
            }
        }
        (stored, sent)
    }

    /// Stores messages of one stream with contiguous sequences, all or none; at most 1000.
    pub async fn store_batch(&self, messages: Vec<Outgoing>) -> Result<Stored, StoreError> {
        let count = messages.len();
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut last = None;
        for (index, message) in messages.into_iter().enumerate() {
            let mut headers = message.headers;
            headers.push("Nats-Batch-Id", &*id);
            headers.push("Nats-Batch-Sequence", (index + 1).to_string());
            let commit = index + 1 == count;
            if commit {
                headers.push("Nats-Batch-Commit", "1");
            }
            if index == 0 || commit {
                // The first message is answered too, so a stream that takes no batch is noticed at once.
                let reply = self
                    .request(&message.subject, &headers, message.body, BATCH_TIMEOUT)
                    .await;
                last = read_ack(&reply.map_err(request_error)?.body)?;
            } else {
                self.publish(&message.subject, &headers, message.body)
                    .await
                    .map_err(|error| match error {
                        crate::PublishError::TooLarge => StoreError::TooLarge,
                        crate::PublishError::Subject | crate::PublishError::Closed(_) => StoreError::Away,
                    })?;
            }
        }
        last.ok_or(StoreError::Refused {
            code: 0,
            description: "the batch was not acknowledged".to_owned(),
        })
    }
}

/// Reads an acknowledgement; the empty one of a batch's first message is `None`.
fn read_ack(body: &[u8]) -> Result<Option<Stored>, StoreError> {
    if body.is_empty() {
        return Ok(None);
    }
    let ack: Ack = serde_json::from_slice(body).map_err(|error| StoreError::Refused {
        code: 0,
        description: format!("unreadable acknowledgement: {error}"),
    })?;
    match ack.error {
        Some(error) => Err(StoreError::from_code(error.err_code, error.description)),
        None => Ok(Some(Stored {
            sequence: ack.seq,
            duplicate: ack.duplicate,
        })),
    }
}

fn read_answer(received: Option<Received>) -> Result<Stored, StoreError> {
    let Received { message, status, .. } = received.ok_or(StoreError::Away)?;
    if status.is_some_and(|status| status.code == NO_RESPONDERS) && message.body.is_empty() {
        return Err(StoreError::NoStream);
    }
    read_ack(&message.body)?.ok_or_else(|| StoreError::Refused {
        code: 0,
        description: "the message was not acknowledged".to_owned(),
    })
}

fn request_error(error: RequestError) -> StoreError {
    match error {
        RequestError::NoResponders => StoreError::NoStream,
        RequestError::Timeout => StoreError::Timeout,
        RequestError::Away => StoreError::Away,
    }
}

fn store_error(error: JsError) -> StoreError {
    match error.kind() {
        PublishErrorKind::StreamNotFound => StoreError::NoStream,
        PublishErrorKind::WrongLastSequence => StoreError::WrongLastSequence,
        PublishErrorKind::TimedOut => StoreError::Timeout,
        PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => StoreError::Away,
        PublishErrorKind::MaxPayloadExceeded => StoreError::TooLarge,
        _ => match std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        {
            Some(api) => StoreError::from_code(api.error_code().0, api.to_string()),
            None => StoreError::Refused {
                code: 0,
                description: error.to_string(),
            },
        },
    }
}
