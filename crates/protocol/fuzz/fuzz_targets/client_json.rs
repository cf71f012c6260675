#![no_main]

use carillon_protocol::clientjson::encode::{self, Event};
use carillon_protocol::clientjson::{Message, parse};
use carillon_protocol::rawjson::{Arguments, check_depth};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(Message::Emit { event, arguments, id }) => {
            assert_eq!(
                Arguments::from_array(&arguments.to_array()).as_ref().ok(),
                Some(&arguments)
            );
            let payload = arguments.to_payload();
            let frame = Event {
                topic: &event,
                time: 0,
                name: &event,
                id: None,
                payload: &payload,
                ask: id,
                offset: None,
            }
            .encode();
            let frame = String::from_utf8(frame).expect("an event is text");
            // A delivered event is an object too, only without a type.
            assert_eq!(
                parse(&frame).expect_err("no type").problem.code(),
                "missing_field"
            );
        }
        Ok(_) => assert!(check_depth(text).is_ok()),
        Err(bad) => {
            let mut out = Vec::new();
            let message = bad.to_string();
            encode::Error {
                code: bad.problem.code(),
                message: &message,
                topic: bad.topic.as_deref(),
                id: bad.id,
                ..Default::default()
            }
            .write(&mut out);
            assert_eq!(out.last(), Some(&b'}'));
        }
    }
});
