//! Polls and their answers: what waits, the same again, or that the request means nothing now.

use bytes::Bytes;
use carillon_protocol::engineio::{RequestError, Writer, fixed};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::message::Relay;
use carillon_protocol::websocket::close;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{Answer, Answered};
use super::{Driver, MAX_ANSWER, Poll};
use crate::client::Closing;
use crate::frame::Chunk;
use crate::metrics;

/// Requests that wait for the same answer: a poll and its repetitions.
const MAX_WAITERS: usize = 4;
/// Earlier polls that are recognised when a proxy repeats one of them late.
const REMEMBERED: usize = 4;

impl Driver {
    pub(super) fn take_poll(
        &mut self,
        t: Option<String>,
        relay: Option<Relay>,
        front: Option<EdgeId>,
        answer: oneshot::Sender<Answered>,
    ) -> Result<(), Closing> {
        if let Some((answered, last)) = &self.last
            && t.is_some()
            && *answered == t
        {
            let _ = answer.send(Ok(last.clone()));
            self.polled_at(front);
            return Ok(());
        }
        if self.relay.as_ref().map(|(relay, _)| *relay) != relay {
            // The client has changed to a WebSocket; what polls here is late, or not the client.
            let _ = answer.send(Err(RequestError::BadRequest));
            return Ok(());
        }
        if let Some(t) = &t
            && self.earlier.contains(t)
        {
            let _ = answer.send(Ok(Answer {
                body: Bytes::from_static(fixed::NOOP.as_bytes()),
                last: false,
            }));
            return Ok(());
        }
        if let Some(open) = &mut self.open {
            open.waiters.retain(|waiter| !waiter.is_closed());
            if open.t == t && t.is_some() && open.waiters.len() < MAX_WAITERS {
                open.waiters.push(answer);
                self.polled_at(front);
                return Ok(());
            }
            if !open.waiters.is_empty() {
                let _ = answer.send(Err(RequestError::BadRequest));
                metrics::error("bad_frame");
                let reason = "bad_request: two polls at once".to_owned();
                return Err(Closing {
                    code: close::PROTOCOL_ERROR,
                    reason,
                    flush: false,
                });
            }
        }
        // That the client polls again shows that it has the last answer.
        if let Some((Some(t), _)) = self.last.take() {
            self.earlier.truncate(REMEMBERED - 1);
            self.earlier.push_front(t);
        }
        self.polled_at(front);
        self.open = Some(Poll {
            t,
            since: Instant::now(),
            waiters: vec![answer],
        });
        Ok(())
    }

    /// Watches the edge that has the client's poll: what it was given is lost with it.
    fn polled_at(&mut self, front: Option<EdgeId>) {
        self.orphan = None;
        // A relay's edge is watched anyway.
        let front = front.filter(|_| self.relay.is_none());
        if self.front.as_ref().map(|(edge, _)| *edge) != front {
            self.front = front.map(|edge| (edge, self.hub.neighbour(edge)));
        }
    }

    pub(super) fn answer_with_what_waits(&mut self) {
        if !self.engine.client.with_outbox(|outbox| outbox.is_waiting()) || !self.has_open_poll() {
            return;
        }
        let chunks = self.engine.client.with_outbox(|outbox| outbox.take(MAX_ANSWER));
        let body = self.encode(&chunks);
        self.answer(Ok(Answer { body, last: false }));
    }

    /// Returns whether somebody waits for an answer.
    pub(super) fn has_open_poll(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.waiters.retain(|waiter| !waiter.is_closed());
            if open.waiters.is_empty() {
                self.open = None;
                self.answered = Instant::now();
            }
        }
        self.open.is_some()
    }

    pub(super) fn answer(&mut self, answered: Answered) {
        let Some(open) = self.open.take() else { return };
        for waiter in open.waiters {
            let _ = waiter.send(answered.clone());
        }
        self.answered = Instant::now();
        if let Ok(answer) = answered {
            self.last = Some((open.t, answer));
        }
    }

    /// Answers an open poll of a relay with nothing.
    pub(super) fn answer_with_nothing(&mut self) {
        self.answer(Ok(Answer {
            body: Bytes::new(),
            last: false,
        }));
    }

    /// Answers an open poll with a packet that means nothing.
    pub(super) fn release_poll(&mut self) {
        self.answer(Ok(Answer {
            body: Bytes::from_static(fixed::NOOP.as_bytes()),
            last: false,
        }));
    }

    /// A relay writes WebSocket frames as they are; a poll takes what is inside.
    pub(super) fn encode(&self, chunks: &[Chunk]) -> Bytes {
        if self.relay.is_some() {
            return chunks
                .iter()
                .map(|chunk| &chunk.bytes[..])
                .collect::<Vec<_>>()
                .concat()
                .into();
        }
        let mut payload = Writer::default();
        for chunk in chunks {
            if chunk.binary {
                payload.binary(&chunk.payload());
            } else {
                payload.text(&chunk.payload());
            }
        }
        payload.finish().into()
    }
}
