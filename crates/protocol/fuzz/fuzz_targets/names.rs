#![no_main]

use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::pattern::Pattern;
use carillon_protocol::subject::Subjects;
use carillon_protocol::token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A name has exactly one token, and a token is one word of a subject.
    let encoded = token::encode(text);
    assert!(
        !encoded
            .bytes()
            .any(|byte| byte <= b' ' || byte >= 0x7f || b".*>".contains(&byte))
    );
    assert_eq!(token::decode(&encoded).as_deref(), Ok(text));
    if let Ok(name) = token::decode(text) {
        assert_eq!(token::encode(&name), text);
    }
    if let Ok(room) = Room::new(text) {
        assert_eq!(Room::from_token(&room.token()), Ok(room));
    }
    if let Ok(namespace) = Namespace::new(text) {
        assert_eq!(Namespace::from_token(&namespace.token()), Ok(namespace));
    }

    let subjects = Subjects::new("rt");
    if let Ok(address) = subjects.read("pub", text) {
        assert_eq!(subjects.publish(&address.namespace, &address.room), text);
    }
    if let Ok(address) = subjects.read_classed("event", text) {
        assert_eq!(subjects.event(&address.namespace, &address.room), text);
    }

    // What stands in a parameter put back into the pattern is the room.
    let (pattern, room) = text.split_once('\n').unwrap_or(("classroom:{id}/{part}", text));
    if let Ok(pattern) = Pattern::new(pattern)
        && let Some(values) = pattern.parse(room)
    {
        let mut again = pattern.text().to_owned();
        for (name, value) in values.iter().rev() {
            assert!(!value.is_empty());
            let at = again.rfind('{').expect("each value has its parameter");
            let end = at + again[at..].find('}').expect("a parameter is closed");
            assert!(again[at..end].starts_with(&format!("{{{name}")));
            again.replace_range(at..=end, &value.replace(['{', '}'], "|"));
        }
        assert_eq!(again, room_without_braces(pattern.head(), room));
    }
});

/// A value's braces would be taken for a parameter.
fn room_without_braces(head: &str, room: &str) -> String {
    format!("{head}{}", room[head.len()..].replace(['{', '}'], "|"))
}
