//! What a request asks for.

use std::collections::BTreeMap;

use carillon_protocol::event::Draft;
use carillon_protocol::names::{Namespace, Room};
use carillon_service::problem::Problem;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::check::{self, Checker, Refusal};

/// The fields of an event; `data` and `args` exclude each other.
const FIELDS: [&str; 11] = [
    "namespace",
    "rooms",
    "event",
    "data",
    "args",
    "id",
    "except",
    "ttl",
    "at",
    "ephemeral",
    "receipt",
];

/// An event that is asked to be published.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) namespace: Namespace,
    pub(super) rooms: Vec<Room>,
    pub(super) id: String,
    pub(super) draft: Draft,
    pub(super) at: Option<OffsetDateTime>,
    pub(super) ephemeral: bool,
    pub(super) receipt: bool,
    /// The body for INGEST.
    pub(super) body: Vec<u8>,
}

/// What bounds a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) checker: &'a Checker,
    pub(super) max_rooms: usize,
    pub(super) max_batch: usize,
    /// Milliseconds since 1970.
    pub(super) now: u64,
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

impl Rules<'_> {
    /// Reads the body of `POST /v1/events`; `id` makes an id for an event without one.
    pub(super) fn one(&self, body: &[u8], id: impl FnOnce() -> String) -> Result<Asked, Problem> {
        let raw: &RawValue = serde_json::from_slice(body).map_err(not_json)?;
        self.event(raw, id)
    }

    /// Reads the body of `POST /v1/events/batch`; nothing is taken unless every event is good.
    pub(super) fn batch(&self, body: &[u8], id: impl Fn(usize) -> String) -> Result<Vec<Asked>, Problem> {
        let whole: &RawValue = serde_json::from_slice(body).map_err(not_json)?;
        let events: Vec<&RawValue> = serde_json::from_str(whole.get())
            .map_err(|_| Problem::bad_request("expected an array of events").with_code("bad_request"))?;
        if events.len() > self.max_batch {
            let text = format!(
                "a batch has at most {} events, this one has {}",
                self.max_batch,
                events.len()
            );
            return Err(Problem::bad_request(text).with_code("too_many_events"));
        }
        let mut asked = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let event = self.event(event, || id(index)).map_err(|problem| {
                let text = format!("events[{index}]: {}", problem.detail());
                Problem::new(problem.status(), problem.code(), text)
            })?;
            asked.push(event);
        }
        Ok(asked)
    }

    fn event(&self, raw: &RawValue, id: impl FnOnce() -> String) -> Result<Asked, Problem> {
        let fields: Fields<'_> =
            serde_json::from_str(raw.get()).map_err(|_| Problem::bad_request("an event is a JSON object"))?;
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let name: String = unknown.chars().take(64).collect();
            return Err(Problem::bad_request(format!("unknown field {name:?}")).with_code("unknown_field"));
        }
        let namespace = match read::<String>(&fields, "namespace", "a string")? {
            Some(name) => Namespace::new(&name).map_err(|_| unknown_namespace(&name))?,
            None => Namespace::main(),
        };
        self.checker.namespace(&namespace).map_err(problem)?;
        let rooms = self.rooms(&fields)?;
        let flag = |name| read::<bool>(&fields, name, "true or false").map(Option::unwrap_or_default);
        let (ephemeral, receipt) = (flag("ephemeral")?, flag("receipt")?);
        let id = match read::<String>(&fields, "id", "a string")? {
            Some(id) => id,
            None => id(),
        };
        let event = event_body(&fields, &id);
        self.checker.size(event.len()).map_err(problem)?;
        let draft = Draft::read(&event, self.now)
            .map_err(Refusal::from)
            .map_err(problem)?;
        let at = check::draft_checks(&draft).map_err(problem)?;
        if receipt && (ephemeral || at.is_some()) {
            let text = "receipt is for events that are stored now: without ephemeral and at";
            return Err(Problem::bad_request(text).with_code("bad_field"));
        }
        let body = if rooms.len() > 1 {
            with_rooms(event, &rooms)
        } else {
            event
        };
        Ok(Asked {
            namespace,
            rooms,
            id,
            draft,
            at,
            ephemeral,
            receipt,
            body,
        })
    }

    fn rooms(&self, fields: &Fields<'_>) -> Result<Vec<Room>, Problem> {
        let bad = |text: String| Problem::bad_request(text).with_code("bad_rooms");
        let names: Vec<String> = read(fields, "rooms", "an array of strings")?
            .ok_or_else(|| bad("rooms is missing".to_owned()))?;
        if names.is_empty() {
            return Err(bad("rooms is empty".to_owned()));
        }
        if names.len() > self.max_rooms {
            let text = format!(
                "rooms has at most {} entries, these are {}",
                self.max_rooms,
                names.len()
            );
            return Err(bad(text).with_code("too_many_rooms"));
        }
        check::rooms(&names).map_err(|text| bad(format!("rooms: {text}")))
    }
}

fn read<T: DeserializeOwned>(fields: &Fields<'_>, name: &str, expected: &str) -> Result<Option<T>, Problem> {
    let Some(raw) = fields.get(name) else {
        return Ok(None);
    };
    serde_json::from_str(raw.get())
        .map(Some)
        .map_err(|_| Problem::bad_request(format!("{name} must be {expected}")).with_code("bad_field"))
}

/// Writes the event as a team would on `rt.pub`; its data stays the text that came.
fn event_body(fields: &Fields<'_>, id: &str) -> Vec<u8> {
    let mut body = b"{\"id\":".to_vec();
    body.extend(serde_json::to_vec(id).expect("a string is JSON"));
    for name in ["event", "data", "args", "except", "ttl", "at"] {
        if let Some(raw) = fields.get(name) {
            body.extend_from_slice(format!(",\"{name}\":").as_bytes());
            body.extend_from_slice(raw.get().as_bytes());
        }
    }
    body.push(b'}');
    body
}

fn with_rooms(event: Vec<u8>, rooms: &[Room]) -> Vec<u8> {
    let names: Vec<&str> = rooms.iter().map(Room::as_str).collect();
    let mut body = b"{\"rooms\":".to_vec();
    body.extend(serde_json::to_vec(&names).expect("strings are JSON"));
    body.push(b',');
    body.extend_from_slice(&event[1..]);
    body
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::bad_request(format!("the body is not JSON: {error}")).with_code("not_json")
}

fn unknown_namespace(name: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::bad_request(format!("there is no namespace {name:?}")).with_code("unknown_namespace")
}

fn problem(refusal: Refusal) -> Problem {
    match refusal.code {
        "too_large" => Problem::too_large(refusal.text),
        code => Problem::bad_request(refusal.text).with_code(code),
    }
}

#[cfg(test)]
mod tests;
