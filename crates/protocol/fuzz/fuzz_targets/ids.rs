#![no_main]

use carillon_protocol::ids::{EdgeId, EngineId, Sid};
use carillon_protocol::message;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(offset) = text.parse::<Offset>() {
        assert_eq!(offset.to_string(), text);
    }
    if let Ok(sid) = text.parse::<Sid>() {
        assert_eq!(sid.as_str(), text);
    }
    if let Ok(id) = text.parse::<EngineId>() {
        assert_eq!(id.as_str(), text);
        assert_eq!(id.edge().as_str().parse::<EdgeId>(), Ok(id.edge()));
    }
    if let Ok(request) = serde_json::from_str::<message::Engine>(text) {
        let written = serde_json::to_string(&request).expect("a request is JSON");
        assert_eq!(
            serde_json::from_str::<message::Engine>(&written).ok(),
            Some(request)
        );
    }
    if let Ok(record) = serde_json::from_str::<Record>(text) {
        let written = serde_json::to_string(&record).expect("a record is JSON");
        let again = serde_json::from_str::<Record>(&written).expect("a record is read again");
        assert_eq!(serde_json::to_string(&again).expect("a record is JSON"), written);
    }
});
