//! A durable consumer that one process reads, in order.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use bytes::Bytes;
use carillon_protocol::headers::Headers;
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::connection::{Bus, LinkState, read_headers};

/// Redelivery of what was not acknowledged; long, since the owner retries by itself and a new owner starts anew.
const ACK_WAIT: Duration = Duration::from_secs(300);
/// Messages out for acknowledgement at once.
const MAX_PENDING: i64 = 4096;

/// Where a consumer begins that does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first message that the stream has.
    All,
    /// With the next message that comes.
    New,
    /// With the first message after this sequence.
    After(u64),
}

/// Who remembers what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The server, by the acknowledgement of each message.
    Server,
    /// The reader, who begins after what it has: nothing is acknowledged, and a message that does not come ends the
    /// reading.
    Reader,
}

/// A durable consumer, open for reading.
pub struct Durable {
    messages: pull::Stream,
    /// How many messages came, where each one must.
    delivered: Option<u64>,
    state: watch::Receiver<LinkState>,
    generation: u64,
}

/// A message that awaits its acknowledgement.
pub struct Delivered {
    /// The sequence in the stream.
    pub sequence: u64,
    pub subject: String,
    pub headers: Headers,
    pub body: Bytes,
    /// Milliseconds since 1970 at which it was stored.
    pub time: u64,
    /// Messages that wait behind this one.
    pub pending: u64,
    acker: async_nats::jetstream::message::Acker,
}

/// Why a consumer cannot be read any more.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    #[error("the consumer was taken over")]
    Lost,
    #[error("NATS is away")]
    Away,
    #[error("consumer: {0}")]
    Server(String),
}

impl Durable {
    /// Opens a durable consumer, and makes it where it is missing.
    pub async fn open(
        bus: &Bus,
        stream: &str,
        name: &str,
        filters: Vec<String>,
        start: Start,
        memory: Memory,
    ) -> Result<Self, DurableError> {
        let state = bus.link_state();
        let generation = state.borrow().generation;
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            deliver_policy: match start {
                Start::All => DeliverPolicy::All,
                Start::New => DeliverPolicy::New,
                Start::After(sequence) => DeliverPolicy::ByStartSequence {
                    start_sequence: sequence + 1,
                },
            },
            filter_subjects: filters,
            ..match memory {
                Memory::Server => pull::Config {
                    ack_policy: AckPolicy::Explicit,
                    ack_wait: ACK_WAIT,
                    max_ack_pending: MAX_PENDING,
                    ..pull::Config::default()
                },
                Memory::Reader => pull::Config {
                    ack_policy: AckPolicy::None,
                    ..pull::Config::default()
                },
            }
        };
        let consumer: PullConsumer = bus
            .inner
            .jetstream
            .create_consumer_on_stream(config, stream)
            .await
            .map_err(|error| DurableError::Server(error.to_string()))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(512)
            .expires(Duration::from_secs(10))
            .heartbeat(Duration::from_secs(4))
            .messages()
            .await
            .map_err(|error| DurableError::Server(error.to_string()))?;
        Ok(Self {
            messages,
            delivered: (memory == Memory::Reader).then_some(0),
            state,
            generation,
        })
    }

    /// Deletes a consumer; one that does not exist is no error.
    pub async fn delete(bus: &Bus, stream: &str, name: &str) -> Result<(), DurableError> {
        match bus
            .inner
            .jetstream
            .delete_consumer_from_stream(name, stream)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("10014") || error.to_string().contains("not found") => {
                Ok(())
            }
            Err(error) => Err(DurableError::Server(error.to_string())),
        }
    }

    /// Returns the next message.
    ///
    /// After any break of the connection the consumer must be opened anew: what was on its way is lost here, and
    /// would come back late and out of order.
    pub async fn next(&mut self) -> Result<Delivered, DurableError> {
        loop {
            let message = tokio::select! {
                message = self.messages.next() => message,
                _ = self.state.changed() => {
                    let state = *self.state.borrow_and_update();
                    if state.connected && state.generation == self.generation {
                        continue;
                    }
                    return Err(DurableError::Away);
                }
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    return Err(match error.kind() {
                        MessagesErrorKind::ConsumerDeleted => DurableError::Lost,
                        MessagesErrorKind::MissingHeartbeat | MessagesErrorKind::NoResponders => {
                            DurableError::Away
                        }
                        _ => DurableError::Server(error.to_string()),
                    });
                }
                None => return Err(DurableError::Away),
            };
            let Ok(info) = message.info() else { continue };
            let (sequence, pending) = (info.stream_sequence, info.pending);
            if let Some(delivered) = &mut self.delivered {
                *delivered += 1;
                if info.consumer_sequence != *delivered {
                    return Err(DurableError::Server("a message did not come".to_owned()));
                }
            }
            let time = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
            let (message, acker) = message.split();
            return Ok(Delivered {
                sequence,
                subject: message.subject.into_string(),
                headers: message.headers.as_ref().map(read_headers).unwrap_or_default(),
                body: message.payload,
                time,
                pending,
                acker,
            });
        }
    }
}

impl Delivered {
    /// Acknowledges the message; a lost acknowledgement means a redelivery to the next owner.
    pub async fn ack(&self) -> Result<(), DurableError> {
        self.acker
            .ack_with(AckKind::Ack)
            .await
            .map_err(|_| DurableError::Away)
    }
}
