#![no_main]

use carillon_protocol::engineio::{Packet, Query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Query::read(text);
    if let Ok(packet) = Packet::from_text(text) {
        let mut out = Vec::new();
        packet.write_polling(&mut out);
        assert_eq!(out, text.as_bytes());
    }
});
