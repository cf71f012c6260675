//! Asking the backend: may this client connect, may it join, and what is the answer to its event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::RequestError;
use carillon_bus::history::now;
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::rawjson;
use carillon_protocol::session::Transport;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::entrance::Refused;
use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::rules::{Context, JoinDecision, Refusal};
use crate::session::Session;
use crate::up::{About, Up};
use crate::user::User;

/// Milliseconds that the backend has, so that it need not work on what nobody waits for.
const DEADLINE: &str = "Carillon-Timeout-Ms";

/// What the backend says of a client that connects.
#[derive(Default)]
pub(crate) struct Admitted {
    pub(crate) rooms: Vec<Room>,
    pub(crate) greetings: Vec<Arc<Broadcast>>,
    pub(crate) asked: bool,
}

#[derive(Deserialize)]
struct Admission {
    #[serde(default)]
    allow: bool,
    rooms: Option<Vec<Room>>,
    emit: Option<Vec<Greeting>>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Greeting {
    event: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    args: Option<Box<RawValue>>,
}

/// `null` is data, not its absence.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Hub {
    /// Asks the backend whether a client may connect, where the namespace says so.
    pub(crate) async fn ask_admission(
        &self,
        namespace: &Namespace,
        user: &User,
        sid: Sid,
        auth: Option<&RawValue>,
        transport: Transport,
    ) -> Result<Admitted, Refused> {
        let settings = namespace.settings.load();
        if !settings.connect.ask {
            return Ok(Admitted::default());
        }
        let mut body = Up::new("$connect", user, sid.as_str(), namespace);
        body.data = Some(About {
            transport: Some(transport.as_str()),
            recovered: Some(false),
            term: Some(1),
            ..About::default()
        });
        (body.recovered, body.term) = (Some(false), Some(1));
        body.show(auth);
        let body = body.json().into();
        let subject = self.bus.subjects().up(&namespace.name, "$connect");
        let reply = self.ask(&subject, body, settings.connect.timeout).await;
        let refused = |code: Option<String>, message: Option<String>| Refused::Client {
            code: code
                .or_else(|| settings.connect.code.clone())
                .unwrap_or_else(|| "forbidden".to_owned()),
            message: message
                .or_else(|| settings.connect.message.clone())
                .unwrap_or_else(|| "Forbidden".to_owned()),
        };
        // A backend that says nothing says nothing about the client, which would not come back after a refusal.
        let reply = reply.map_err(|_| Refused::Unavailable)?;
        let Ok(admission) = serde_json::from_slice::<Admission>(&reply.body) else {
            return Err(refused(None, None));
        };
        if !admission.allow {
            return Err(refused(admission.code, admission.message));
        }
        let greetings = admission
            .emit
            .unwrap_or_default()
            .into_iter()
            .filter_map(|greeting| greeting.into_broadcast(sid))
            .collect();
        Ok(Admitted {
            rooms: admission
                .rooms
                .unwrap_or_default()
                .into_iter()
                .filter(|room| !room.is_reserved())
                .collect(),
            greetings,
            asked: true,
        })
    }

    /// Decides whether a connection may join a room: by the rules, and by the backend where they say so.
    pub(crate) async fn may_join(&self, session: &Arc<Session>, room: &Room) -> Result<(), Refusal> {
        let decision = session
            .in_context(|context: &Context<'_>| session.namespace.rules.load().may_join(room, context));
        match decision {
            JoinDecision::Allow => Ok(()),
            JoinDecision::Refuse(refusal) => Err(refusal),
            JoinDecision::Ask(refusal) => {
                if self.authorized(session, room).await {
                    Ok(())
                } else {
                    Err(refusal)
                }
            }
        }
    }

    /// Asks `rt.authz`; anything but a plain yes in time is no.
    async fn authorized(&self, session: &Arc<Session>, room: &Room) -> bool {
        let namespace = &session.namespace;
        let settings = namespace.settings.load();
        let user = session.user.load();
        let body = json!({
            "room": room, "user": { "id": user.id(), "claims": &*user.who.claims }, "sid": session.sid.as_str(),
            "namespace": namespace.name.as_str(),
        });
        let subject = self.bus.subjects().authz(&namespace.name);
        let span = tracing::info_span!("authorize", %room, namespace = %namespace.name, sid = %session.sid);
        let reply = self
            .ask(&subject, body.to_string().into(), settings.authz_timeout)
            .instrument(span)
            .await;
        let Ok(reply) = reply else { return false };
        serde_json::from_slice::<Value>(&reply.body).is_ok_and(|reply| reply["allow"] == Value::Bool(true))
    }

    /// Hands an event to the backend.
    pub(crate) async fn forward(
        &self,
        session: &Arc<Session>,
        event: &str,
        payload: &Payload,
    ) -> Result<(), Refusal> {
        let (subject, body, span) = self.up(session, event, payload);
        let headers = span.in_scope(trace_headers);
        let sent = self.bus.publish(&subject, &headers, body).instrument(span).await;
        sent.map_err(|_| unreachable())
    }

    /// Hands an event to the backend now; the reply is awaited by the returned future.
    pub(crate) async fn forward_asking(
        &self,
        session: &Arc<Session>,
        event: &str,
        payload: &Payload,
    ) -> Result<impl Future<Output = Result<Payload, Refusal>> + Send + use<>, Refusal> {
        let (subject, body, span) = self.up(session, event, payload);
        let timeout = session.namespace.settings.load().ack_timeout;
        let asked = self.ask_later(&subject, body, timeout);
        let asked = asked.instrument(span.clone()).await;
        let reply = asked.map_err(unanswered)?.instrument(span);
        Ok(async move { read_reply(&reply.await.map_err(unanswered)?) })
    }

    fn up(&self, session: &Session, event: &str, payload: &Payload) -> (String, Bytes, tracing::Span) {
        let namespace = &session.namespace;
        let subject = self.bus.subjects().up(&namespace.name, event);
        let body = Up::of(session, &session.user.load(), event).json_with(payload);
        let span =
            tracing::info_span!("client event", event, namespace = %namespace.name, sid = %session.sid);
        (subject, body, span)
    }

    async fn ask(
        &self,
        subject: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<carillon_bus::Message, RequestError> {
        self.ask_later(subject, body, timeout).await?.await
    }

    async fn ask_later(
        &self,
        subject: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<impl Future<Output = Result<carillon_bus::Message, RequestError>> + Send + use<>, RequestError>
    {
        let headers = trace_headers().with(DEADLINE, timeout.as_millis().to_string());
        self.bus.request_later(subject, &headers, body, timeout).await
    }
}

fn unanswered(error: RequestError) -> Refusal {
    match error {
        RequestError::NoResponders => refusal("no_handler", "nobody handles this event"),
        RequestError::Timeout => refusal("timeout", "the backend did not answer in time"),
        RequestError::Away => unreachable(),
    }
}

fn unreachable() -> Refusal {
    refusal("unavailable", "the backend cannot be reached")
}

fn trace_headers() -> Headers {
    let mut headers = Headers::new();
    carillon_service::telemetry::inject(&carillon_service::telemetry::current(), |name, value| {
        headers.push(name, value)
    });
    headers
}

pub(crate) fn refusal(code: &str, message: &str) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        abuse: false,
    }
}

/// The body of a reply is the acknowledgement's one argument, or the array of all with `Carillon-Args`.
fn read_reply(reply: &carillon_bus::Message) -> Result<Payload, Refusal> {
    let bad = || refusal("bad_reply", "the backend's answer is not JSON");
    if reply.body.is_empty() {
        return Ok(Payload::NONE);
    }
    let raw: &RawValue = serde_json::from_slice(&reply.body).map_err(|_| bad())?;
    rawjson::check_depth(raw.get()).map_err(|_| bad())?;
    if reply.headers.get(name::ARGS).is_some() {
        return Payload::from_array(raw).map_err(|_| bad());
    }
    Ok(Payload::One(Bytes::copy_from_slice(raw.get().as_bytes())))
}

impl Greeting {
    fn into_broadcast(self, sid: Sid) -> Option<Arc<Broadcast>> {
        let payload = match (self.data, self.args) {
            (Some(data), _) => Payload::One(Bytes::copy_from_slice(data.get().as_bytes())),
            (None, Some(args)) => Payload::from_array(&args).ok()?,
            (None, None) => Payload::NONE,
        };
        carillon_protocol::names::check_event(&self.event).ok()?;
        // The stock client closes its transport at such an event.
        if carillon_protocol::socketio::is_reserved(&self.event) {
            return None;
        }
        let event = Event {
            name: self.event,
            payload,
            id: None,
            except: None,
            time: now(),
        };
        Some(Arc::new(Broadcast::new(event, Room::of_session(sid), None, None)))
    }
}
