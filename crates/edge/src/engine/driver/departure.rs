//! A session that goes to the edge that has its client's WebSocket.
//!
//! It is held and described; then either it stays, or that edge says that the session's records are its own.

use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::engineio::RequestError;
use carillon_protocol::message::Relay;
use carillon_protocol::session::Transport;
use carillon_protocol::websocket::close;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{Answer, Answered};
use super::Driver;
use crate::conversation::Farewell;
use crate::metrics;

/// How long a session is held for another edge; after that it goes on here.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a session that shall be held may have something for its client: events that come without a pause leave
/// moments in which nothing waits.
const MOMENT: Duration = Duration::from_millis(500);

/// A session that shall be held for another edge.
pub(super) struct Wanted {
    answer: oneshot::Sender<Answered>,
    pub(super) until: Instant,
}

/// A session that is held for another edge.
pub(super) struct Frozen {
    /// How it goes on there.
    handover: Bytes,
    pub(super) until: Instant,
}

impl Driver {
    /// Holds the session as soon as nothing is under way, and describes it; the same again when it is asked again.
    pub(super) fn freeze(&mut self, relay: Relay, answer: oneshot::Sender<Answered>) {
        if !self.is_relayed_by(relay) {
            let _ = answer.send(Err(RequestError::BadRequest));
            return;
        }
        self.wanted = Some(Wanted {
            answer,
            until: Instant::now() + MOMENT,
        });
    }

    /// Holds the session if that is wanted and can be done now.
    pub(super) fn freeze_if_wanted(&mut self) {
        let Some(wanted) = self.wanted.take() else { return };
        if self.frozen.is_none() {
            self.frozen = self.hold();
        }
        if let Some(frozen) = &self.frozen {
            let body = frozen.handover.clone();
            let _ = wanted.answer.send(Ok(Answer { body, last: false }));
        } else if Instant::now() < wanted.until {
            self.wanted = Some(wanted);
        } else {
            let _ = wanted.answer.send(Err(RequestError::BadRequest));
        }
    }

    pub(super) fn is_relayed_by(&self, relay: Relay) -> bool {
        self.relay.as_ref().is_some_and(|(current, _)| *current == relay)
    }

    fn hold(&mut self) -> Option<Frozen> {
        let waits = |driver: &mut Self| {
            driver.answer_with_what_waits();
            driver.engine.client.with_outbox(|outbox| outbox.is_waiting())
        };
        if self.hub.is_draining() || self.hub.lease.is_stale() || waits(self) {
            return None;
        }
        let conversation = &self.engine.conversation;
        let handover = conversation.freeze()?;
        let handover = Bytes::from(serde_json::to_vec(&handover).expect("a handover is JSON"));
        // What was queued before the hold must be on its way to the client before anything of the other edge is.
        if waits(self) || !self.hub.fits(&handover) {
            self.engine.conversation.thaw();
            return None;
        }
        let until = Instant::now() + PATIENCE;
        Some(Frozen { handover, until })
    }

    /// Goes on with a session that was held.
    pub(super) fn thaw(&mut self, relay: Option<Relay>) {
        if relay.is_some_and(|relay| !self.is_relayed_by(relay)) {
            return;
        }
        self.wanted = None;
        if self.frozen.take().is_some() {
            self.engine.conversation.thaw();
        }
    }

    /// Ends what is left of the session here.
    pub(super) async fn depart(&mut self, answer: oneshot::Sender<Answered>) {
        let client = &self.engine.client;
        let signals = self.engine.conversation.depart().await;
        self.hub.engines.remove(self.engine.id);
        // What a session did that had gone on here in the meantime, its new owner does again.
        let farewell = match self.frozen.take() {
            Some(_) => Farewell::new(
                &self.encode(&client.with_outbox(|outbox| outbox.take(usize::MAX))),
                signals,
            ),
            None => Farewell::default(),
        };
        let body = serde_json::to_vec(&farewell).expect("a farewell is JSON").into();
        let _ = answer.send(Ok(Answer { body, last: true }));
        metrics::closed(Transport::Websocket, close::NORMAL);
    }
}
