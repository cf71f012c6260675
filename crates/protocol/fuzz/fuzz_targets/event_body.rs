#![no_main]

use carillon_protocol::binary::extract;
use carillon_protocol::event::{Draft, Event};
use carillon_protocol::rawjson::check_depth;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

// What teams publish on `rt.pub` and `rt.signal`, CloudEvents too.
fuzz_target!(|body: &[u8]| {
    let draft = match Draft::read(body, 7) {
        Ok(draft) => draft,
        Err(bad) => {
            assert!(bad.to_string().starts_with(bad.code()));
            return;
        }
    };
    assert!(!draft.event.name.is_empty() && draft.ttl != Some(0));
    // It is stored as headers and a body, and read from there.
    let headers = draft.event.headers();
    for (_, value) in headers.iter() {
        assert!(!value.bytes().any(|byte| byte < b' '), "a header is one line");
    }
    let payload = draft.event.payload.json().clone();
    let stored = Event::from_message(|name| headers.get(name), payload);
    assert_eq!(stored.as_ref(), Some(&draft.event));
    // It leaves as the arguments of a packet.
    let arguments = draft.event.payload.arguments();
    assert!(check_depth(draft.event.payload.text()).is_ok());
    check_array(arguments);
    if let Some(sent) = extract(arguments, 8) {
        check_array(&sent.json);
    }
});

fn check_array(arguments: &str) {
    serde_json::from_str::<Vec<&RawValue>>(&format!("[{arguments}]")).expect("the arguments are JSON");
}
