//! `[namespaces."/name"]`: what a client may do, and what its events do.
//!
//! Expressions are texts here; the edge compiles them, and `carillon check` does the same.

mod action;
mod event;
mod limit;
mod room;
mod shorthand;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

pub use action::{Action, Emit, Forward, Relay, Reply, Target};
pub use event::{EventRule, Unmatched};
pub use limit::{Connect, Heartbeat, Rate};
pub use room::{AutoJoin, JoinPolicy, Overflow, PresenceData, PresenceEvents, RoomRule};

use crate::config::{bytes, duration};

/// All namespaces by name.
pub type Namespaces = BTreeMap<String, Namespace>;

/// `[namespaces."/name"]`: what a gateway class used to be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// Admits clients without a token, or with a bad one, as users without id.
    pub anonymous: bool,
    /// Keeps sessions, so that a client gets what it missed.
    pub recovery: bool,
    /// The stream of its events; namespaces with the same name share one.
    pub stream: String,
    /// Rooms that the token opens: a template such as `"teacher:{user.id}"`, or a table with conditions.
    #[serde(deserialize_with = "shorthand::list")]
    pub auto_join: Vec<AutoJoin>,
    /// Who may join which rooms; the first pattern that fits counts, and a room without one is closed.
    pub rooms: Vec<RoomRule>,
    /// What a client's event does; of the rules for an event the first whose condition holds counts.
    pub on: Vec<EventRule>,
    /// What becomes of an event without a rule.
    pub unmatched: Unmatched,
    /// Whether the backend is asked on `rt.up.<ns>.$connect` before a client is admitted.
    pub connect: Connect,
    /// Tells `$connect`, `$disconnect`, `$join` and `$leave`.
    pub lifecycle: bool,
    /// Events that a client gets after connecting.
    pub welcome: Vec<Emit>,
    /// The event that carries an error to the client.
    pub error_event: String,
    /// The code of refusals for which no rule sets one; limits keep their own.
    pub error_code: Option<String>,
    /// The text of refusals for which no rule sets one.
    pub error_message: Option<String>,
    /// Wraps the data of published events as `{event, data, timestamp}`. What a rule of this namespace
    /// builds stays as it was built.
    pub envelope: bool,
    /// Events of one connection, all together.
    pub rate: Rate,
    /// Largest arguments of a client's event, as JSON.
    #[serde(with = "bytes::option")]
    pub max_bytes: Option<u64>,
    /// Fields of every client's event that may hold HTML, of which only the harmless part is kept:
    /// `"text"`, `"author.name"`, `"*"` for any member, `"**"` for every string.
    pub sanitize: Vec<String>,
    /// The same for published events, on their way to the client.
    pub sanitize_published: Vec<String>,
    /// What a full outgoing queue does.
    pub overflow: Overflow,
    /// An application heartbeat; none by default.
    pub heartbeat: Option<Heartbeat>,
    /// How long a backend may take to answer a client's event.
    #[serde(with = "duration")]
    pub ack_timeout: Duration,
    /// How long `rt.authz` may take.
    #[serde(with = "duration")]
    pub authz_timeout: Duration,
    /// What a client without a token is told, instead of `auth.missing_text`.
    pub missing_token: Option<String>,
    /// What a client with a bad token is told, instead of `auth.invalid_text`.
    pub invalid_token: Option<String>,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            anonymous: false,
            recovery: true,
            stream: "events".to_owned(),
            auto_join: Vec::new(),
            rooms: Vec::new(),
            on: Vec::new(),
            unmatched: Unmatched::default(),
            connect: Connect::default(),
            lifecycle: true,
            welcome: Vec::new(),
            error_event: "error".to_owned(),
            error_code: None,
            error_message: None,
            envelope: false,
            rate: Rate::default(),
            max_bytes: None,
            sanitize: Vec::new(),
            sanitize_published: Vec::new(),
            overflow: Overflow::default(),
            heartbeat: None,
            ack_timeout: Duration::from_secs(5),
            authz_timeout: Duration::from_secs(2),
            missing_token: None,
            invalid_token: None,
        }
    }
}

impl Namespace {
    /// A namespace for trying things out: any room may be joined, and every event goes to the backend.
    pub fn open() -> Self {
        Self {
            rooms: vec![RoomRule::open("{room*}")],
            unmatched: Unmatched::Forward,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
