use std::sync::Arc;

use carillon_bus::Streams;
use carillon_bus::streams::EventsStream;
use carillon_protocol::headers::Headers;
use carillon_protocol::subject::Subjects;

use super::*;
use crate::check::{Arrival, Kind};

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
        events: [(Namespace::main(), stream)].into(),
        partitions: 1,
    };
    Checker::new(Subjects::new("rt"), Arc::new(streams), 200)
}

fn one(body: &str) -> Result<Asked, Problem> {
    let checker = checker();
    let rules = Rules {
        checker: &checker,
        max_rooms: 3,
        max_batch: 2,
        now: 7,
    };
    rules.one(body.as_bytes(), || "made".to_owned())
}

#[test]
fn a_request_becomes_the_body_that_a_team_would_publish() {
    let asked = one(r#"{"rooms":["a"],"event":"e","data":{"n": 1e400}}"#).unwrap();
    assert_eq!(asked.body, br#"{"id":"made","event":"e","data":{"n": 1e400}}"#);
    assert_eq!((asked.namespace.as_str(), asked.id.as_str()), ("/", "made"));
    assert!(!asked.ephemeral && !asked.receipt);

    let asked = one(r#"{"rooms":["a","b","a"],"event":"e","args":[1,2],"id":"x","receipt":true}"#).unwrap();
    assert_eq!(
        asked.body,
        br#"{"rooms":["a","b"],"id":"x","event":"e","args":[1,2]}"#
    );
    assert!(asked.receipt);
}

#[test]
fn a_list_is_as_large_as_its_event_for_one_room_here_and_behind_ingest() {
    let event = |rooms: &str, data: usize| {
        let data = "x".repeat(data);
        one(&format!(
            r#"{{"rooms":{rooms},"event":"e","data":"{data}","id":"i"}}"#
        ))
    };
    let full = 200 - event(r#"["a"]"#, 0).unwrap().body.len();
    for (rooms, token) in [(r#"["a"]"#, "a"), (r#"["b", "b","\u00e9"]"#, "%list")] {
        let asked = event(rooms, full).unwrap();
        let check = |body: Vec<u8>| {
            checker().check(Arrival {
                kind: Kind::Publish,
                subject: &format!("rt.pub.main.{token}"),
                headers: &Headers::new(),
                body: &body.into(),
                time: 7,
            })
        };
        let larger = String::from_utf8(asked.body.clone())
            .unwrap()
            .replace("xx\"", "xxx\"");
        assert_eq!(check(asked.body).unwrap().rooms, asked.rooms);
        assert_eq!(check(larger.into()).unwrap_err().code, "too_large");
        assert_eq!(event(rooms, full + 1).unwrap_err().code(), "too_large");
    }
}

#[test]
fn refusals_have_codes_and_name_the_field() {
    let large = format!(r#"{{"rooms":["a"],"event":"e","data":"{}"}}"#, "x".repeat(200));
    let long = format!(r#"{{"rooms":["{}"],"event":"e"}}"#, "x".repeat(257));
    for (body, status, code, names) in [
        ("nonsense", 400, "not_json", ""),
        ("[]", 400, "bad_request", "object"),
        (
            r#"{"rooms":["a"],"event":"e","foo":1}"#,
            400,
            "unknown_field",
            "foo",
        ),
        (r#"{"event":"e"}"#, 400, "bad_rooms", "rooms"),
        (r#"{"rooms":[],"event":"e"}"#, 400, "bad_rooms", "rooms"),
        (r#"{"rooms":"a","event":"e"}"#, 400, "bad_field", "rooms"),
        (r#"{"rooms":[1],"event":"e"}"#, 400, "bad_field", "rooms"),
        (r#"{"rooms":[""],"event":"e"}"#, 400, "bad_rooms", "rooms"),
        (&long, 400, "bad_rooms", "rooms"),
        (
            r#"{"rooms":["a","b","c","d"],"event":"e"}"#,
            400,
            "too_many_rooms",
            "rooms",
        ),
        (r#"{"rooms":["a"]}"#, 400, "no_event", "event"),
        (r#"{"rooms":["a"],"event":1}"#, 400, "bad_field", "event"),
        (r#"{"rooms":["a"],"event":""}"#, 400, "bad_event", "event"),
        (r#"{"rooms":["a"],"event":"e","id":1}"#, 400, "bad_field", "id"),
        (r#"{"rooms":["a"],"event":"e","id":""}"#, 400, "bad_field", "id"),
        (
            r#"{"rooms":["a"],"event":"e","except":"s"}"#,
            400,
            "bad_field",
            "except",
        ),
        (
            r#"{"rooms":["a"],"event":"e","ephemeral":1}"#,
            400,
            "bad_field",
            "ephemeral",
        ),
        (
            r#"{"rooms":["a"],"event":"e","receipt":"no"}"#,
            400,
            "bad_field",
            "receipt",
        ),
        (
            r#"{"rooms":["a"],"event":"e","ttl":"1"}"#,
            400,
            "bad_field",
            "ttl",
        ),
        (
            r#"{"rooms":["a"],"event":"e","at":"soon"}"#,
            400,
            "bad_field",
            "at",
        ),
        (
            r#"{"rooms":["a"],"event":"e","args":{}}"#,
            400,
            "bad_field",
            "args",
        ),
        (
            r#"{"rooms":["a"],"event":"e","args":[],"data":1}"#,
            400,
            "bad_field",
            "args",
        ),
        (
            r#"{"rooms":["a"],"event":"e","receipt":true,"ephemeral":true}"#,
            400,
            "bad_field",
            "receipt",
        ),
        (
            r#"{"namespace":1,"rooms":["a"],"event":"e"}"#,
            400,
            "bad_field",
            "namespace",
        ),
        (
            r#"{"namespace":"chat","rooms":["a"],"event":"e"}"#,
            400,
            "unknown_namespace",
            "namespace",
        ),
        (
            r#"{"namespace":"/chat","rooms":["a"],"event":"e"}"#,
            400,
            "unknown_namespace",
            "/chat",
        ),
        (&large, 413, "too_large", ""),
    ] {
        let problem = one(body).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.code()),
            (status, code),
            "{body}"
        );
        assert!(problem.detail().contains(names), "{body}: {}", problem.detail());
    }
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let checker = checker();
    let rules = Rules {
        checker: &checker,
        max_rooms: 3,
        max_batch: 2,
        now: 7,
    };
    let batch = |body: &str| rules.batch(body.as_bytes(), |index| format!("made-{index}"));
    let good = r#"{"rooms":["a"],"event":"e"}"#;
    let asked = batch(&format!("[{good},{good}]")).unwrap();
    assert_eq!((asked[0].id.as_str(), asked[1].id.as_str()), ("made-0", "made-1"));
    assert!(batch("[]").unwrap().is_empty());
    for (body, code, names) in [
        (good.to_owned(), "bad_request", "array"),
        (format!("[{good},{good},{good}]"), "too_many_events", "2"),
        (
            format!(r#"[{good},{{"rooms":["a"],"event":1}}]"#),
            "bad_field",
            "events[1]",
        ),
    ] {
        let problem = batch(&body).unwrap_err();
        assert_eq!(problem.code(), code);
        assert!(problem.detail().contains(names), "{}", problem.detail());
    }
}
