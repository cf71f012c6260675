//! Events: what teams send, and what is stored and delivered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::headers::{Headers, name};
use crate::names::{self, BadName};
use crate::{rawjson, socketio, token};

/// An event as it is stored in EVENTS and delivered to edges.
///
/// The data stays the JSON text that the publisher sent; everything else travels in headers, so that an
/// edge builds a frame without reading the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub payload: Payload,
    pub id: Option<String>,
    /// Socket ids, comma-separated, of the connections that are left out.
    pub except: Option<String>,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// The arguments of an event as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The one argument.
    One(Bytes),
    /// The array of arguments, where there is not exactly one.
    Many(Bytes),
}

impl Payload {
    /// The payload of no arguments.
    pub const NONE: Self = Self::Many(Bytes::from_static(b"[]"));

    /// Returns the JSON text.
    pub fn json(&self) -> &Bytes {
        match self {
            Self::One(json) | Self::Many(json) => json,
        }
    }

    /// Returns the JSON text as a string.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.json()).expect("a payload is made of JSON text")
    }

    /// Returns what stands between the brackets of the argument array.
    pub fn arguments(&self) -> &str {
        match self {
            Self::One(_) => self.text(),
            Self::Many(_) => {
                let text = self.text().trim();
                text.strip_prefix('[')
                    .and_then(|text| text.strip_suffix(']'))
                    .unwrap_or(text)
                    .trim()
            }
        }
    }

    /// Takes an array of arguments; one of exactly one element becomes that element.
    pub fn from_array(array: &RawValue) -> Result<Self, serde_json::Error> {
        let arguments: Vec<&RawValue> = serde_json::from_str(array.get())?;
        Ok(match arguments[..] {
            [only] => Self::One(Bytes::copy_from_slice(only.get().as_bytes())),
            _ => Self::Many(Bytes::copy_from_slice(array.get().as_bytes())),
        })
    }
}

/// The body on `rt.pub` and `rt.signal`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub event: Event,
    /// Seconds that the event stays in the history.
    pub ttl: Option<u64>,
    /// RFC 3339 time of delivery.
    pub at: Option<String>,
}

/// Why a body is no event.
#[derive(Debug, thiserror::Error)]
pub enum BadEvent {
    #[error("not_json: {0}")]
    Json(serde_json::Error),
    #[error("no_event: the body names no event")]
    NoEvent,
    #[error("bad_event: {0}")]
    Name(#[from] BadName),
    #[error("bad_field: {0}")]
    Field(&'static str),
}

impl BadEvent {
    /// Returns the code that the contract's errors carry.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "not_json",
            Self::NoEvent => "no_event",
            Self::Name(_) => "bad_event",
            Self::Field(_) => "bad_field",
        }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    except: Option<&'a RawValue>,
    #[serde(borrow)]
    ttl: Option<&'a RawValue>,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

/// Reads a member that is there, `null` included, which `Option` alone would take for absent.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

impl Draft {
    /// Reads a body: Carillon's own form, or a CloudEvents 1.0 JSON event.
    pub fn read(body: &[u8], time: u64) -> Result<Self, BadEvent> {
        let raw: &RawValue = serde_json::from_slice(body).map_err(BadEvent::Json)?;
        // A struct would also be read from an array of its members.
        if !raw.get().starts_with('{') {
            return Err(BadEvent::NoEvent);
        }
        let body: Body<'_> = serde_json::from_str(raw.get()).map_err(BadEvent::Json)?;
        for raw in [body.data, body.args].into_iter().flatten() {
            rawjson::check_depth(raw.get()).map_err(|_| BadEvent::Field("data nests too deep"))?;
        }
        // An extension attribute of a CloudEvent may be called `event`.
        let own = body.event.is_some() && body.kind.is_none();
        let cloud = match body.specversion.filter(|_| !own) {
            Some(version) => {
                let version: String = field(version, "specversion must be a string")?;
                if version != "1.0" {
                    return Err(BadEvent::Field("specversion must be 1.0"));
                }
                true
            }
            None => false,
        };
        let name = if cloud { body.kind } else { body.event };
        let name: String = field(name.ok_or(BadEvent::NoEvent)?, "event must be a string")?;
        names::check_event(&name)?;
        if socketio::is_reserved(&name) {
            return Err(BadEvent::Field("the event's name is reserved by Socket.IO"));
        }
        let payload = if cloud {
            cloud_payload(&body)?
        } else {
            payload(&body)?
        };
        let id = body
            .id
            .map(|raw| field::<String>(raw, "id must be a string"))
            .transpose()?;
        if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 256) {
            return Err(BadEvent::Field("id has 1 to 256 bytes"));
        }
        let except = match body.except.filter(|_| !cloud) {
            Some(raw) => except(&field::<Vec<String>>(
                raw,
                "except must be an array of socket ids",
            )?)?,
            None => None,
        };
        let ttl = match body.ttl.filter(|_| !cloud) {
            Some(raw) => Some(field::<u64>(raw, "ttl must be a whole number of seconds")?),
            None => None,
        };
        if ttl == Some(0) {
            return Err(BadEvent::Field("ttl must be at least 1 second"));
        }
        let at = body
            .at
            .filter(|_| !cloud)
            .map(|raw| field::<String>(raw, "at must be an RFC 3339 time"))
            .transpose()?;
        Ok(Self {
            event: Event {
                name,
                payload,
                id,
                except,
                time,
            },
            ttl,
            at,
        })
    }
}

fn field<'a, T: Deserialize<'a>>(raw: &'a RawValue, expected: &'static str) -> Result<T, BadEvent> {
    serde_json::from_str(raw.get()).map_err(|_| BadEvent::Field(expected))
}

fn payload(body: &Body<'_>) -> Result<Payload, BadEvent> {
    match (body.data, body.args) {
        (Some(_), Some(_)) => Err(BadEvent::Field("data and args exclude each other")),
        (Some(data), None) => Ok(Payload::One(Bytes::copy_from_slice(data.get().as_bytes()))),
        (None, Some(args)) => Payload::from_array(args).map_err(|_| BadEvent::Field("args must be an array")),
        (None, None) => Ok(Payload::NONE),
    }
}

fn cloud_payload(body: &Body<'_>) -> Result<Payload, BadEvent> {
    match (body.data, body.data_base64) {
        (Some(_), Some(_)) => Err(BadEvent::Field("data and data_base64 exclude each other")),
        (Some(data), None) => Ok(Payload::One(Bytes::copy_from_slice(data.get().as_bytes()))),
        (None, Some(raw)) => {
            const EXPECTED: &str = "data_base64 must be base64";
            let base64: String = field(raw, EXPECTED)?;
            STANDARD.decode(&base64).map_err(|_| BadEvent::Field(EXPECTED))?;
            let json = serde_json::json!({ "$binary": base64 }).to_string();
            Ok(Payload::One(json.into()))
        }
        (None, None) => Ok(Payload::NONE),
    }
}

/// Joins the connections that are left out; they are compared as text, so unknown ones do no harm.
pub fn except(sids: &[String]) -> Result<Option<String>, BadEvent> {
    if sids.len() > 1000 {
        return Err(BadEvent::Field("except has at most 1000 socket ids"));
    }
    let plain = |sid: &String| {
        sid.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let known: Vec<&str> = sids.iter().filter(|sid| plain(sid)).map(String::as_str).collect();
    Ok(if known.is_empty() {
        None
    } else {
        Some(known.join(","))
    })
}

impl Event {
    /// Writes everything but the payload into headers.
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::new()
            .with(name::EVENT, token::encode(&self.name))
            .with(name::TIME, self.time.to_string());
        if matches!(self.payload, Payload::Many(_)) {
            headers.push(name::ARGS, "1");
        }
        if let Some(id) = &self.id {
            headers.push(name::ID, token::encode(id));
        }
        if let Some(except) = &self.except {
            headers.push(name::EXCEPT, except.clone());
        }
        headers
    }

    /// Reads an event from a stored or delivered message; `None` for anything that is not one.
    pub fn from_message<'a>(header: impl Fn(&str) -> Option<&'a str>, body: Bytes) -> Option<Self> {
        let name = token::decode(header(name::EVENT)?).ok()?.into_owned();
        std::str::from_utf8(&body).ok()?;
        let payload = if header(name::ARGS).is_some() {
            Payload::Many(body)
        } else {
            Payload::One(body)
        };
        Some(Self {
            name,
            payload,
            id: header(name::ID)
                .and_then(|id| token::decode(id).ok())
                .map(|id| id.into_owned()),
            except: header(name::EXCEPT).map(str::to_owned),
            time: header(name::TIME).and_then(|time| time.parse().ok()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_body_survives_being_stored(
            name in "\\PC{1,30}", text in "\\PC{0,30}", number: i64, id in proptest::option::of("\\PC{1,40}"),
            many: bool, ttl in proptest::option::of(1..u64::MAX),
        ) {
            let mut body = serde_json::json!({ "event": name });
            let data = serde_json::json!([text, number]);
            body[if many { "args" } else { "data" }] = data.clone();
            if let Some(id) = &id {
                body["id"] = id.as_str().into();
            }
            if let Some(ttl) = ttl {
                body["ttl"] = ttl.into();
            }
            let Ok(draft) = read(&body.to_string()) else {
                prop_assert!(socketio::is_reserved(&name) || name.len() > names::MAX_EVENT);
                return Ok(());
            };
            prop_assert_eq!(draft.ttl, ttl);
            prop_assert_eq!((&draft.event.name, &draft.event.id), (&name, &id));
            let payload: serde_json::Value = serde_json::from_slice(draft.event.payload.json()).unwrap();
            prop_assert_eq!(payload, data);
            let headers = draft.event.headers();
            let stored = Event::from_message(|name| headers.get(name), draft.event.payload.json().clone());
            prop_assert_eq!(stored, Some(draft.event));
        }

        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Draft::read(&body, 7);
        }
    }

    fn read(body: &str) -> Result<Draft, BadEvent> {
        Draft::read(body.as_bytes(), 7)
    }

    #[test]
    fn a_body_is_read_without_changing_its_data() {
        let draft =
            read(r#"{"event":"a","data": {"b":1.50, "a":1e400 } ,"id":"x","except":["s1","s2"],"ttl":3}"#)
                .unwrap();
        assert_eq!(
            draft.event.payload,
            Payload::One(r#"{"b":1.50, "a":1e400 }"#.into())
        );
        assert_eq!(draft.event.except.as_deref(), Some("s1,s2"));
        assert_eq!(
            (draft.event.id.as_deref(), draft.ttl, draft.event.time),
            (Some("x"), Some(3), 7)
        );
    }

    #[test]
    fn arguments_are_one_many_or_none() {
        assert_eq!(
            read(r#"{"event":"a","args":[1]}"#).unwrap().event.payload,
            Payload::One("1".into())
        );
        assert_eq!(
            read(r#"{"event":"a","args":[1,2]}"#)
                .unwrap()
                .event
                .payload
                .arguments(),
            "1,2"
        );
        assert_eq!(read(r#"{"event":"a"}"#).unwrap().event.payload.arguments(), "");
        assert_eq!(
            read(r#"{"event":"a","data":null}"#)
                .unwrap()
                .event
                .payload
                .arguments(),
            "null"
        );
    }

    #[test]
    fn cloud_events_are_events() {
        let body = r#"{"specversion":"1.0","type":"com.example.x","source":"/s","id":"7","data":{"n":1}}"#;
        let draft = read(body).unwrap();
        assert_eq!(
            (draft.event.name.as_str(), draft.event.id.as_deref()),
            ("com.example.x", Some("7"))
        );
        assert_eq!(draft.event.payload.text(), r#"{"n":1}"#);
        // Extension attributes may have the names of our own members.
        let body = r#"{"specversion":"1.0","type":"a","event":"b","ttl":5,"at":"x","id":"7","data":1}"#;
        let draft = read(body).unwrap();
        assert_eq!(
            (draft.event.name.as_str(), draft.ttl, draft.at),
            ("a", None, None)
        );
        let body = r#"{"specversion":"1.0","event":"b","data":1}"#;
        assert_eq!(read(body).unwrap().event.name, "b");
        assert_eq!(read(r#"{"type":"a","event":"b"}"#).unwrap().event.name, "b");
    }

    #[test]
    fn refusals_have_codes() {
        for (body, code) in [
            ("nonsense", "not_json"),
            ("[]", "no_event"),
            (r#"["a",1,null,null,null,null,null,null,null,null]"#, "no_event"),
            (r#""a""#, "no_event"),
            ("{}", "no_event"),
            (r#"{"event":7}"#, "bad_field"),
            (r#"{"event":""}"#, "bad_event"),
            (r#"{"event":"a","data":1,"args":[]}"#, "bad_field"),
            (r#"{"event":"a","args":{}}"#, "bad_field"),
            (r#"{"event":"a","ttl":-1}"#, "bad_field"),
            (r#"{"event":"a","ttl":0}"#, "bad_field"),
            (r#"{"event":"a","id":5}"#, "bad_field"),
            (r#"{"event":"a","except":"x"}"#, "bad_field"),
            (r#"{"specversion":"0.3","type":"a"}"#, "bad_field"),
            (r#"{"specversion":1,"type":"a"}"#, "bad_field"),
            (r#"{"specversion":"1.0","source":"/s"}"#, "no_event"),
            (
                r#"{"specversion":"1.0","type":"a","data":1,"data_base64":"AA=="}"#,
                "bad_field",
            ),
            (
                r#"{"specversion":"1.0","type":"a","data_base64":"!"}"#,
                "bad_field",
            ),
        ] {
            assert_eq!(read(body).unwrap_err().code(), code, "{body}");
        }
    }

    #[test]
    fn headers_carry_an_event() {
        let event = read(r#"{"event":"ü.1","args":[],"id":"a b"}"#).unwrap().event;
        let headers = event.headers();
        let read = Event::from_message(|name| headers.get(name), event.payload.json().clone());
        assert_eq!(read, Some(event));
    }
}
