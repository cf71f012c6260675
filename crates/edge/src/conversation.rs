//! Socket.IO over one transport: its packets, its namespaces, its acknowledgements.
//!
//! A conversation knows nothing of sockets: WebSocket and long-polling feed it messages, and it answers through
//! the client's queue.

mod connect;
mod departure;
mod handshake;

pub(crate) use departure::{Farewell, Handover};
use handshake::Handshake;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use carillon_protocol::binary;
use carillon_protocol::engineio;
use carillon_protocol::event::Payload;
use carillon_protocol::rawjson::Arguments;
use carillon_protocol::socketio::{Body, Decoder, Limits, MAX_SENT_ATTACHMENTS, Packet, encode};
use carillon_protocol::websocket::Opcode;
use carillon_service::settings::Overflow;
use parking_lot::Mutex;

use crate::accept::Places;
use crate::actions::{Answer, close_if_abuse, excess_code};
use crate::admission::Shown;
use crate::client::{Client, Closing};
use crate::frame::Chunk;
use crate::hub::Hub;
use crate::metrics;
use crate::rules::{Refusal, SessionLimits};
use crate::session::Session;

/// Attachments of one packet from a client; an event with more is refused.
const MAX_ATTACHMENTS: usize = 64;

/// One client that speaks Socket.IO.
pub(crate) struct Conversation {
    pub(crate) hub: Arc<Hub>,
    pub(crate) client: Arc<Client>,
    shown: Shown,
    places: Places,
    decoder: Mutex<Decoder>,
    namespaces: Mutex<HashMap<String, Slot>>,
    requests: Mutex<connect::Requests>,
    /// How often the client may still do what in namespaces that it has left: they are the connection's limits.
    limits: Mutex<Vec<(String, Box<SessionLimits>)>>,
    /// Acknowledgements that backends owe the client.
    owed: AtomicUsize,
}

/// Where the client stands in a namespace.
///
/// As long as a task is on its way in, the slot stays and only that task takes it away: there is one task a slot.
enum Slot {
    Connecting,
    /// The client has left before that task was in, and may have asked to enter again since then.
    Leaving(Option<Box<Option<Handshake>>>),
    Open(Arc<Session>),
}

impl Conversation {
    pub(crate) fn new(hub: Arc<Hub>, client: Arc<Client>, shown: Shown, places: Places) -> Arc<Self> {
        let max_bytes = usize::try_from(hub.config.max_payload).unwrap_or(usize::MAX);
        let decoder = Decoder::new(Limits {
            max_attachments: MAX_ATTACHMENTS,
            max_bytes,
        });
        Arc::new(Self {
            hub,
            client,
            shown,
            places,
            decoder: Mutex::new(decoder),
            namespaces: Mutex::default(),
            requests: Mutex::default(),
            limits: Mutex::default(),
            owed: AtomicUsize::new(0),
        })
    }

    /// Takes the text of an Engine.IO message.
    pub(crate) async fn text(self: &Arc<Self>, text: &str) -> Result<(), Closing> {
        let packet = self
            .decoder
            .lock()
            .text(text)
            .map_err(bad_packet)?
            .map(Packet::into_owned);
        match packet {
            Some(packet) => self.packet(packet).await,
            None => Ok(()),
        }
    }

    /// Takes a binary Engine.IO message: an attachment.
    pub(crate) async fn binary(self: &Arc<Self>, bytes: Bytes) -> Result<(), Closing> {
        let packet = self.decoder.lock().binary(bytes).map_err(bad_packet)?;
        match packet {
            Some(packet) => self.packet(packet).await,
            None => Ok(()),
        }
    }

    /// Returns whether the client has entered a namespace, or is about to.
    pub(crate) fn has_entered(&self) -> bool {
        !self.namespaces.lock().is_empty()
    }

    /// Returns the open sessions.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let namespaces = self.namespaces.lock();
        namespaces
            .values()
            .filter_map(Slot::session)
            .filter(|session| !session.has_ended())
            .cloned()
            .collect()
    }

    /// Ends every session: the transport is gone.
    pub(crate) async fn end(self: &Arc<Self>, reason: &str) {
        // Whoever is still on the way into a namespace finds no place there any more.
        self.client.close(Closing {
            code: 1000,
            reason: reason.to_owned(),
            flush: false,
        });
        let slots = std::mem::take(&mut *self.namespaces.lock());
        for session in slots.values().filter_map(Slot::session) {
            self.hub.close_session(session, reason, true).await;
        }
    }

    async fn packet(self: &Arc<Self>, packet: Packet<'static>) -> Result<(), Closing> {
        let namespace = packet.namespace.into_owned();
        match packet.body {
            Body::Connect { auth } => self.connect(namespace, auth.map(|auth| auth.into_owned())),
            Body::Disconnect => {
                if let Some(session) = self.leave(namespace) {
                    Box::pin(self.hub.close_session(&session, connect::LEFT, false)).await;
                }
                Ok(())
            }
            Body::Event { id, name, arguments } => match self.session(&namespace) {
                Some(session) => Box::pin(self.event(&session, id, &name, &arguments)).await,
                // An event that crossed a disconnect on its way.
                None => Ok(()),
            },
            Body::Ack { id, arguments } => {
                let is_awaited = self.client.asks.answer(id, arguments.to_payload());
                match self.session(&namespace).filter(|_| !is_awaited) {
                    Some(session) => session.admit().or_else(|refusal| close_if_abuse(&refusal)),
                    None => Ok(()),
                }
            }
            Body::Excess { id, name, limit } => match self.session(&namespace) {
                Some(session) => {
                    let refusal = self.hub.refuse_excess(&session, limit);
                    self.conclude(&session, id, &name, Err(refusal))
                }
                None => Ok(()),
            },
            // Whoever asked hears nothing, as from a client that does not answer.
            Body::AckExcess { limit } => {
                metrics::error(excess_code(limit));
                Ok(())
            }
        }
    }

    /// Takes the client out of a namespace; returns the session that is to be closed.
    fn leave(&self, namespace: String) -> Option<Arc<Session>> {
        let mut namespaces = self.namespaces.lock();
        match namespaces.remove(&namespace)? {
            Slot::Open(session) => {
                if let Some(limits) = session.take_limits() {
                    self.limits.lock().push((namespace, limits));
                }
                Some(session)
            }
            Slot::Connecting | Slot::Leaving(_) => {
                namespaces.insert(namespace, Slot::Leaving(None));
                None
            }
        }
    }

    /// Takes the limits of a namespace that the client has left before.
    fn take_limits(&self, namespace: &str) -> Option<Box<SessionLimits>> {
        let mut limits = self.limits.lock();
        let place = limits.iter().position(|(name, _)| name == namespace)?;
        Some(limits.swap_remove(place).1)
    }

    fn session(&self, namespace: &str) -> Option<Arc<Session>> {
        let session = self
            .namespaces
            .lock()
            .get(namespace)
            .and_then(Slot::session)
            .cloned()?;
        (!session.has_ended()).then_some(session)
    }

    async fn event(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<u64>,
        name: &str,
        arguments: &Arguments<'_>,
    ) -> Result<(), Closing> {
        let payload = arguments.to_payload();
        let outcome = if name == "auth:refresh" {
            let answered = self.hub.refresh(session, &payload).await;
            answered.map(|payload| Answer::Reply { payload, event: None })
        } else {
            self.hub.on_event(session, name, &payload, id.is_some()).await
        };
        match outcome {
            Ok(Answer::Backend { event, payload }) => {
                self.ask_backend(session, id, name, &event, &payload).await;
                Ok(())
            }
            outcome => self.conclude(session, id, name, outcome),
        }
    }

    /// Hands an event to the backend. That may take seconds to answer; what the client sends next does not wait for it.
    async fn ask_backend(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<u64>,
        name: &str,
        event: &str,
        payload: &Payload,
    ) {
        self.owed.fetch_add(1, Ordering::SeqCst);
        let answer = match self.hub.forward_asking(session, event, payload).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.finish(session, id, name, Err(refusal));
                self.owed.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        };
        let (conversation, session, name) = (Arc::clone(self), Arc::clone(session), name.to_owned());
        tokio::spawn(async move {
            let answer = answer.await.map(|payload| Answer::Reply { payload, event: None });
            conversation.finish(&session, id, &name, answer);
            conversation.owed.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Answers an event, and closes a client that goes much too far.
    fn conclude(
        &self,
        session: &Arc<Session>,
        id: Option<u64>,
        name: &str,
        outcome: Result<Answer, Refusal>,
    ) -> Result<(), Closing> {
        let counted = match &outcome {
            Err(refusal) => close_if_abuse(refusal),
            Ok(_) => Ok(()),
        };
        self.finish(session, id, name, outcome);
        counted
    }

    /// Sends the acknowledgement, the event in its place, or the error.
    fn finish(&self, session: &Arc<Session>, id: Option<u64>, name: &str, answer: Result<Answer, Refusal>) {
        if session.has_ended() {
            return;
        }
        match (answer, id) {
            (Ok(Answer::Reply { payload, .. }), Some(id)) => self.acknowledge(session, id, &payload),
            (
                Ok(Answer::Reply {
                    payload,
                    event: Some(event),
                }),
                None,
            ) => {
                session.emit(crate::rules::Emit { event, payload });
            }
            (Ok(Answer::Empty | Answer::Backend { .. }), Some(id)) => {
                self.acknowledge(session, id, &Payload::NONE)
            }
            (Ok(_), None) => {}
            (Err(refusal), id) => {
                session.emit_error(&refusal, name);
                if let Some(id) = id {
                    let error = serde_json::json!({ "error": { "code": &*refusal.code, "message": &*refusal.message } });
                    self.acknowledge(session, id, &Payload::One(error.to_string().into()));
                }
            }
        }
    }

    fn acknowledge(&self, session: &Session, id: u64, payload: &Payload) {
        let arguments = payload.arguments();
        let extracted = binary::extract(arguments, MAX_SENT_ATTACHMENTS);
        let (arguments, attachments) = match &extracted {
            Some(extracted) => (&*extracted.json, &extracted.attachments[..]),
            None => (arguments, &[][..]),
        };
        let mut text = vec![engineio::MESSAGE];
        encode::ack(
            &mut text,
            session.namespace.name.as_str(),
            id,
            arguments,
            attachments.len(),
        );
        let chunks: Vec<Chunk> = attachments
            .iter()
            .map(|bytes| Chunk::new(Opcode::Binary, bytes))
            .collect();
        self.client
            .send_event(Chunk::text(&text), &chunks, Overflow::CloseAndRecover);
    }
}

impl Slot {
    fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Connecting | Self::Leaving(_) => None,
            Self::Open(session) => Some(session),
        }
    }

    fn has_ended(&self) -> bool {
        self.session().is_some_and(|session| session.has_ended())
    }
}

fn bad_packet(error: impl std::fmt::Display) -> Closing {
    metrics::error("bad_frame");
    Closing {
        code: 1002,
        reason: format!("bad_packet: {error}"),
        flush: true,
    }
}
