#![no_main]

use bytes::Bytes;
use carillon_protocol::binary::{embed, extract};
use carillon_protocol::rawjson::Arguments;
use carillon_protocol::socketio::encode::{self, Event};
use carillon_protocol::socketio::{Body, Decoder, Limits, Packet};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_attachments: 4,
    max_bytes: 1 << 16,
};

/// Returns the packet's own text; attachments stand in it as `$binary`.
fn write(packet: &Packet<'_>) -> Option<String> {
    let namespace = &*packet.namespace;
    let mut out = Vec::new();
    match &packet.body {
        Body::Event { id, name, arguments } => {
            Event {
                namespace,
                id: *id,
                name,
                arguments: arguments.text(),
                attachments: 0,
                offset: None,
            }
            .write(&mut out);
        }
        Body::Ack { id, arguments } => encode::ack(&mut out, namespace, *id, arguments.text(), 0),
        Body::Disconnect => encode::disconnect(&mut out, namespace),
        Body::Connect { .. } | Body::Excess { .. } | Body::AckExcess { .. } => return None,
    }
    Some(String::from_utf8(out).expect("packets are text"))
}

fn check_bytes(arguments: &Arguments<'_>) {
    if let Some(sent) = extract(arguments.text(), 10) {
        let again = embed(&sent.json, &sent.attachments).expect("each attachment has its placeholder");
        assert_eq!(extract(&again, 10), Some(sent));
        Arguments::from_array(&format!("[{again}]")).expect("the arguments are still JSON");
    }
}

fuzz_target!(|text: &str| {
    let mut decoder = Decoder::new(LIMITS);
    let mut packet = match decoder.text(text) {
        Ok(packet) => packet.map(Packet::into_owned),
        Err(_) => return,
    };
    for attachment in [&b""[..], b"\0", b"\xff\xfe", b"abc"] {
        if packet.is_none() {
            packet = decoder
                .binary(Bytes::from_static(attachment))
                .expect("the placeholders were checked");
        }
    }
    // More than four are awaited where they are too many to be kept; nothing of them counts but their number.
    while packet.is_none() {
        packet = decoder
            .binary(Bytes::new())
            .expect("the placeholders were checked");
    }
    let mut packet = packet.expect("all attachments have come");
    packet.query = None;
    if let Body::Event { arguments, .. } | Body::Ack { arguments, .. } = &packet.body {
        assert_eq!(
            Arguments::from_array(&arguments.to_array()).as_ref().ok(),
            Some(arguments)
        );
        check_bytes(arguments);
    }
    if let Some(written) = write(&packet) {
        assert_eq!(Decoder::new(LIMITS).text(&written), Ok(Some(packet)));
    }
});
