use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_bytes: 10_000,
    max_packets: 16,
};

#[test]
fn packets_are_read() {
    for (text, packet) in [
        ("0{}", Packet::Open("{}")),
        ("1", Packet::Close),
        ("2", Packet::Ping { probe: false }),
        ("2probe", Packet::Ping { probe: true }),
        ("3", Packet::Pong { probe: false }),
        ("3probe", Packet::Pong { probe: true }),
        ("4", Packet::Message("")),
        ("4ü\"", Packet::Message("ü\"")),
        ("5", Packet::Upgrade),
        ("6", Packet::Noop),
    ] {
        assert_eq!(Packet::from_text(text), Ok(packet), "{text}");
    }
    for (text, error) in [
        ("", PacketError::Empty),
        ("7", PacketError::UnknownType),
        ("bAA==", PacketError::UnknownType),
        ("ü", PacketError::UnknownType),
        ("1x", PacketError::UnexpectedData),
        ("3probes", PacketError::UnexpectedData),
    ] {
        assert_eq!(Packet::from_text(text), Err(error), "{text}");
    }
}

#[test]
fn payloads_are_read_whole_or_not() {
    let body = b"4hello\x1ebAQIDBA==\x1e2";
    let packets = vec![
        Packet::Message("hello"),
        Packet::Binary(Bytes::from_static(&[1, 2, 3, 4])),
        Packet::Ping { probe: false },
    ];
    assert_eq!(decode(body, LIMITS), Ok(packets));
    let packet = |index, error| PayloadError::Packet { index, error };
    for (body, error) in [
        (&b""[..], packet(0, PacketError::Empty)),
        (b"4a\x1e", packet(1, PacketError::Empty)),
        (b"4a\x1ebAQ", packet(1, PacketError::Base64)),
        (b"4\xff", PayloadError::NotUtf8),
        (&[b'4'; 10_001], PayloadError::TooBig),
        (&b"4\x1e".repeat(16), PayloadError::TooManyPackets),
    ] {
        assert_eq!(decode(body, LIMITS), Err(error));
    }
}

#[test]
fn an_answer_holds_frames_as_they_are() {
    let mut writer = Writer::default();
    assert!(writer.is_empty());
    writer.text(b"42[\"a\"]");
    writer.binary(&[1, 2, 3, 4]);
    writer.packet(&Packet::Noop);
    assert_eq!(writer.finish(), b"42[\"a\"]\x1ebAQIDBA==\x1e6");
}

#[test]
fn a_session_opens() {
    let open = Open {
        sid: "abc",
        upgrades: vec!["websocket"],
        ping_interval: 25_000,
        ping_timeout: 20_000,
        max_payload: 1_000_000,
    };
    let expected = r#"0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    assert_eq!(String::from_utf8(open.encode()).unwrap(), expected);
}

#[test]
fn queries_are_checked_in_the_order_of_the_protocol() {
    let read = |query| Query::read(query);
    let query = read("EIO=4&transport=polling&t=ab.c&sid=x%2Dy_1&token=a&b64=1").unwrap();
    assert_eq!(
        (query.transport, query.sid.as_deref(), query.t.as_deref()),
        (Transport::Polling, Some("x-y_1"), Some("ab.c"))
    );
    assert_eq!(read("transport=websocket&EIO=4&sid=").unwrap().sid, None);
    assert!(read("transport=polling&sid=a").is_ok());
    let long = format!("EIO=4&transport=polling&sid={}", "a".repeat(65));
    for (query, error) in [
        ("", RequestError::UnknownTransport),
        ("EIO=4", RequestError::UnknownTransport),
        ("EIO=4&transport=abc", RequestError::UnknownTransport),
        ("transport=polling", RequestError::UnsupportedVersion),
        ("EIO=3&transport=polling", RequestError::UnsupportedVersion),
        ("EIO=3&transport=polling&sid=a", RequestError::UnsupportedVersion),
        ("EIO=4&transport=polling&j=0", RequestError::BadRequest),
        ("EIO=4&EIO=4&transport=polling", RequestError::BadRequest),
        ("EIO=4&transport=%ff", RequestError::BadRequest),
        ("EIO=4&transport=polling&sid=a%20b", RequestError::UnknownSession),
        (&long, RequestError::UnknownSession),
    ] {
        assert_eq!(read(query), Err(error), "{query}");
    }
}

#[test]
fn refusals_have_the_numbers_of_the_protocol() {
    assert_eq!(
        RequestError::UnknownTransport.body(),
        r#"{"code":0,"message":"Transport unknown"}"#
    );
    assert_eq!(
        RequestError::UnsupportedVersion.body(),
        r#"{"code":5,"message":"Unsupported protocol version"}"#
    );
    assert_eq!(
        (
            RequestError::Forbidden.status(),
            RequestError::UnknownSession.status()
        ),
        (403, 400)
    );
}

fn packet() -> impl Strategy<Value = (u8, String, Vec<u8>)> {
    (0u8..10, "[^\u{1e}]{0,40}", any::<Vec<u8>>())
}

proptest! {
    #[test]
    fn payloads_survive(parts in proptest::collection::vec(packet(), 1..16)) {
        let packets: Vec<Packet<'_>> = parts.iter().map(|(kind, text, bytes)| match kind {
            0 => Packet::Open(text),
            1 => Packet::Close,
            2 => Packet::Ping { probe: text.len() % 2 == 0 },
            3 => Packet::Pong { probe: text.len() % 2 == 0 },
            4 | 5 => Packet::Message(text),
            6 => Packet::Upgrade,
            7 => Packet::Noop,
            _ => Packet::Binary(Bytes::copy_from_slice(bytes)),
        }).collect();
        let mut writer = Writer::default();
        packets.iter().for_each(|packet| writer.packet(packet));
        let body = writer.finish();
        prop_assert_eq!(decode(&body, LIMITS), Ok(packets));
    }

    #[test]
    fn any_body_is_read_or_refused(body in proptest::collection::vec(prop_oneof![Just(0x1eu8), Just(b'b'), b'0'..b'8', any::<u8>()], 0..64)) {
        let _ = decode(&body, LIMITS);
        let _ = Query::read(&String::from_utf8_lossy(&body));
    }
}
