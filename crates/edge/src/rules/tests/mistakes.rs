use super::*;

fn mistakes(text: &str) -> Vec<String> {
    match Rules::compile("/", &namespace(text)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_kind_of_mistake_is_named() {
    let on = |rule: &str| format!("[[namespaces.\"/\".on]]\nevent = \"e\"\n{rule}");
    for (text, expected) in [
        (
            "rate = { events = 0 }".to_owned(),
            "namespaces.\"/\".rate: expected at least one event",
        ),
        ("rate = { per = 0 }".to_owned(), "rate: expected a period"),
        ("max_bytes = 0".to_owned(), ".max_bytes: expected a size"),
        ("sanitize = [\"a..b\"]".to_owned(), ".sanitize: expected a field"),
        (
            "sanitize_published = [\"\"]".to_owned(),
            ".sanitize_published: expected a field",
        ),
        ("stream = \"a.b\"".to_owned(), ".stream: expected letters"),
        (
            "error_event = \"$x\"".to_owned(),
            ".error_event: \"$x\" is a reserved name",
        ),
        ("ack_timeout = 0".to_owned(), ".ack_timeout: expected a time"),
        ("authz_timeout = 0".to_owned(), ".authz_timeout: expected a time"),
        (
            "connect = { ask = true, timeout = 0 }".to_owned(),
            ".connect.timeout: expected a time",
        ),
        (
            "heartbeat = { event = \"$ping\" }".to_owned(),
            ".heartbeat.event: \"$ping\"",
        ),
        (
            "heartbeat = { timeout = 0 }".to_owned(),
            ".heartbeat.timeout: expected a time",
        ),
        (
            "heartbeat = { answer = \"e\" }\n".to_owned() + &on(""),
            ".heartbeat.answer: there is a rule",
        ),
        (
            "auto_join = [\"a:{data.x}\"]".to_owned(),
            ".auto_join[0].room: \"data\" is not known here; expected one of user",
        ),
        (
            "auto_join = [\"a\", { room = \"b\", when = \"usr.x\" }]".to_owned(),
            ".auto_join[1].when: \"usr\" is not",
        ),
        (
            "auto_join = [{ room = \"b\", each = \"each\" }]".to_owned(),
            ".auto_join[0].each: \"each\" is not known",
        ),
        (
            "auto_join = [\"user:{user.claims.boss}\"]".to_owned(),
            "entered by their owner alone",
        ),
        (
            "auto_join = [\"a:{user.id\"]".to_owned(),
            ".auto_join[0].room: expected a closing }",
        ),
        (
            "auto_join = [\"\"]".to_owned(),
            ".auto_join[0].room: expected a room",
        ),
        (
            "rooms = [{ pattern = \"a:{\" }]".to_owned(),
            ".rooms[0].pattern: expected a closing }",
        ),
        (
            "rooms = [{ pattern = \"a\", join = \"data.x\" }]".to_owned(),
            ".rooms[0].join: \"data\" is not known here",
        ),
        (
            "rooms = [{ pattern = \"a\", join = \"(\" }]".to_owned(),
            ".rooms[0].join: no valid expression, at 1:",
        ),
        (
            "rooms = [{ pattern = \"a\" }, { pattern = \"a\" }]".to_owned(),
            ".rooms[1].pattern: the pattern \"a\" stands above",
        ),
        (
            "rooms = [{ pattern = \"a\", presence = { joined = \"\" } }]".to_owned(),
            ".rooms[0].presence.joined: an event name",
        ),
        (
            "welcome = [{ event = \"a\", data = \"data\" }]".to_owned(),
            ".welcome[0].data: \"data\" is not known",
        ),
        (
            "welcome = [{ event = \"disconnect\" }]".to_owned(),
            ".welcome[0].event: \"disconnect\" is a reserved",
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = []".to_owned(),
            ".on[0].event: expected the name",
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = \"$connect\"".to_owned(),
            ".on[0].event: \"$connect\" is a reserved",
        ),
        (on("when = \"1 +\""), ".on[0].when: no valid expression"),
        (on("max_bytes = 0"), ".on[0].max_bytes: expected a size"),
        (on("rate = { events = 0 }"), ".on[0].rate: expected at least one"),
        (
            on("schema = { type = \"objekt\" }"),
            ".on[0].schema: no valid schema",
        ),
        (on("schema = \"{\""), ".on[0].schema: the schema is no json"),
        (
            on("sanitize = [\"**.x\"]"),
            ".on[0].sanitize: ** may only come last",
        ),
        (
            on("do = [{ join = \"{x}\" }]"),
            ".on[0].do[0].join: \"x\" is not known",
        ),
        (
            on("do = [{ leave = \"\" }]"),
            ".on[0].do[0].leave: expected a room",
        ),
        (
            on("do = [{ relay = { to = \"room\" } }]"),
            ".on[0].do[0].relay: expected a room",
        ),
        (
            on("do = [{ relay = { to = \"others\", room = \"a\" } }]"),
            ".on[0].do[0].relay.room: there is a room",
        ),
        (
            on("do = [{ relay = { to = \"others\", event = \"connect\" } }]"),
            ".relay.event: \"connect\" is a reserved",
        ),
        (
            on("do = [{ relay = { to = \"others\", data = \"}\" } }]"),
            ".relay.data: no valid expression",
        ),
        (
            on("do = [{ forward = \"$up\" }]"),
            ".on[0].do[0].forward.event: \"$up\" is a reserved",
        ),
        (
            on("do = [{ forward = {} }, { forward = \"b\" }]"),
            ".on[0].do: several forwards",
        ),
        (
            on("do = [{ reply = \"1\" }, { reply = \"2\" }]"),
            ".on[0].do: an event is acknowledged once",
        ),
        (
            on("do = [{ reply = \"f(1)\" }]"),
            ".on[0].do[0].reply.data: the function \"f\" is not known",
        ),
        (
            on("do = [{ emit = { event = \"a\", when = \"b\" } }]"),
            ".on[0].do[0].emit.when: \"b\" is not known",
        ),
    ] {
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with("namespaces.\"/\""), "{found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "max_bytes = 0\nauto_join = [\"{x}\"]\nrooms = [{ pattern = \"\" }, { pattern = \"a\", join = \"b\" }]";
    assert_eq!(mistakes(text).len(), 4);
}

#[test]
fn paths_lead_to_the_setting() {
    let text = "[[namespaces.\"/\".on]]\nevent = \"e\"\n[[namespaces.\"/\".on]]\nevent = \"f\"\nwhen = \"x\"";
    let errors = Rules::compile("/", &namespace(text)).unwrap_err();
    assert_eq!(errors[0].full_path(), ["namespaces", "/", "on", "1", "when"]);
}
