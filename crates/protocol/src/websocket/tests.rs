use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::close::close;
use super::*;

const MAX: usize = 1000;

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let server = header(Opcode::Text, payload.len());
    let mut out = vec![first, server[1] | 0x80];
    out.extend_from_slice(&server[2..]);
    let key = [7, 0, 200, 31];
    out.extend_from_slice(&key);
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(index, byte)| byte ^ key[index % 4]),
    );
    out
}

type Outcome = (Vec<Message>, Option<DecodeError>);

/// Reads chunks as a connection would; stops at the first error.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(MAX);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Step::Message(message)) => messages.push(message),
                Ok(Step::Need(bytes)) => {
                    assert!((1..=MAX + 14).contains(&bytes));
                    break;
                }
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn text(text: &'static str) -> Message {
    Message::Text(Text::new(text.into()).unwrap())
}

#[test]
fn whole_messages_are_read() {
    let bytes = [
        masked(0x81, b"hi"),
        masked(0x82, b"\xff\0"),
        masked(0x89, b""),
        masked(0x8a, b"p"),
    ]
    .concat();
    let expected = vec![
        text("hi"),
        Message::Binary(Bytes::from_static(b"\xff\0")),
        Message::Ping(Bytes::new()),
        Message::Pong("p".into()),
    ];
    assert_eq!(read([&bytes[..]]), (expected, None));
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let bytes = [
        masked(0x01, "ab\u{20ac}".as_bytes().split_at(3).0),
        masked(0x89, b"x"),
        masked(0x00, b""),
        masked(0x00, "\u{20ac}".as_bytes().split_at(1).1),
        masked(0x80, b"c"),
    ]
    .concat();
    assert_eq!(
        read([&bytes[..]]),
        (vec![Message::Ping("x".into()), text("ab€c")], None)
    );
}

#[test]
fn nothing_is_read_after_a_close() {
    let bytes = [masked(0x88, b"\x03\xe8bye"), masked(0x81, b"late"), vec![0xff; 9]].concat();
    let close = Close {
        code: 1000,
        reason: "bye".to_owned(),
    };
    assert_eq!(read([&bytes[..]]), (vec![Message::Close(Some(close))], None));
    assert_eq!(read([&masked(0x88, b"")[..]]), (vec![Message::Close(None)], None));
}

#[test]
fn errors_and_their_close_codes() {
    let too_big = [masked(0x01, &[b'a'; 600]), masked(0x80, &[b'a'; 401])].concat();
    let unfinished = [masked(0x01, b"a"), masked(0x81, b"a")].concat();
    let cut = [masked(0x01, b"\xe2\x82"), masked(0x80, b"")].concat();
    for (bytes, error, code) in [
        (vec![0x81, 0x02, b'h', b'i'], DecodeError::Unmasked, 1002),
        (vec![0xc1], DecodeError::ReservedBits, 1002),
        (vec![0x83], DecodeError::UnknownOpcode(3), 1002),
        (vec![0x8b], DecodeError::UnknownOpcode(11), 1002),
        (vec![0x09], DecodeError::FragmentedControl, 1002),
        (vec![0x89, 0xfe], DecodeError::LongControl, 1002),
        (vec![0x80], DecodeError::UnexpectedContinuation, 1002),
        (unfinished, DecodeError::UnfinishedMessage, 1002),
        (vec![0x81, 0xfe, 0, 125], DecodeError::BadLength, 1002),
        (
            vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            DecodeError::BadLength,
            1002,
        ),
        (
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            DecodeError::BadLength,
            1002,
        ),
        (
            vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            DecodeError::TooBig,
            1009,
        ),
        (vec![0x82, 0xfe, 0x03, 0xe9], DecodeError::TooBig, 1009),
        (too_big, DecodeError::TooBig, 1009),
        (masked(0x81, b"\xff"), DecodeError::NotUtf8, 1007),
        (masked(0x01, b"a\xff"), DecodeError::NotUtf8, 1007),
        (cut, DecodeError::NotUtf8, 1007),
        (masked(0x88, b"\x03"), DecodeError::BadClose, 1002),
        (masked(0x88, b"\x03\xee"), DecodeError::BadCloseCode(1006), 1002),
        (masked(0x88, b"\x00\x00"), DecodeError::BadCloseCode(0), 1002),
        (masked(0x88, b"\x13\x88"), DecodeError::BadCloseCode(5000), 1002),
        (masked(0x88, b"\x03\xe8\xff"), DecodeError::NotUtf8, 1007),
    ] {
        assert_eq!(read([&bytes[..]]).1, Some(error), "{bytes:?}");
        assert_eq!(error.close_code(), code);
    }
}

#[test]
fn the_largest_message_passes() {
    let payload = [b'a'; MAX];
    let (messages, error) = read([&masked(0x82, &payload)[..]]);
    assert_eq!(
        (messages, error),
        (vec![Message::Binary(Bytes::copy_from_slice(&payload))], None)
    );
}

#[test]
fn a_whole_frame_is_not_copied() {
    let mut buffer = BytesMut::from(&masked(0x81, b"in place")[..]);
    let start = buffer.as_ptr().addr();
    let Ok(Step::Message(Message::Text(text))) = Decoder::new(MAX).decode(&mut buffer) else {
        panic!("no text")
    };
    assert_eq!(text.into_bytes().as_ptr().addr(), start + 6);
}

#[test]
fn server_frames_have_the_shortest_header() {
    assert_eq!(&*header(Opcode::Text, 125), [0x81, 125]);
    assert_eq!(&*header(Opcode::Binary, 126), [0x82, 126, 0, 126]);
    assert_eq!(
        &*header(Opcode::Binary, 0x1_0000),
        [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]
    );
    assert_eq!(&*close(1001, "bye"), b"\x88\x05\x03\xe9bye");
    let long = close(1008, &"€".repeat(100));
    assert_eq!((long.len(), long[1]), (2 + 2 + 123, 125));
    assert_eq!(close(1008, &format!("a{}", "€".repeat(100)))[1], 2 + 121);
}

/// Frames that are mostly right, with noise between them.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => Just(0x81u8), 2 => Just(0x82u8), 2 => Just(0x01u8), 2 => Just(0x00u8), 3 => Just(0x80u8),
        2 => Just(0x89u8), 1 => Just(0x8au8), 1 => Just(0x88u8), 1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        "\\PC{0,90}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    let part = prop_oneof![
        9 => (first, payload).prop_map(|(first, payload)| masked(first, &payload)),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn chunks_make_no_difference(bytes in stream(), cuts in proptest::collection::vec(any::<u16>(), 0..20)) {
        let whole = read([&bytes[..]]);
        prop_assert_eq!(&read(bytes.chunks(1)), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut) % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut start = 0;
        let chunks: Vec<&[u8]> = cuts.iter().map(|&cut| &bytes[std::mem::replace(&mut start, cut)..cut]).collect();
        prop_assert_eq!(&read(chunks), &whole);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(read(bytes.chunks(1)), read([&bytes[..]]));
    }

    #[test]
    fn messages_survive(payload in proptest::collection::vec(any::<u8>(), 0..MAX), parts in 1usize..9) {
        let size = payload.len().div_ceil(parts).max(1);
        let mut bytes = masked(0x02, b"");
        for part in payload.chunks(size) {
            bytes.extend(masked(0x00, part));
        }
        bytes.extend(masked(0x80, b""));
        prop_assert_eq!(read([&bytes[..]]), (vec![Message::Binary(payload.into())], None));
    }
}
