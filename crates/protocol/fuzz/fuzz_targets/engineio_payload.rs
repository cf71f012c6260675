#![no_main]

use carillon_protocol::engineio::{Limits, Writer, decode};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_bytes: 4096,
    max_packets: 32,
};

fuzz_target!(|body: &[u8]| {
    let Ok(packets) = decode(body, LIMITS) else { return };
    let mut writer = Writer::default();
    for packet in &packets {
        writer.packet(packet);
    }
    assert_eq!(writer.finish(), body);
});
