use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::Payload;
use crate::offset::Offset;
use crate::rawjson::{Arguments, MAX_DEPTH};
use crate::socketio::encode::patch;

const OFFSET: Offset = Offset {
    epoch: 1,
    sequence: 2,
};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn messages_are_read() {
    let array = |json| Arguments::from_array(json).unwrap();
    for (text, expected) in [
        (
            r#"{"type":"sub","topic":"a"}"#,
            Message::Subscribe {
                topic: "a".into(),
                since: None,
            },
        ),
        (
            r#" {"since":"x","more":[{}],"topic":"\u00fc","type":"sub"} "#,
            Message::Subscribe {
                topic: "ü".into(),
                since: Some("x".into()),
            },
        ),
        (
            r#"{"type":"sub","topic":"a","since":null}"#,
            Message::Subscribe {
                topic: "a".into(),
                since: None,
            },
        ),
        (
            r#"{"type":"unsub","topic":"a"}"#,
            Message::Unsubscribe { topic: "a".into() },
        ),
        (r#"{"type":"ping"}"#, Message::Ping),
        (
            r#"{"type":"emit","event":"e","data": {"n":1.50} ,"id":9007199254740992}"#,
            Message::Emit {
                event: "e".into(),
                arguments: array(r#"[{"n":1.50}]"#),
                id: Some(1 << 53),
            },
        ),
        (
            r#"{"type":"emit","event":"e","data":null}"#,
            Message::Emit {
                event: "e".into(),
                arguments: array("[null]"),
                id: None,
            },
        ),
        (
            r#"{"type":"emit","event":"e"}"#,
            Message::Emit {
                event: "e".into(),
                arguments: Arguments::NONE,
                id: None,
            },
        ),
        (
            r#"{"type":"emit","event":"e","args":[1,"b"],"id":0}"#,
            Message::Emit {
                event: "e".into(),
                arguments: array(r#"[1,"b"]"#),
                id: Some(0),
            },
        ),
        (
            r#"{"type":"presence","topic":"a","id":4}"#,
            Message::Presence {
                topic: "a".into(),
                id: 4,
            },
        ),
        (
            r#"{"type":"answer","ask":4,"data":7}"#,
            Message::Answer {
                ask: 4,
                arguments: array("[7]"),
            },
        ),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_newer_token_stays_out_of_logs() {
    for kind in ["auth", "auth:refresh"] {
        let text = format!(r#"{{"type":"{kind}","token":"secret"}}"#);
        let message = parse(&text).unwrap();
        let Message::Authenticate { token } = &message else {
            panic!("{message:?}")
        };
        assert_eq!(token.reveal(), "secret");
        assert!(!format!("{message:?}").contains("secret"));
    }
}

#[test]
fn refusals_name_what_they_are_about() {
    let deep = format!(
        r#"{{"type":"emit","event":"e","data":{}{}}}"#,
        "[".repeat(MAX_DEPTH),
        "]".repeat(MAX_DEPTH)
    );
    let long = "a".repeat(257);
    let long_topic = format!(r#"{{"type":"sub","topic":"{long}"}}"#);
    let long_event = format!(r#"{{"type":"emit","event":"{}","id":3}}"#, "a".repeat(129));
    for (text, code, topic, id) in [
        ("", "bad_json", None, None),
        ("ping", "bad_json", None, None),
        ("[]", "bad_json", None, None),
        ("null", "bad_json", None, None),
        (r#""ping""#, "bad_json", None, None),
        (r#"{"type":"ping"} {}"#, "bad_json", None, None),
        (r#"{"type":"ping","type":"ping"}"#, "bad_json", None, None),
        (&deep, "too_deep", None, None),
        ("{}", "missing_field", None, None),
        (r#"{"type":7}"#, "bad_field", None, None),
        (
            r#"{"type":"nope","topic":"t","id":5}"#,
            "unknown_type",
            Some("t"),
            Some(5),
        ),
        (r#"{"type":"sub"}"#, "missing_field", None, None),
        (r#"{"type":"sub","topic":null}"#, "bad_field", None, None),
        (r#"{"type":"sub","topic":""}"#, "bad_field", Some(""), None),
        (&long_topic, "bad_field", Some(&long), None),
        (
            r#"{"type":"sub","topic":"t","since":5}"#,
            "bad_field",
            Some("t"),
            None,
        ),
        (r#"{"type":"emit","id":1}"#, "missing_field", None, Some(1)),
        (&long_event, "bad_field", None, Some(3)),
        (r#"{"type":"emit","event":"e","id":"x"}"#, "bad_field", None, None),
        (
            r#"{"type":"emit","event":"e","id":9007199254740993}"#,
            "bad_field",
            None,
            None,
        ),
        (r#"{"type":"emit","event":"e","id":-1}"#, "bad_field", None, None),
        (r#"{"type":"emit","event":"e","id":1.5}"#, "bad_field", None, None),
        (
            r#"{"type":"emit","event":"e","id":1,"data":1,"args":[]}"#,
            "bad_field",
            None,
            Some(1),
        ),
        (
            r#"{"type":"emit","event":"e","id":1,"args":{}}"#,
            "bad_field",
            None,
            Some(1),
        ),
        (
            r#"{"type":"presence","topic":"t"}"#,
            "missing_field",
            Some("t"),
            None,
        ),
        (r#"{"type":"answer","data":1}"#, "missing_field", None, None),
        (r#"{"type":"auth"}"#, "missing_field", None, None),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(
            (error.problem.code(), error.topic.as_deref(), error.id),
            (code, topic, id),
            "{text}"
        );
    }
    assert_eq!(Problem::Binary.code(), "binary_message");
}

#[test]
fn answers_have_the_agreed_form() {
    let o = "00000001000000000002";
    for (text, expected) in [
        (
            written(|out| encode::welcome(out, "s", Some("u"), None, None)),
            json!({"type":"welcome","sid":"s","userId":"u"}),
        ),
        (
            written(|out| encode::welcome(out, "s", None, Some(true), None)),
            json!({"type":"welcome","sid":"s","userId":null,"recovered":true}),
        ),
        (
            written(|out| encode::subscribed(out, "t\"", Some(OFFSET))),
            json!({"type":"subscribed","topic":"t\"","offset":o}),
        ),
        (
            written(|out| encode::unsubscribed(out, "t")),
            json!({"type":"unsubscribed","topic":"t"}),
        ),
        (
            written(|out| encode::pong(out, 5, Some(OFFSET))),
            json!({"type":"pong","ts":5,"offset":o}),
        ),
        (
            written(|out| encode::ack(out, 5, &Payload::One("{}".into()))),
            json!({"type":"ack","id":5,"data":{}}),
        ),
        (
            written(|out| encode::ack(out, 5, &Payload::NONE)),
            json!({"type":"ack","id":5,"data":null,"args":[]}),
        ),
        (
            written(|out| {
                encode::Error {
                    code: "c",
                    message: "m",
                    ..Default::default()
                }
                .write(out)
            }),
            json!({"type":"error","code":"c","message":"m"}),
        ),
        (
            written(|out| {
                let error = encode::Error {
                    code: "history_lost",
                    message: "m",
                    topic: Some("t"),
                    id: Some(4),
                    event: Some("e"),
                    oldest: Some(OFFSET),
                };
                error.write(out);
            }),
            json!({"type":"error","code":"history_lost","message":"m","topic":"t","id":4,"event":"e","oldest":o}),
        ),
    ] {
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }
}

#[test]
fn an_event_ends_in_its_offset() {
    let one = Payload::One(r#"{"a":1.50}"#.into());
    let mut event = encode::Event {
        topic: "t",
        time: 5,
        name: "e",
        id: Some("i"),
        payload: &one,
        ask: None,
        offset: Some(OFFSET),
    };
    let mut text = event.encode();
    let expected =
        r#"{"topic":"t","ts":5,"event":"e","id":"i","payload":{"a":1.50},"offset":"00000001000000000002"}"#;
    assert_eq!(text, expected.as_bytes());
    patch(
        &mut text,
        Offset {
            epoch: 2,
            sequence: 3,
        },
    );
    assert!(text.ends_with(br#""offset":"00000002000000000003"}"#));
    let many = Payload::Many("[1,2]".into());
    event.payload = &many;
    event.id = None;
    event.offset = None;
    event.ask = Some(8);
    assert_eq!(
        event.encode(),
        br#"{"topic":"t","ts":5,"event":"e","payload":[1,2],"args":[1,2],"ask":8}"#
    );
    let none = Payload::NONE;
    event.payload = &none;
    event.ask = None;
    assert_eq!(
        event.encode(),
        br#"{"topic":"t","ts":5,"event":"e","payload":null,"args":[]}"#
    );
}

proptest! {
    #[test]
    fn emits_survive(event in "\\PC{1,32}", data in any::<(String, f64, bool)>(), id in 0..=1u64 << 53) {
        let data = json!([data.0, data.1, data.2]);
        let text = json!({"type": "emit", "event": event, "data": data, "id": id}).to_string();
        let Ok(Message::Emit { event: read, arguments, id: Some(number) }) = parse(&text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(&*read, &*event);
        prop_assert_eq!(number, id);
        prop_assert_eq!(arguments.single(), Some(&*data.to_string()));
    }

    #[test]
    fn events_are_json(topic: String, name: String, id: Option<String>, text: String, time: u64) {
        let payload = Payload::One(json!(text).to_string().into());
        let event = encode::Event {
            topic: &topic, time, name: &name, id: id.as_deref(), payload: &payload, ask: None, offset: Some(OFFSET),
        };
        let value: Value = serde_json::from_slice(&event.encode()).unwrap();
        prop_assert_eq!(&value["topic"], &json!(topic));
        prop_assert_eq!(&value["event"], &json!(name));
        prop_assert_eq!(value.get("id").cloned(), id.map(Value::from));
        prop_assert_eq!(&value["payload"], &json!(text));
        prop_assert_eq!(&value["ts"], &json!(time));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"\{("(type|topic|id|data|args|event|since)":("(sub|emit|ping)"|[0-9]{1,3}|null|\[\]|"\\u00fc"),?){0,6}\}?"#) {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.problem.code().is_empty());
        }
    }
}
