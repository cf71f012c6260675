//! Requests between the edge that has a client's request and the edge that owns the client's session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Message, RequestError as BusError};
use carillon_protocol::engineio::RequestError;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::{EdgeId, EngineId};
use carillon_protocol::message::{self, Engaged, Relay};

use super::{Answer, Answered};
use crate::conversation::{Farewell, Handover};
use crate::hub::Hub;

/// When the owner is watched that has not answered yet.
const QUICK: Duration = Duration::from_millis(500);
/// Attempts at an owner that does not seem to be there, and the pause between them.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// Room for the head of a message.
const HEAD: usize = 1024;
/// How long a request may wait for NATS to come back.
const AWAY: Duration = Duration::from_secs(10);
/// How long an owner may take for what it does at once, and for the packets of a post.
const SOON: Duration = Duration::from_secs(5);
const POST: Duration = Duration::from_secs(45);
/// How long the client of a session that has moved waits for the last of its former owner.
const LAST: Duration = Duration::from_secs(1);

impl Hub {
    /// Polls a session, wherever it is.
    pub(crate) async fn poll(
        self: &Arc<Self>,
        sid: EngineId,
        t: Option<String>,
        relay: Option<Relay>,
    ) -> Answered {
        if sid.edge() == self.id {
            return self.engines.get(sid)?.poll(t, relay, None).await;
        }
        let request = message::Engine::Poll {
            sid,
            t: t.unwrap_or_else(any),
            relay,
            front: Some(self.id),
        };
        let time = self.config.ping_interval + self.config.ping_timeout + SOON;
        self.ask_owner(sid, &request, Bytes::new(), time).await
    }

    /// Posts packets to a session, wherever it is.
    pub(crate) async fn post(
        self: &Arc<Self>,
        sid: EngineId,
        t: Option<String>,
        relay: Option<Relay>,
        body: Bytes,
    ) -> Result<(), RequestError> {
        if sid.edge() == self.id {
            return self.engines.get(sid)?.post(t, relay, body).await;
        }
        let request = message::Engine::Post {
            sid,
            t: t.unwrap_or_else(any),
            relay,
        };
        self.ask_owner(sid, &request, body, POST).await.map(drop)
    }

    /// Prepares a session of another edge for its WebSocket.
    pub(crate) async fn probe_owner(self: &Arc<Self>, sid: EngineId) -> Result<(), RequestError> {
        self.ask_owner(sid, &message::Engine::Probe { sid }, Bytes::new(), SOON)
            .await
            .map(drop)
    }

    /// Tells another edge that its session's client is here now.
    pub(crate) async fn change_owner_to(
        self: &Arc<Self>,
        sid: EngineId,
        relay: Relay,
    ) -> Result<(), RequestError> {
        self.ask_owner(sid, &message::Engine::Upgrade { sid, relay }, Bytes::new(), SOON)
            .await
            .map(drop)
    }

    /// Asks another edge to hold its session, and how it goes on here.
    pub(crate) async fn freeze_owner(
        self: &Arc<Self>,
        sid: EngineId,
        relay: Relay,
    ) -> Result<Handover, RequestError> {
        let request = message::Engine::Freeze { sid, relay };
        let answer = self.ask_owner(sid, &request, Bytes::new(), SOON).await?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            tracing::warn!(%error, "session of another edge cannot be read");
            RequestError::BadRequest
        })
    }

    /// Tells another edge that its session stays there.
    pub(crate) async fn thaw_owner(self: &Arc<Self>, sid: EngineId, relay: Relay) {
        let request = message::Engine::Thaw { sid, relay };
        // An owner that does not hear it goes on by itself after a while.
        let _ = self.ask_owner(sid, &request, Bytes::new(), SOON).await;
    }

    /// Tells another edge that its session is here now; returns the last that it has for the client. An owner that
    /// is gone has nothing that counts.
    pub(crate) async fn relieve_owner(self: &Arc<Self>, sid: EngineId, relay: Relay) -> Farewell {
        let request = message::Engine::Leave { sid, relay };
        let answered = self.ask_owner(sid, &request, Bytes::new(), SOON);
        let Ok(Ok(answer)) = tokio::time::timeout(LAST, answered).await else {
            return Farewell::default();
        };
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Asks the owner of a session. All requests can be repeated: the owner knows them by their `t`.
    async fn ask_owner(
        self: &Arc<Self>,
        sid: EngineId,
        request: &message::Engine,
        body: Bytes,
        time: Duration,
    ) -> Answered {
        if !self.fits(&body) {
            return Err(RequestError::BadRequest);
        }
        let mut link = self.bus.link_state();
        let mut missed = 0;
        loop {
            let generation = link.borrow_and_update().generation;
            let reconnected = async {
                let again = link
                    .wait_for(|state| state.connected && state.generation != generation)
                    .await
                    .is_ok();
                if !again {
                    std::future::pending::<()>().await;
                }
            };
            let gone = async {
                tokio::time::sleep(QUICK).await;
                self.neighbour(sid.edge()).gone().await;
            };
            let asked = tokio::select! {
                asked = self.ask_edge(sid.edge(), request, body.clone(), time) => asked,
                () = gone => return Err(RequestError::UnknownSession),
                // The answer may have been lost with the link.
                () = reconnected => continue,
            };
            match asked {
                Ok(message) => return read(&message),
                Err(BusError::NoResponders) if missed + 1 < ATTEMPTS || self.has_just_reconnected() => {
                    missed += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(BusError::Away) if missed + 1 < ATTEMPTS => {
                    missed += 1;
                    let back = link.wait_for(|state| state.connected);
                    if !matches!(tokio::time::timeout(AWAY, back).await, Ok(Ok(_))) {
                        return Err(RequestError::UnknownSession);
                    }
                }
                Err(_) => return Err(RequestError::UnknownSession),
            }
        }
    }

    /// Asks another edge.
    pub(super) async fn ask_edge(
        &self,
        edge: EdgeId,
        request: &message::Engine,
        body: Bytes,
        time: Duration,
    ) -> Result<Message, BusError> {
        let subject = format!("{}.engine", self.bus.subjects().edge(edge));
        let head = serde_json::to_string(request).expect("a request is JSON");
        self.bus
            .request(&subject, &Headers::new().with(name::ENGINE, head), body, time)
            .await
    }

    /// Answers another edge.
    pub(crate) async fn serve_engine(self: Arc<Self>, message: Message) {
        let head = message.headers.get(name::ENGINE).unwrap_or_default();
        let request = match serde_json::from_str::<message::Engine>(head) {
            Ok(request) => request,
            Err(error) => return tracing::warn!(%error, "request of another edge cannot be read"),
        };
        let answered = self.engage(request, message.body).await;
        let Some(reply) = message.reply else { return };
        let (engaged, body) = match answered {
            // The client reconnects and is recovered.
            Ok(answer) if !self.fits(&answer.body) => (Engaged::Unknown, Bytes::new()),
            Ok(answer) if answer.last => (Engaged::Last, answer.body),
            Ok(answer) => (Engaged::Done, answer.body),
            Err(RequestError::UnknownSession) => (Engaged::Unknown, Bytes::new()),
            Err(_) => (Engaged::Bad, Bytes::new()),
        };
        let head = serde_json::to_string(&engaged).expect("a word is JSON");
        if let Err(error) = self
            .bus
            .publish(&reply, &Headers::new().with(name::ENGINE, head), body)
            .await
        {
            tracing::warn!(%error, "answer to another edge was not sent");
        }
    }

    /// Returns whether NATS takes a message with this body.
    pub(super) fn fits(&self, body: &Bytes) -> bool {
        body.len() + HEAD <= self.bus.max_payload()
    }

    async fn engage(&self, request: message::Engine, body: Bytes) -> Answered {
        let nothing = |()| Answer {
            body: Bytes::new(),
            last: false,
        };
        match request {
            message::Engine::Alive => Ok(nothing(())),
            message::Engine::Poll { sid, t, relay, front } => {
                self.engines.get(sid)?.poll(Some(t), relay, front).await
            }
            message::Engine::Post { sid, t, relay } => self
                .engines
                .get(sid)?
                .post(Some(t), relay, body)
                .await
                .map(nothing),
            message::Engine::Probe { sid } => self.engines.get(sid)?.probe().await.map(nothing),
            message::Engine::Upgrade { sid, relay } => {
                self.engines.get(sid)?.change_to(relay).await.map(nothing)
            }
            message::Engine::Freeze { sid, relay } => self.engines.get(sid)?.freeze(relay).await,
            message::Engine::Thaw { sid, relay } => self.engines.get(sid)?.thaw(relay).await.map(nothing),
            message::Engine::Leave { sid, relay } => self.engines.get(sid)?.leave(relay).await,
        }
    }
}

fn read(message: &Message) -> Answered {
    let head = message.headers.get(name::ENGINE).unwrap_or_default();
    match serde_json::from_str(head) {
        Ok(Engaged::Done) => Ok(Answer {
            body: message.body.clone(),
            last: false,
        }),
        Ok(Engaged::Last) => Ok(Answer {
            body: message.body.clone(),
            last: true,
        }),
        Ok(Engaged::Unknown) => Err(RequestError::UnknownSession),
        Ok(Engaged::Bad) | Err(_) => Err(RequestError::BadRequest),
    }
}

/// What tells a request of a client that gives no `t` from any other.
fn any() -> String {
    format!("~{:016x}", rand::random::<u64>())
}
