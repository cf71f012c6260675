//! Bodies on `rt.up`: what backends read of a client's event, and of its connection.

use std::fmt::Write as _;

use bytes::Bytes;
use carillon_bus::history::now;
use carillon_protocol::event::Payload;
use carillon_protocol::names::Room;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::namespace::Namespace;
use crate::session::Session;
use crate::user::User;

/// Largest handshake data that backends are shown, as JSON.
const MAX_AUTH: usize = 256 * 1024;

/// A body; what an event does not have is left out.
#[derive(Serialize)]
pub(crate) struct Up<'a> {
    event: &'a str,
    user: Who<'a>,
    sid: &'a str,
    namespace: &'a str,
    /// Milliseconds since 1970.
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<About<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
    /// The handshake data, without a valid token.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<&'a RawValue>,
    /// What was too large to be shown.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    omitted: &'static [&'static str],
}

/// The data of an event about a connection.
#[derive(Default, Serialize)]
pub(crate) struct About<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<&'a Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
}

#[derive(Serialize)]
struct Who<'a> {
    id: Option<&'a str>,
    claims: &'a Map<String, Value>,
}

impl<'a> Up<'a> {
    /// The body of an event of a user's connection.
    pub(crate) fn new(event: &'a str, user: &'a User, sid: &'a str, namespace: &'a Namespace) -> Self {
        Self {
            event,
            user: Who {
                id: user.id().map(|id| &**id),
                claims: &user.who.claims,
            },
            sid,
            namespace: namespace.name.as_str(),
            ts: now(),
            data: None,
            recovered: None,
            term: None,
            auth: None,
            omitted: &[],
        }
    }

    /// The body of an event of a session's client.
    pub(crate) fn of(session: &'a Session, user: &'a User, event: &'a str) -> Self {
        Self::new(event, user, session.sid.as_str(), &session.namespace)
    }

    /// Adds the handshake data, or says that it is too large.
    pub(crate) fn show(&mut self, auth: Option<&'a RawValue>) {
        let auth = auth.unwrap_or(RawValue::NULL);
        let is_shown = auth.get().len() <= MAX_AUTH;
        self.auth = Some(if is_shown { auth } else { RawValue::NULL });
        self.omitted = if is_shown { &[] } else { &["auth"] };
    }

    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("a body is JSON")
    }

    /// Returns the body with the arguments of a client's event, which stay the text that the client sent.
    pub(crate) fn json_with(&self, payload: &Payload) -> Bytes {
        let member = match payload {
            Payload::One(_) => "data",
            Payload::Many(_) => "args",
        };
        let mut json = self.json();
        json.pop();
        write!(json, ",\"{member}\":{}}}", payload.text()).expect("a string takes any text");
        json.into()
    }
}

/// Takes the handshake data out of a body; `None` where it has none.
pub(crate) fn without_auth(body: &[u8]) -> Option<Bytes> {
    let mut body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let auth = body.get_mut("auth").filter(|auth| !auth.is_null())?;
    *auth = Value::Null;
    body.insert("omitted".to_owned(), Value::from(["auth"].as_slice()));
    Some(Value::Object(body).to_string().into())
}
