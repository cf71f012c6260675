//! Packets that a client posts, in their order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use carillon_protocol::engineio::{Limits, Packet, RequestError, decode};
use carillon_protocol::message::Relay;
use carillon_protocol::websocket::close;
use tokio::time::Instant;

use super::{Command, Engine};
use crate::client::Closing;
use crate::metrics;

/// Posts of one client at a time. It sends one after the other; a proxy may repeat one.
const MAX_WAITING: usize = 4;
/// Packets of one post; a client that was away may have many to send.
const MAX_PACKETS: usize = 1 << 16;

/// What was posted last.
#[derive(Default)]
pub(super) struct Posts {
    waiting: AtomicUsize,
    /// When one was taken last.
    taken: parking_lot::Mutex<Option<Instant>>,
    last: tokio::sync::Mutex<Option<String>>,
}

impl Posts {
    /// Returns whether anything is being taken, or was since then.
    pub(super) fn taken_since(&self, then: Instant) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.taken.lock().is_some_and(|taken| taken > then)
    }
}

impl Engine {
    /// Takes a payload; the same one again is taken as said.
    ///
    /// It goes on when its request is broken off: half a payload is not taken.
    pub(crate) async fn post(
        self: &Arc<Self>,
        t: Option<String>,
        relay: Option<Relay>,
        body: Bytes,
    ) -> Result<(), RequestError> {
        self.client.hear();
        let engine = Arc::clone(self);
        let posted = tokio::spawn(async move {
            if engine.posts.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
                engine.posts.waiting.fetch_sub(1, Ordering::Relaxed);
                return Err(engine.bad_request("too many posts at once"));
            }
            let posted = engine.take_post(t, relay, &body).await;
            *engine.posts.taken.lock() = Some(Instant::now());
            engine.posts.waiting.fetch_sub(1, Ordering::Relaxed);
            posted
        });
        posted.await.unwrap_or(Err(RequestError::BadRequest))
    }

    async fn take_post(
        &self,
        t: Option<String>,
        relay: Option<Relay>,
        body: &[u8],
    ) -> Result<(), RequestError> {
        let mut last = self.posts.last.lock().await;
        if t.is_some() && *last == t {
            return Ok(());
        }
        if !self.ask(|answer| Command::Serves { relay, answer }).await? {
            return Err(RequestError::BadRequest);
        }
        let max_bytes = usize::try_from(self.conversation.hub.config.max_payload).unwrap_or(usize::MAX);
        let limits = Limits {
            max_bytes: max_bytes.saturating_mul(2),
            max_packets: MAX_PACKETS,
        };
        let packets = decode(body, limits).map_err(|error| self.bad_request(&error.to_string()))?;
        *last = t;
        for packet in packets {
            if self.client.closing().is_some() {
                return Err(RequestError::UnknownSession);
            }
            let taken = match packet {
                Packet::Message(text) => self.conversation.text(text).await,
                Packet::Binary(bytes) => self.conversation.binary(bytes).await,
                Packet::Pong { .. } => self.tell(Command::Pong).await,
                Packet::Close => {
                    self.client.part();
                    return self
                        .tell(Command::Close)
                        .await
                        .map_err(|_| RequestError::UnknownSession);
                }
                // Leftovers of an upgrade.
                Packet::Noop | Packet::Upgrade if relay.is_some() => Ok(()),
                _ => return Err(self.bad_request("unexpected packet")),
            };
            if let Err(closing) = taken {
                self.fail(closing);
                return Err(RequestError::BadRequest);
            }
        }
        Ok(())
    }

    async fn tell(&self, command: Command) -> Result<(), Closing> {
        let ended = |_| Closing {
            code: close::NORMAL,
            reason: "transport close".to_owned(),
            flush: false,
        };
        self.commands.send(command).await.map_err(ended)
    }

    /// Ends the session: its client does not keep to the protocol.
    pub(super) fn bad_request(&self, problem: &str) -> RequestError {
        metrics::error("bad_frame");
        self.fail(Closing {
            code: close::PROTOCOL_ERROR,
            reason: format!("bad_request: {problem}"),
            flush: true,
        });
        RequestError::BadRequest
    }
}
