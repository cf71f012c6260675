use serde::Deserialize;

use super::shorthand;

/// One step of an event rule: a table with one key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Joins the room of a template, if the rules for rooms allow it.
    Join(String),
    /// Leaves the room of a template.
    Leave(String),
    /// Sends an event to other clients.
    Relay(Relay),
    /// Hands the event to the backend.
    Forward(#[serde(deserialize_with = "shorthand::table")] Forward),
    /// Answers the client's acknowledgement.
    Reply(#[serde(deserialize_with = "shorthand::table")] Reply),
    /// Sends an event to the sender.
    Emit(Emit),
}

/// `{ relay = { event = "user-typing", to = "others" } }`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// The name that the others hear it under; the client's own by default.
    #[serde(default)]
    pub event: Option<String>,
    /// Whom it is for.
    pub to: Target,
    /// The room's template, where `to` is `room` or `room_others`.
    #[serde(default)]
    pub room: Option<String>,
    /// An expression for the data; the client's own by default.
    #[serde(default)]
    pub data: Option<String>,
    /// Stored and replayed, or for whoever is there now.
    #[serde(default)]
    pub durable: bool,
    /// Only who is in the room may send to it.
    #[serde(default = "yes")]
    pub members_only: bool,
}

/// Whom a relayed event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Everyone in the namespace.
    Everyone,
    /// Everyone in the namespace but the sender.
    Others,
    /// The sender alone.
    Sender,
    /// Everyone in a room.
    Room,
    /// Everyone in a room but the sender.
    RoomOthers,
}

/// `{ forward = "notification:read" }`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// The name in `rt.up.<ns>.<event>`; the client's own by default.
    pub event: Option<String>,
    /// An expression for the data; the client's own by default.
    pub data: Option<String>,
}

impl From<String> for Forward {
    fn from(event: String) -> Self {
        Self {
            event: Some(event),
            data: None,
        }
    }
}

/// `{ reply = "{'status': 'received'}" }`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// An expression for the acknowledgement's argument.
    pub data: String,
    /// The event that carries the same data where the client asked for no acknowledgement.
    #[serde(default)]
    pub event: Option<String>,
}

impl From<String> for Reply {
    fn from(data: String) -> Self {
        Self { data, event: None }
    }
}

/// `{ event = "authenticated", data = "{'userId': user.id}" }`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// The event's name.
    pub event: String,
    /// An expression for the data; without it the event has none.
    #[serde(default)]
    pub data: Option<String>,
    /// A condition.
    #[serde(default)]
    pub when: Option<String>,
}

fn yes() -> bool {
    true
}
