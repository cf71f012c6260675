use bytes::Bytes;
use proptest::prelude::*;

use super::encode::{Event, patch};
use super::*;
use crate::offset::Offset;
use crate::rawjson::{Arguments, MAX_DEPTH};

const LIMITS: Limits = Limits {
    max_attachments: 4,
    max_bytes: 1000,
};

fn read(text: &str) -> Result<Packet<'_>, PacketError> {
    Decoder::new(LIMITS)
        .text(text)
        .map(|packet| packet.expect("no attachments are awaited"))
}

fn packet<'a>(namespace: &'a str, body: Body<'a>) -> Packet<'a> {
    Packet {
        namespace: namespace.into(),
        query: None,
        body,
    }
}

fn event<'a>(id: Option<u64>, name: &'a str, arguments: &'a str) -> Body<'a> {
    Body::Event {
        id,
        name: name.into(),
        arguments: Arguments::from_array(arguments).unwrap(),
    }
}

#[test]
fn packets_are_read() {
    for (text, expected) in [
        ("0", packet("/", Body::Connect { auth: None })),
        (
            "0{\"a\":1} ",
            packet(
                "/",
                Body::Connect {
                    auth: Some("{\"a\":1}".into()),
                },
            ),
        ),
        (
            "0/chat,{}",
            packet(
                "/chat",
                Body::Connect {
                    auth: Some("{}".into()),
                },
            ),
        ),
        ("0/chat", packet("/chat", Body::Connect { auth: None })),
        ("1", packet("/", Body::Disconnect)),
        ("1/chat,", packet("/chat", Body::Disconnect)),
        ("2[\"a\"]", packet("/", event(None, "a", "[]"))),
        (
            "2/a/b,12[\"x,y\", {\"n\":1.0} ,\"s\"]",
            packet("/a/b", event(Some(12), "x,y", "[{\"n\":1.0} ,\"s\"]")),
        ),
        (
            "218446744073709551615[\"\\u0061\"]",
            packet("/", event(Some(u64::MAX), "a", "[]")),
        ),
        (
            "30[]",
            packet(
                "/",
                Body::Ack {
                    id: 0,
                    arguments: Arguments::NONE,
                },
            ),
        ),
        (
            "3/n,7[null]",
            packet(
                "/n",
                Body::Ack {
                    id: 7,
                    arguments: Arguments::from_array("[null]").unwrap(),
                },
            ),
        ),
    ] {
        assert_eq!(read(text), Ok(expected), "{text}");
    }
    let query = read("0/admin?token=1&x=2,{}").unwrap();
    assert_eq!(
        (&*query.namespace, query.query.as_deref()),
        ("/admin", Some("token=1&x=2"))
    );
}

#[test]
fn broken_packets_are_refused() {
    let deep = format!(
        "0{}{}",
        "{\"a\":".repeat(MAX_DEPTH + 1),
        "}".repeat(MAX_DEPTH + 1)
    );
    let long = format!("0/{},", "a".repeat(MAX_NAMESPACE));
    let big = format!("2[\"{}\"]", "a".repeat(1000));
    for (text, error) in [
        ("", PacketError::UnknownType),
        ("7", PacketError::UnknownType),
        ("ü", PacketError::UnknownType),
        ("4{\"message\":\"no\"}", PacketError::ServerOnly),
        ("0[]", PacketError::BadPayload),
        ("0{", PacketError::BadPayload),
        ("05{}", PacketError::BadPayload),
        ("1{}", PacketError::BadPayload),
        ("2", PacketError::BadPayload),
        ("2{}", PacketError::BadPayload),
        ("2[\"a\"", PacketError::BadPayload),
        ("2[\"a\"]x", PacketError::BadPayload),
        ("2[]", PacketError::NoName),
        ("2[7]", PacketError::NoName),
        ("2[\"\\ud800\"]", PacketError::NoName),
        ("2[\"connect\"]", PacketError::ReservedName),
        ("2[\"disconnectin\\u0067\"]", PacketError::ReservedName),
        ("218446744073709551616[\"a\"]", PacketError::BadId),
        ("201[\"a\"]", PacketError::BadId),
        ("3[]", PacketError::BadId),
        ("5[\"a\"]", PacketError::Attachments),
        ("50-[\"a\"]", PacketError::Attachments),
        ("5+1-[\"a\"]", PacketError::Attachments),
        ("599999999999999999999-[\"a\"]", PacketError::Attachments),
        (&deep, PacketError::TooDeep(crate::rawjson::TooDeep)),
        (&long, PacketError::LongNamespace),
        (&big, PacketError::TooBig),
    ] {
        assert_eq!(read(text), Err(error), "{text}");
    }
}

#[test]
fn packets_over_a_limit_are_told_apart_and_their_attachments_swallowed() {
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let excess = |id, limit| Body::Excess {
        id,
        name: "a".into(),
        limit,
    };
    assert_eq!(
        read(&format!("2/n,7[\"a\",{deep}]")),
        Ok(packet("/n", excess(Some(7), Limit::Depth)))
    );
    assert_eq!(
        read(&format!("37[{deep}]")),
        Ok(packet("/", Body::AckExcess { limit: Limit::Depth }))
    );
    assert_eq!(read(&format!("2[\"a\",{deep}")), Err(PacketError::BadPayload));
    assert_eq!(
        read(&format!("2[\"connect\",{deep}]")),
        Err(PacketError::ReservedName)
    );

    let placeholders: Vec<String> = (0..5)
        .map(|num| format!("{{\"_placeholder\":true,\"num\":{num}}}"))
        .collect();
    let placeholders = placeholders.join(",");
    let mut decoder = Decoder::new(LIMITS);
    for (text, body) in [
        (
            format!("55-[\"a\",{placeholders}]"),
            excess(None, Limit::Attachments),
        ),
        (
            format!("55-[\"a\",{deep},{placeholders}]"),
            excess(None, Limit::Depth),
        ),
        (
            format!("65-3[{placeholders}]"),
            Body::AckExcess {
                limit: Limit::Attachments,
            },
        ),
    ] {
        assert_eq!(decoder.text(&text), Ok(None));
        for _ in 0..4 {
            assert_eq!(decoder.binary(Bytes::from_static(b"x")), Ok(None));
        }
        let swallowed = decoder.binary(Bytes::from_static(b"x"));
        assert_eq!(swallowed, Ok(Some(packet("/", body))), "{text}");
    }
    assert_eq!(
        decoder.text("2[\"a\"]"),
        Ok(Some(packet("/", event(None, "a", "[]"))))
    );
    for text in ["55-[\"a\"]", "5999999999999-[\"a\"]"] {
        assert!(matches!(
            Decoder::new(LIMITS).text(text),
            Err(PacketError::Placeholder(_))
        ));
    }
}

#[test]
fn attachments_are_put_in_place() {
    let mut decoder = Decoder::new(LIMITS);
    let text = r#"52-/n,3["up",{"_placeholder":true,"num":1},{"a":{"_placeholder":true,"num":0}}]"#;
    assert_eq!(decoder.text(text), Ok(None));
    assert!(decoder.is_waiting());
    assert_eq!(decoder.binary(Bytes::from_static(&[1, 2, 3])), Ok(None));
    let whole = decoder.binary(Bytes::from_static(&[0xff])).unwrap().unwrap();
    let expected = r#"[{"$binary":"/w=="},{"a":{"$binary":"AQID"}}]"#;
    assert_eq!(whole, packet("/n", event(Some(3), "up", expected)).into_owned());
    assert!(!decoder.is_waiting());
    assert_eq!(decoder.text(r#"61-4[{"num":0,"_placeholder":true}]"#), Ok(None));
    let ack = decoder.binary(Bytes::new()).unwrap().unwrap();
    let arguments = Arguments::from_array(r#"[{"$binary":""}]"#).unwrap();
    assert_eq!(ack, packet("/", Body::Ack { id: 4, arguments }).into_owned());
}

#[test]
fn attachments_out_of_place_are_refused() {
    let one = r#"51-["a",{"_placeholder":true,"num":0}]"#;
    let mut decoder = Decoder::new(LIMITS);
    assert_eq!(decoder.binary(Bytes::new()), Err(PacketError::UnexpectedBinary));
    assert_eq!(decoder.text(one), Ok(None));
    assert_eq!(decoder.text("2[\"a\"]"), Err(PacketError::UnexpectedText));
    let mut decoder = Decoder::new(LIMITS);
    assert_eq!(decoder.text(one), Ok(None));
    assert_eq!(
        decoder.binary(Bytes::from(vec![0; 1000])),
        Err(PacketError::TooBig)
    );
    for text in [
        r#"51-["a"]"#,
        r#"51-["a",{"_placeholder":true,"num":1}]"#,
        r#"51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
    ] {
        let error = Decoder::new(LIMITS).text(text).unwrap_err();
        assert!(matches!(error, PacketError::Placeholder(_)), "{text}: {error}");
    }
}

#[test]
fn texts_for_clients() {
    let text = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        text(&|out| encode::connect(out, "/", "s", Some("p"))),
        r#"0{"sid":"s","pid":"p"}"#
    );
    assert_eq!(
        text(&|out| encode::connect(out, "/n", "s", None)),
        r#"0/n,{"sid":"s"}"#
    );
    assert_eq!(
        text(&|out| encode::connect_error(out, "/n", "no \"x\"", None)),
        r#"4/n,{"message":"no \"x\""}"#
    );
    let data = Some(r#"{"code":"C"}"#);
    assert_eq!(
        text(&|out| encode::connect_error(out, "/", "no", data)),
        r#"4{"message":"no","data":{"code":"C"}}"#
    );
    assert_eq!(text(&|out| encode::disconnect(out, "/n")), "1/n,");
    assert_eq!(text(&|out| encode::ack(out, "/", 7, "1,2", 0)), "37[1,2]");
    assert_eq!(text(&|out| encode::ack(out, "/n", 7, "", 2)), "62-/n,7[]");
}

#[test]
fn an_offset_stands_last_and_can_be_replaced() {
    let offset = Offset {
        epoch: 1,
        sequence: 2,
    };
    let mut event = Event {
        namespace: "/n",
        id: None,
        name: "a\"",
        arguments: "",
        attachments: 0,
        offset: Some(offset),
    };
    assert_eq!(event.encode(), br#"2/n,["a\"","00000001000000000002"]"#);
    event.arguments = "{}";
    event.attachments = 3;
    event.id = Some(5);
    let mut text = event.encode();
    assert_eq!(text, br#"53-/n,5["a\"",{},"00000001000000000002"]"#);
    patch(
        &mut text,
        Offset {
            epoch: 0xffff_ffff,
            sequence: 0xabc,
        },
    );
    assert_eq!(text, br#"53-/n,5["a\"",{},"ffffffff000000000abc"]"#);
    event.offset = None;
    assert_eq!(event.encode(), br#"53-/n,5["a\"",{}]"#);
    let mut short = *b"2[\"a\"]";
    patch(&mut short, offset);
    assert_eq!(&short, b"2[\"a\"]");
}

/// JSON values with little depth.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            (any::<String>(), inner)
                .prop_map(|(key, value)| format!("{{{}:{value}}}", serde_json::to_string(&key).unwrap())),
        ]
    })
}

proptest! {
    #[test]
    fn events_survive(
        namespace in "/[a-z/]{0,9}",
        id in any::<Option<u64>>(),
        name in any::<String>(),
        arguments in proptest::collection::vec(json(), 0..4),
        offset in any::<Option<(u32, u32)>>(),
    ) {
        prop_assume!(!is_reserved(&name));
        let offset = offset.map(|(epoch, sequence)| Offset { epoch, sequence: sequence.into() });
        let joined = arguments.join(",");
        let text = Event { namespace: &namespace, id, name: &name, arguments: &joined, attachments: 0, offset }.encode();
        let text = String::from_utf8(text).unwrap();
        let mut sent = arguments.clone();
        sent.extend(offset.map(|offset| format!("\"{offset}\"")));
        let sent = format!("[{}]", sent.join(","));
        let mut decoder = Decoder::new(Limits { max_attachments: 0, max_bytes: usize::MAX });
        prop_assert_eq!(decoder.text(&text), Ok(Some(packet(&namespace, event(id, &name, &sent)))));
    }

    #[test]
    fn attachments_survive(list in proptest::collection::vec(any::<Vec<u8>>(), 1..10)) {
        let list: Vec<Bytes> = list.into_iter().map(Bytes::from).collect();
        let values: Vec<String> = (0..list.len()).map(|num| format!("{{\"_placeholder\":true,\"num\":{num}}}")).collect();
        let arguments = crate::binary::embed(&values.join(","), &list).unwrap();
        let sent = crate::binary::extract(&arguments, MAX_SENT_ATTACHMENTS).unwrap();
        let head = Event {
            namespace: "/", id: None, name: "a", arguments: &sent.json, attachments: sent.attachments.len(), offset: None,
        };
        let head = String::from_utf8(head.encode()).unwrap();
        let mut decoder = Decoder::new(Limits { max_attachments: 10, max_bytes: usize::MAX });
        prop_assert_eq!(decoder.text(&head), Ok(None));
        let mut whole = None;
        for bytes in sent.attachments {
            prop_assert!(whole.is_none());
            whole = decoder.binary(bytes).unwrap();
        }
        let expected = packet("/", event(None, "a", &format!("[{arguments}]"))).into_owned();
        prop_assert_eq!(whole, Some(expected));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"[0-7](1-)?(/[a-z?]{0,3},?)?[0-9]{0,3}([\[\]{}:,0 ]|"a"|"_placeholder"|"num"|true){0,12}"#) {
        let mut decoder = Decoder::new(LIMITS);
        if decoder.text(&text).is_ok() && decoder.is_waiting() {
            prop_assert!(decoder.binary(Bytes::new()).is_ok());
        }
    }
}
