//! Is a body an event, and for which rooms?

use std::collections::HashSet;

use bytes::Bytes;
use carillon_bus::Streams;
use carillon_protocol::event::{BadEvent, Draft};
use carillon_protocol::headers::Headers;
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::subject::Subjects;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::MOST_ROOMS;

/// JetStream takes headers of 64 KiB at most, and the other ones are small.
const MOST_EXCEPT: usize = 32 * 1024;

/// A body on its way in, with the subject on which it was published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) kind: Kind,
    pub(crate) subject: &'a str,
    pub(crate) headers: &'a Headers,
    pub(crate) body: &'a Bytes,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
}

/// What a subject asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Publish,
    Signal,
}

impl Kind {
    /// Returns the second token of the kind's subjects.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Publish => "pub",
            Self::Signal => "signal",
        }
    }
}

/// A body that is an event for known rooms.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) namespace: Namespace,
    /// Each room once, at least one.
    pub(crate) rooms: Vec<Room>,
    pub(crate) draft: Draft,
    /// The time of delivery, where it was given.
    pub(crate) at: Option<OffsetDateTime>,
}

/// Why a body is refused: a code and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<BadEvent> for Refusal {
    fn from(bad: BadEvent) -> Self {
        let text = bad.to_string();
        let text = text
            .strip_prefix(bad.code())
            .and_then(|text| text.strip_prefix(": "))
            .unwrap_or(&text);
        Self::new(bad.code(), text)
    }
}

/// The rooms of a list stand beside the event, since headers are bounded.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    rooms: Option<&'a serde_json::value::RawValue>,
}

/// Checks what comes in; the same rules hold for every way in.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    subjects: Subjects,
    streams: std::sync::Arc<Streams>,
    max_bytes: usize,
}

impl Checker {
    pub(crate) fn new(subjects: Subjects, streams: std::sync::Arc<Streams>, max_bytes: u64) -> Self {
        Self {
            subjects,
            streams,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Returns the event and its rooms, or why it is none.
    pub(crate) fn check(&self, arrival: Arrival<'_>) -> Result<Accepted, Refusal> {
        let bad_subject = |text: &str| Refusal::new("bad_subject", text);
        let kind = arrival.kind.token();
        let tokens = self.subjects.tokens(kind, arrival.subject).unwrap_or_default();
        let [namespace, room] = tokens[..] else {
            return Err(bad_subject(&format!(
                "expected {}.{kind}.<namespace>.<room>",
                self.subjects.prefix()
            )));
        };
        let namespace = Namespace::from_token(namespace).map_err(|bad| bad_subject(&bad.to_string()))?;
        self.namespace(&namespace)?;
        let list = room == LIST;
        let (rooms, beside) = if list {
            list_rooms(arrival.body)?
        } else {
            (
                vec![Room::from_token(room).map_err(|bad| bad_subject(&bad.to_string()))?],
                0,
            )
        };
        self.size(arrival.body.len().saturating_sub(beside))?;
        let draft = Draft::read(arrival.body, arrival.time)?;
        let at = draft_checks(&draft)?;
        Ok(Accepted {
            namespace,
            rooms,
            draft,
            at,
        })
    }

    /// Refuses a namespace that the configuration does not have.
    pub(crate) fn namespace(&self, namespace: &Namespace) -> Result<(), Refusal> {
        match self.streams.of(namespace) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(
                "unknown_namespace",
                format!("there is no namespace {namespace}"),
            )),
        }
    }

    /// Refuses a body that is larger than an event may be.
    pub(crate) fn size(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.max_bytes {
            let text = format!(
                "the event has {bytes} bytes, at most {} are taken",
                self.max_bytes
            );
            return Err(Refusal::new("too_large", text));
        }
        Ok(())
    }
}

/// The room token under which an event for a list of rooms waits.
const LIST: &str = "%list";
/// What stands around the rooms in a list's body.
const BESIDE: usize = r#""rooms":,"#.len();

/// The end of 2200: the server counts nanoseconds, and takes a time that does not fit for one that has come.
const LATEST: i64 = 7_289_654_399;

/// Checks what the body's reader leaves open, and reads the time of delivery.
pub(crate) fn draft_checks(draft: &Draft) -> Result<Option<OffsetDateTime>, Refusal> {
    if draft
        .event
        .except
        .as_ref()
        .is_some_and(|except| except.len() > MOST_EXCEPT)
    {
        return Err(Refusal::new("bad_field", "except has at most 32 KiB"));
    }
    let Some(text) = &draft.at else { return Ok(None) };
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(at) if at.unix_timestamp() > LATEST => Err(Refusal::new("bad_field", "at is later than 2200")),
        Ok(at) => Ok(Some(at)),
        Err(_) => Err(Refusal::new("bad_field", "at must be an RFC 3339 time")),
    }
}

/// Reads the rooms of a list, each once, and by how much the body is longer than that of the event for one room.
fn list_rooms(body: &[u8]) -> Result<(Vec<Room>, usize), Refusal> {
    let list: List<'_> = serde_json::from_slice(body).map_err(BadEvent::Json)?;
    let bad = |text: &str| Refusal::new("bad_rooms", text);
    let raw = list.rooms.ok_or_else(|| bad("a list has rooms"))?;
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| bad("rooms must be an array of strings"))?;
    let rooms = rooms(&names).map_err(|text| bad(&text))?;
    if rooms.is_empty() || rooms.len() > MOST_ROOMS {
        return Err(bad("a list has 1 to 1000 rooms"));
    }
    Ok((rooms, raw.get().len() + BESIDE))
}

/// Reads the names of rooms; each is returned once.
pub(crate) fn rooms<S: AsRef<str>>(names: &[S]) -> Result<Vec<Room>, String> {
    let mut seen = HashSet::new();
    let mut rooms = Vec::with_capacity(names.len());
    for name in names {
        let room = Room::new(name.as_ref()).map_err(|bad| bad.to_string())?;
        if seen.insert(room.clone()) {
            rooms.push(room);
        }
    }
    Ok(rooms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use carillon_bus::streams::EventsStream;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn anything_is_accepted_or_refused_with_a_code(
            room in "\\PC{0,12}|%[0-9A-F]{2}|%list",
            body in "\\PC{0,60}|\\{\"(event|type|rooms|at|ttl|specversion)\":\\PC{0,40}\\}",
        ) {
            match check(&format!("rt.pub.main.{room}"), &body) {
                Ok(accepted) => prop_assert!((1..=MOST_ROOMS).contains(&accepted.rooms.len())),
                Err(refusal) => prop_assert!(!refusal.code.is_empty() && !refusal.text.is_empty()),
            }
        }

        #[test]
        fn a_list_has_each_room_once_in_its_order(names in proptest::collection::vec("[a-c]{1,2}|é|a b", 1..8)) {
            let body = serde_json::json!({ "event": "e", "rooms": names }).to_string();
            let accepted = check("rt.pub.main.%list", &body).unwrap();
            let mut expected: Vec<&String> = Vec::new();
            for name in &names {
                if !expected.contains(&name) {
                    expected.push(name);
                }
            }
            prop_assert!(accepted.rooms.iter().map(Room::as_str).eq(expected.into_iter().map(String::as_str)));
        }
    }

    fn checker() -> Checker {
        let stream = EventsStream {
            name: "RT_EVENTS".into(),
            epoch: 1,
        };
        let streams = Streams {
            ingest: "RT_INGEST".into(),
            dead: "RT_DEAD".into(),
            offline: "RT_OFFLINE".into(),
            lifecycle: "RT_LIFECYCLE".into(),
            events: BTreeMap::from([(Namespace::main(), stream)]),
            partitions: 1,
        };
        Checker::new(Subjects::new("rt"), Arc::new(streams), 100)
    }

    fn check(subject: &str, body: &str) -> Result<Accepted, Refusal> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        checker().check(Arrival {
            kind: Kind::Publish,
            subject,
            headers: &Headers::new(),
            body: &body,
            time: 7,
        })
    }

    #[test]
    fn a_good_body_is_accepted() {
        let accepted = check(
            "rt.pub.main.a%2Eb",
            r#"{"event":"e","data":1,"at":"2030-01-01T00:00:00+02:00"}"#,
        )
        .unwrap();
        assert_eq!(accepted.rooms, [Room::new("a.b").unwrap()]);
        assert_eq!(accepted.at.unwrap().unix_timestamp(), 1_893_448_800);
    }

    #[test]
    fn a_list_names_its_rooms_once_and_pays_for_the_event_only() {
        let rooms: Vec<String> = (0..50).chain(0..50).map(|room| format!("user:{room}")).collect();
        let body = serde_json::json!({ "event": "e", "rooms": rooms }).to_string();
        let accepted = check("rt.pub.main.%list", &body).unwrap();
        assert_eq!(accepted.rooms.len(), 50);
    }

    #[test]
    fn refusals_have_codes() {
        let large = format!(r#"{{"event":"e","data":"{}"}}"#, "x".repeat(100));
        for (subject, body, code) in [
            ("rt.pub.main", "{}", "bad_subject"),
            ("rt.pub.main.a.b", "{}", "bad_subject"),
            ("rt.pub.main.%zz", "{}", "bad_subject"),
            ("rt.pub.%41.a", "{}", "bad_subject"),
            ("other.pub.main.a", "{}", "bad_subject"),
            ("rt.pub.chat.a", r#"{"event":"e"}"#, "unknown_namespace"),
            ("rt.pub.main.a", &large, "too_large"),
            ("rt.pub.main.a", "nonsense", "not_json"),
            ("rt.pub.main.a", "{}", "no_event"),
            ("rt.pub.main.a", r#"{"event":"e","at":"soon"}"#, "bad_field"),
            (
                "rt.pub.main.a",
                r#"{"event":"e","at":"2500-01-01T00:00:00Z"}"#,
                "bad_field",
            ),
            ("rt.pub.main.%list", r#"{"event":"e"}"#, "bad_rooms"),
            ("rt.pub.main.%list", r#"{"event":"e","rooms":[]}"#, "bad_rooms"),
            (
                "rt.pub.main.%list",
                r#"{"event":"e","rooms":["",7]}"#,
                "bad_rooms",
            ),
            ("rt.pub.main.%list", r#"{"event":"e","rooms":[""]}"#, "bad_rooms"),
        ] {
            assert_eq!(check(subject, body).unwrap_err().code, code, "{subject} {body}");
        }
    }
}
