#![no_main]

use carillon_protocol::websocket::handshake::{Handshake, offered};
use libfuzzer_sys::fuzz_target;

// One header a line, as it stands in a request.
fuzz_target!(|block: &[u8]| {
    let headers = block.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    });
    match Handshake::read(headers) {
        Ok(handshake) => {
            assert_eq!(handshake.accept.len(), 28);
            for name in &handshake.subprotocols {
                // What is answered as a header must be one word.
                let again: Vec<&str> = offered(name).expect("each offer is a token").collect();
                assert_eq!(again, [name]);
            }
        }
        Err(error) => assert!(matches!(error.status(), 400 | 426)),
    }
});
