//! What plain clients are sent. Each message is appended to a buffer, so that a frame is built in one piece.

use crate::event::Payload;
use crate::offset::Offset;
use crate::rawjson::{write_number, write_string};

/// An event for a client.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub topic: &'a str,
    /// Milliseconds since 1970.
    pub time: u64,
    pub name: &'a str,
    pub id: Option<&'a str>,
    pub payload: &'a Payload,
    /// Asks for an answer under this number.
    pub ask: Option<u64>,
    /// Stands at the end, where [`patch`](crate::socketio::encode::patch) can replace it; signals have none.
    pub offset: Option<Offset>,
}

impl Event<'_> {
    /// Appends the event.
    ///
    /// With one argument it is `payload`; otherwise `args` has them all, and `payload` too, or null for none.
    pub fn write(&self, out: &mut Vec<u8>) {
        let json = self.payload.text();
        out.reserve(self.topic.len() + self.name.len() + 2 * json.len() + 160);
        let mut object = Object::open(out);
        object.string("topic", self.topic);
        object.number("ts", self.time);
        object.string("event", self.name);
        if let Some(id) = self.id {
            object.string("id", id);
        }
        match self.payload {
            Payload::One(_) => object.raw("payload", json),
            Payload::Many(_) => {
                object.raw(
                    "payload",
                    if self.payload.arguments().is_empty() {
                        "null"
                    } else {
                        json
                    },
                );
                object.raw("args", json);
            }
        }
        if let Some(ask) = self.ask {
            object.number("ask", ask);
        }
        if let Some(offset) = self.offset {
            object.offset("offset", offset);
        }
        object.close();
    }

    /// Returns the event alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// An error for a client, with what it is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Error<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub topic: Option<&'a str>,
    pub id: Option<u64>,
    pub event: Option<&'a str>,
    /// The first offset that the history still has.
    pub oldest: Option<Offset>,
}

impl Error<'_> {
    /// Appends the error.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::typed(out, "error");
        object.string("code", self.code);
        object.string("message", self.message);
        if let Some(topic) = self.topic {
            object.string("topic", topic);
        }
        if let Some(id) = self.id {
            object.number("id", id);
        }
        if let Some(event) = self.event {
            object.string("event", event);
        }
        if let Some(oldest) = self.oldest {
            object.offset("oldest", oldest);
        }
        object.close();
    }
}

/// Appends the first message of a connection; `recovered` stands where the client asked to resume, and `offset`
/// where it cannot ask for one.
pub fn welcome(
    out: &mut Vec<u8>,
    sid: &str,
    user: Option<&str>,
    recovered: Option<bool>,
    offset: Option<Offset>,
) {
    let mut object = Object::typed(out, "welcome");
    object.string("sid", sid);
    match user {
        Some(user) => object.string("userId", user),
        None => object.raw("userId", "null"),
    }
    if let Some(recovered) = recovered {
        object.raw("recovered", if recovered { "true" } else { "false" });
    }
    if let Some(offset) = offset {
        object.offset("offset", offset);
    }
    object.close();
}

/// Appends the answer to a subscription.
pub fn subscribed(out: &mut Vec<u8>, topic: &str, offset: Option<Offset>) {
    let mut object = Object::typed(out, "subscribed");
    object.string("topic", topic);
    if let Some(offset) = offset {
        object.offset("offset", offset);
    }
    object.close();
}

/// Appends the answer to the end of a subscription.
pub fn unsubscribed(out: &mut Vec<u8>, topic: &str) {
    let mut object = Object::typed(out, "unsubscribed");
    object.string("topic", topic);
    object.close();
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, time: u64, offset: Option<Offset>) {
    let mut object = Object::typed(out, "pong");
    object.number("ts", time);
    if let Some(offset) = offset {
        object.offset("offset", offset);
    }
    object.close();
}

/// Appends an acknowledgement; several arguments stand in `args` and, as an array, in `data`.
pub fn ack(out: &mut Vec<u8>, id: u64, payload: &Payload) {
    let json = payload.text();
    let mut object = Object::typed(out, "ack");
    object.number("id", id);
    match payload {
        Payload::One(_) => object.raw("data", json),
        Payload::Many(_) => {
            object.raw(
                "data",
                if payload.arguments().is_empty() {
                    "null"
                } else {
                    json
                },
            );
            object.raw("args", json);
        }
    }
    object.close();
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        let start = out.len();
        Self { out, start }
    }

    fn typed(out: &'a mut Vec<u8>, kind: &str) -> Self {
        let mut object = Self::open(out);
        object.string("type", kind);
        object
    }

    fn key(&mut self, key: &str) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        write_string(self.out, key);
        self.out.push(b':');
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        write_string(self.out, value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        write_number(self.out, value);
    }

    fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
    }

    fn offset(&mut self, key: &str, offset: Offset) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(&offset.text());
        self.out.push(b'"');
    }

    fn close(self) {
        self.out.push(b'}');
    }
}
