#![no_main]

use bytes::Bytes;
use carillon_protocol::event::Event;
use carillon_protocol::headers::{Fields, lines};
use libfuzzer_sys::fuzz_target;

// A NATS message as it arrives: the raw header block, an empty line, the body.
fuzz_target!(|message: &[u8]| {
    let split = message.windows(4).position(|end| end == b"\r\n\r\n");
    let (block, body) = message.split_at(split.map_or(message.len(), |at| at + 4));
    let fields = Fields::read(block);
    for (name, _) in lines(block) {
        if let Ok(name) = std::str::from_utf8(name) {
            let first = lines(block).find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
            let value = first.and_then(|(_, value)| std::str::from_utf8(value).ok());
            assert_eq!(fields.get(name), value);
        }
    }
    if let Some(event) = Event::from_message(|name| fields.get(name), Bytes::copy_from_slice(body)) {
        let headers = event.headers();
        let again = Event::from_message(|name| headers.get(name), event.payload.json().clone());
        assert_eq!(again, Some(event));
    }
});
