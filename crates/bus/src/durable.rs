//! A durable consumer that one process reads, in order.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use bytes::Bytes;
use carillon_protocol::headers::Headers;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection::{Bus, LinkState, Message};
use crate::intake::{Intake, Received, Span, Status};
use crate::subscription::Subscription;

/// Redelivery of what was not acknowledged; long, since the owner retries by itself and a new owner starts anew.
const ACK_WAIT: Duration = Duration::from_secs(300);
/// Messages out for acknowledgement at once.
const MAX_PENDING: i64 = 4096;
/// Messages asked for with one request; the next request goes out when half of them have come.
const BATCH: u64 = 512;
/// Bytes asked for with one request, if four messages of the largest size are no more.
const BATCH_BYTES: usize = 16 << 20;
/// How the server ends a request whose bytes the next message exceeds.
const TOO_LARGE: &str = "Message Size Exceeds MaxBytes";
/// How long the server keeps a request.
const EXPIRES: Duration = Duration::from_secs(10);
/// How often the server says that it keeps a request, while it has no message; two that do not come are too many.
const HEARTBEAT: Duration = Duration::from_secs(4);

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
    /// The reader, who begins after what it has: nothing is acknowledged.
    Reader,
}

/// A durable consumer, open for reading.
pub struct Durable {
    /// What comes to the inbox that the requests name.
    messages: Subscription,
    intake: Intake,
    /// Where requests for messages go.
    next: String,
    inbox: String,
    /// Messages that were asked for and have not come.
    asked: u64,
    /// The requests that they were asked for with, the oldest first.
    requests: VecDeque<Request>,
    /// Most bytes that a request brings.
    max_bytes: usize,
    /// The next message is larger than that: it was stored when the server took larger ones.
    is_oversized: bool,
    /// When the server has been silent for too long; set while it is listened to.
    silent: Option<Instant>,
    /// How many messages came.
    delivered: u64,
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
    intake: Intake,
    /// Where the acknowledgement goes.
    reply: String,
}

/// What is still to come for a request.
struct Request {
    messages: u64,
    bytes: usize,
}

/// What the reply subject of a message tells of it (NATS ADR-15).
#[derive(Debug, PartialEq, Eq)]
struct Place {
    stream_sequence: u64,
    consumer_sequence: u64,
    nanoseconds: u64,
    pending: u64,
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
        let _: PullConsumer = bus
            .inner
            .jetstream
            .create_consumer_on_stream(config, stream)
            .await
            .map_err(|error| DurableError::Server(error.to_string()))?;
        let intake = bus.inner.intake.clone();
        let inbox = bus.inbox();
        Ok(Self {
            // What is on its way when the link breaks must not be followed by what comes after it.
            messages: Subscription::new(&intake, &inbox, None, Span::OneConnection),
            intake,
            next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            inbox,
            asked: 0,
            requests: VecDeque::new(),
            max_bytes: BATCH_BYTES.max(bus.max_payload().saturating_mul(4)),
            is_oversized: false,
            silent: None,
            delivered: 0,
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
    /// After any break of the connection, and where a message did not come, the consumer must be opened anew: what
    /// was on its way is lost here, and would come back late and out of order.
    pub async fn next(&mut self) -> Result<Delivered, DurableError> {
        loop {
            if self.asked <= BATCH / 2 {
                self.ask().await?;
            }
            let silent = *self.silent.get_or_insert_with(|| Instant::now() + 2 * HEARTBEAT);
            let received = tokio::select! {
                biased;
                _ = self.state.changed() => {
                    let state = *self.state.borrow_and_update();
                    if state.connected && state.generation == self.generation {
                        continue;
                    }
                    return Err(DurableError::Away);
                }
                received = self.messages.next_raw() => received.ok_or(DurableError::Away)?,
                () = tokio::time::sleep_until(silent) => return Err(DurableError::Away),
            };
            self.silent = None;
            let Received {
                message,
                status,
                size,
            } = received;
            // The status of a message that somebody published is none of the server's.
            if let Some(place) = message.reply.as_deref().and_then(Place::read) {
                self.count(size);
                return self.deliver(message, &place);
            }
            if let Some(status) = status {
                self.take_in(&status, &message.headers)?;
            }
        }
    }

    /// Asks for more messages.
    async fn ask(&mut self) -> Result<(), DurableError> {
        let (batch, max_bytes) = if self.is_oversized {
            (1, 0)
        } else {
            (BATCH, self.max_bytes)
        };
        let request = json!({
            "batch": batch,
            "max_bytes": max_bytes,
            "expires": u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX),
            "idle_heartbeat": u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(u64::MAX),
        });
        let request = request.to_string();
        // A request must not be sent twice where this is cut off.
        self.intake.link().has_room().await;
        self.intake
            .link()
            .publish(&self.next, Some(&self.inbox), &Headers::new(), request.as_bytes())
            .map_err(|_| DurableError::Away)?;
        self.asked += batch;
        self.requests.push_back(Request {
            messages: batch,
            bytes: if max_bytes == 0 { usize::MAX } else { max_bytes },
        });
        self.is_oversized = false;
        Ok(())
    }

    /// Counts a message against the oldest request. The server ends one without a word where its last byte is used.
    fn count(&mut self, size: usize) {
        self.asked = self.asked.saturating_sub(1);
        let Some(oldest) = self.requests.front_mut() else {
            return;
        };
        oldest.messages = oldest.messages.saturating_sub(1);
        // More than there was: it belonged to a request whose end was told before its messages came.
        oldest.bytes = oldest.bytes.checked_sub(size).unwrap_or(usize::MAX);
        if oldest.messages == 0 || oldest.bytes == 0 {
            self.asked = self.asked.saturating_sub(oldest.messages);
            self.requests.pop_front();
        }
    }

    fn deliver(&mut self, message: Message, place: &Place) -> Result<Delivered, DurableError> {
        self.delivered += 1;
        self.is_all(place.consumer_sequence)?;
        Ok(Delivered {
            sequence: place.stream_sequence,
            subject: message.subject,
            headers: message.headers,
            body: message.body,
            time: place.nanoseconds / 1_000_000,
            pending: place.pending,
            intake: self.intake.clone(),
            reply: message.reply.unwrap_or_default(),
        })
    }

    /// Checks that everything came that the consumer has sent: its leader may die with what is still on its way
    /// through the cluster, and the next leader goes on behind it.
    fn is_all(&self, sent: u64) -> Result<(), DurableError> {
        if sent == self.delivered {
            return Ok(());
        }
        Err(DurableError::Server("a message did not come".to_owned()))
    }

    /// Takes in what the server says of a request (NATS ADR-37).
    fn take_in(&mut self, status: &Status, headers: &Headers) -> Result<(), DurableError> {
        let refused = || DurableError::Server(format!("{} {}", status.code, status.text));
        match (status.code, status.text.as_str()) {
            (100, _) => {
                if let Some(sent) = headers.number("Nats-Last-Consumer") {
                    self.is_all(sent)?;
                }
            }
            (409, "Consumer Deleted") => return Err(DurableError::Lost),
            (409, "Consumer is push based") => return Err(refused()),
            (409, text) if text.starts_with("Exceeded") => return Err(refused()),
            (404 | 408 | 409, _) => {
                // The request has ended, with so many messages that will not come.
                let left = headers.number("Nats-Pending-Messages").unwrap_or(BATCH);
                self.asked = self.asked.saturating_sub(left);
                self.requests.pop_front();
                self.is_oversized |= status.text == TOO_LARGE && left == BATCH;
            }
            (503, _) => return Err(DurableError::Away),
            _ => return Err(refused()),
        }
        Ok(())
    }
}

impl Delivered {
    /// Acknowledges the message; a lost acknowledgement means a redelivery to the next owner.
    pub async fn ack(&self) -> Result<(), DurableError> {
        self.intake
            .publish(&self.reply, None, &Headers::new(), b"+ACK")
            .await
            .map_err(|_| DurableError::Away)
    }
}

impl Place {
    /// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>`, or
    /// the longer form, with domain and account before the stream and with anything at its end.
    fn read(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.len() {
            7 => &tokens[3..7],
            9.. => &tokens[5..9],
            _ => return None,
        };
        let number = |index: usize| numbers[index].parse::<u64>().ok();
        Some(Self {
            stream_sequence: number(0)?,
            consumer_sequence: number(1)?,
            nanoseconds: number(2)?,
            pending: number(3)?,
        })
    }
}

#[cfg(test)]
mod tests;
