#![no_main]

use bytes::BytesMut;
use carillon_protocol::websocket::{DecodeError, Decoder, Message, Step};
use libfuzzer_sys::fuzz_target;

const MAX_MESSAGE: usize = 512;

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<DecodeError>) {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Step::Message(message)) => messages.push(message),
                Ok(Step::Need(bytes)) => {
                    assert!((1..=MAX_MESSAGE + 14).contains(&bytes));
                    break;
                }
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

// The first byte says how the rest is cut.
fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(std::iter::once(bytes));
    assert_eq!(read(bytes.chunks(usize::from(size).max(1))), whole);
    assert_eq!(read(bytes.chunks(1)), whole);
    for message in &whole.0 {
        if let Message::Text(text) = message {
            assert!(text.as_str().len() <= MAX_MESSAGE);
        }
    }
});
