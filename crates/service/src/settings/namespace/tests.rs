use super::*;
use crate::config::{self, Source};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    namespaces: Namespaces,
}

fn read(text: &str) -> Result<Namespace, String> {
    let text = format!("[namespaces.\"/\"]\n{text}");
    let loaded = config::load::<Root>(&Source::default().text("rules.toml", text));
    match loaded {
        Ok(mut loaded) => Ok(loaded.value.namespaces.remove("/").unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_empty_section_is_the_default() {
    let namespace = read("").unwrap();
    assert_eq!(namespace, Namespace::default());
    assert_eq!(
        (namespace.rate.events, namespace.rate.per),
        (100, Duration::from_secs(10))
    );
    assert!(namespace.recovery && !namespace.anonymous);
    assert_eq!(namespace.unmatched, Unmatched::Refuse);
}

#[test]
fn tables_may_be_written_short() {
    let namespace = read(
        r#"
        auto_join = ["temperature", { room = "admin:all", when = "user.role == 'admin'" }]
        rooms = [{ pattern = "a:{id}", join = "nats" }, { pattern = "b", join = "true", history = false }]
        [[namespaces."/".on]]
        event = "one"
        do = [{ join = "{data}" }, { forward = "one" }, { reply = "data" }]
        [[namespaces."/".on]]
        event = ["two", "three"]
        schema = { type = "object" }
        max_bytes = "1KiB"
        rate = { events = 5 }
        do = [
            { forward = { data = "data.x" } },
            { reply = { data = "1", event = "done" } },
            { relay = { to = "room_others", room = "a:{data}" } },
        ]
        "#,
    )
    .unwrap();
    assert_eq!(namespace.auto_join[0], AutoJoin::from("temperature".to_owned()));
    assert_eq!(
        namespace.auto_join[1].when.as_deref(),
        Some("user.role == 'admin'")
    );
    assert_eq!(namespace.rooms[0].join, Some(JoinPolicy::Ask));
    assert_eq!(namespace.rooms[1].join, Some(JoinPolicy::When("true".to_owned())));
    assert!(namespace.rooms[0].history && !namespace.rooms[1].history);
    let [one, two] = &namespace.on[..] else {
        panic!("{:?}", namespace.on)
    };
    assert_eq!(one.actions[1], Action::Forward(Forward::from("one".to_owned())));
    assert_eq!(two.events, ["two", "three"]);
    assert_eq!(
        (two.max_bytes, two.rate.as_ref().unwrap().events),
        (Some(1024), 5)
    );
    let Action::Relay(relay) = &two.actions[2] else {
        panic!("{:?}", two.actions)
    };
    assert!(relay.members_only && !relay.durable && relay.to == Target::RoomOthers);
}

#[test]
fn mistakes_name_the_line_and_the_key() {
    for (text, expected) in [
        ("anonimous = true", "anonimous"),
        ("auto_join = [7]", "auto_join"),
        ("rate = { events = -1 }", "rate.events"),
        ("overflow = \"explode\"", "overflow"),
        ("[[namespaces.\"/\".rooms]]\njoin = \"true\"", "pattern"),
        (
            "[[namespaces.\"/\".rooms]]\npattern = \"a\"\npresence = { joined = 1 }",
            "presence.joined",
        ),
        ("[[namespaces.\"/\".on]]\ndo = []", "event"),
        ("[[namespaces.\"/\".on]]\nevent = 1", "event"),
        (
            "[[namespaces.\"/\".on]]\nevent = \"a\"\ndo = [{ jion = \"b\" }]",
            "jion",
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = \"a\"\ndo = [{ forward = { evnt = \"b\" } }]",
            "evnt",
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = \"a\"\ndo = [{ relay = { to = \"moon\" } }]",
            "relay.to",
        ),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.starts_with("rules.toml:"), "{message}");
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn the_open_namespace_lets_everything_through() {
    let open = Namespace::open();
    assert_eq!(open.unmatched, Unmatched::Forward);
    assert!(open.rooms[0].history);
}
