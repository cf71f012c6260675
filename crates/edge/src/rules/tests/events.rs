use std::time::Duration;

use super::*;

#[test]
fn steps_come_in_the_order_of_the_rule() {
    let rules = rules(
        r#"
        [[namespaces."/".on]]
        event = "go"
        do = [
            { join = "case:{data.id}" },
            { relay = { to = "room_others", room = "case:{data.id}", event = "came", data = "{'who': user.id}" } },
            { relay = { to = "everyone", durable = true } },
            { relay = { to = "others", event = "seen" } },
            { relay = { to = "sender", event = "mine" } },
            { relay = { to = "sender", event = "kept", durable = true } },
            { emit = { event = "hello" } },
            { emit = { event = "never", when = "data.id == 0" } },
            { forward = {} },
            { leave = "old:{session.id}" },
            { reply = { data = "{'ok': true, 'at': now}", event = "done" } },
        ]"#,
    );
    let mut client = Client::new("7", json!({}));
    let effects = client.emit(&rules, "go", &[json!({ "id": 5 })]).unwrap();
    let expected = [
        json!(["join", "case:5"]),
        json!(["relay", "case:5", "came", { "who": "7" }, "others"]),
        json!(["relay", "everyone", "go", { "id": 5 }, "durable"]),
        json!(["relay", "everyone", "seen", { "id": 5 }, "others"]),
        json!(["emit", "mine", { "id": 5 }]),
        json!(["relay", format!("session:{SID}"), "kept", { "id": 5 }, "durable"]),
        json!(["emit", "hello", []]),
        json!(["forward", "go", { "id": 5 }, false]),
        json!(["leave", format!("old:{SID}")]),
        json!(["reply", { "ok": true, "at": "2026-01-31T12:00:00.007Z" }, "done"]),
    ];
    assert_eq!(brief(&effects), expected);
}

#[test]
fn arguments_pass_as_they_came() {
    let rules = rules(
        r#"
        [[namespaces."/".on]]
        event = "raw"
        do = [{ forward = "renamed" }]
        [[namespaces."/".on]]
        event = "read"
        when = "args.size() >= 0"
        do = [{ forward = {} }]"#,
    );
    let mut client = Client::new("7", json!({}));
    for text in ["1.0", "12345678901234567890123", "{\"b\":1,\"a\":1e2}"] {
        let payload = Payload::One(text.into());
        for (event, name) in [("raw", "renamed"), ("read", "read")] {
            let effects = client.emit_raw(&rules, event, &payload).unwrap();
            let expected = Effect::Forward {
                event: name.into(),
                payload: payload.clone(),
                awaited: true,
            };
            assert_eq!(effects, [expected]);
        }
    }
    for args in [vec![], vec![json!(1), json!(2)]] {
        assert_eq!(
            brief(&client.emit(&rules, "read", &args).unwrap()),
            [json!(["forward", "read", args, true])]
        );
    }
}

#[test]
fn conditions_choose_the_rule() {
    let rules = rules(
        r#"
        error_message = "No"
        [[namespaces."/".on]]
        event = ["a", "b"]
        when = "user.role == 'admin'"
        do = [{ reply = "'first'" }]
        [[namespaces."/".on]]
        event = "a"
        when = "data.open == true"
        message = "Closed"
        do = [{ reply = "'second'" }]"#,
    );
    let mut admin = Client::new("1", json!({ "role": "admin" }));
    let mut other = Client::new("2", json!({}));
    assert_eq!(
        brief(&admin.emit(&rules, "a", &[json!(1)]).unwrap()),
        [json!(["reply", "first", null])]
    );
    let open = json!({ "open": true });
    assert_eq!(
        brief(&other.emit(&rules, "a", &[open]).unwrap()),
        [json!(["reply", "second", null])]
    );
    assert_eq!(
        other.emit(&rules, "a", &[json!({})]),
        Err(refused("forbidden", "Closed"))
    );
    assert_eq!(other.emit(&rules, "b", &[]), Err(refused("forbidden", "No")));
}

#[test]
fn events_without_a_rule_are_refused_or_forwarded() {
    let mut client = Client::new("7", json!({}));
    let refusing = rules("");
    assert_eq!(
        client.emit(&refusing, "x", &[]).unwrap_err().code.as_ref(),
        "unknown_event"
    );
    let forwarding = rules("unmatched = \"forward\"\nsanitize = [\"text\"]");
    let effects = client
        .emit(&forwarding, "x", &[json!({ "text": "<script>1</script>a" })])
        .unwrap();
    assert_eq!(brief(&effects), [json!(["forward", "x", { "text": "a" }, true])]);
}

#[test]
fn schema_size_and_html_are_checked() {
    let rules = rules(
        r#"
        max_bytes = 200
        error_code = "WS_ERROR"
        error_message = "Error"
        [[namespaces."/".on]]
        event = "message"
        max_bytes = 100
        message = "Invalid message"
        schema = { type = "object", required = ["text"], properties = { text = { type = "string", maxLength = 40 } } }
        sanitize = ["text"]
        do = [{ relay = { to = "others" } }]
        [[namespaces."/".on]]
        event = "other"
        do = []"#,
    );
    let mut client = Client::new("7", json!({}));
    let effects = client
        .emit(&rules, "message", &[json!({ "text": "<b onclick=x>a</b>" })])
        .unwrap();
    assert_eq!(
        brief(&effects),
        [json!(["relay", "everyone", "message", { "text": "<b>a</b>" }, "others"])]
    );
    for bad in [
        json!({}),
        json!({ "text": 1 }),
        json!("text"),
        json!({ "text": "x".repeat(41) }),
        json!(null),
    ] {
        let refusal = client.emit(&rules, "message", &[bad]);
        assert_eq!(refusal, Err(refused("WS_ERROR", "Invalid message")));
    }
    let two = [json!({ "text": "a" }), json!({ "text": "b" })];
    assert!(
        client.emit(&rules, "message", &two).is_err(),
        "a second argument is not let through unread"
    );
    let large = json!({ "text": "x".repeat(150) });
    assert_eq!(
        client
            .emit(&rules, "message", &[large])
            .unwrap_err()
            .code
            .as_ref(),
        "WS_ERROR"
    );
    let larger = json!("x".repeat(200));
    assert_eq!(
        client.emit(&rules, "other", &[larger]),
        Err(refused("too_large", "Error"))
    );
    assert_eq!(client.emit(&rules, "other", &[json!("x")]), Ok(vec![]));
}

#[test]
fn only_members_send_to_a_room() {
    let rules = rules(
        r#"
        [[namespaces."/".on]]
        event = "say"
        do = [{ relay = { to = "room_others", room = "case:{data}" } }]
        [[namespaces."/".on]]
        event = "tell"
        when = "user.role == 'support'"
        do = [{ relay = { to = "room", room = "user:{data}", members_only = false } }]"#,
    );
    let mut member = Client::new("7", json!({})).within("case:1");
    assert_eq!(
        brief(&member.emit(&rules, "say", &[json!(1)]).unwrap()),
        [json!(["relay", "case:1", "say", 1, "others"])]
    );
    for bad in [json!(2), json!("1:x")] {
        assert_eq!(
            member.emit(&rules, "say", &[bad]).unwrap_err().code.as_ref(),
            "forbidden"
        );
    }
    for bad in [
        json!(null),
        json!(1.5),
        json!(true),
        json!([1]),
        json!({}),
        json!(""),
    ] {
        let refusal = member.emit(&rules, "say", &[bad]).unwrap_err();
        assert_eq!(
            (refusal.code.as_ref(), refusal.message.contains("undefined")),
            ("bad_data", false)
        );
    }
    assert!(member.emit(&rules, "tell", &[json!(8)]).is_err());
    let mut support = Client::new("9", json!({ "role": "support" }));
    assert_eq!(
        brief(&support.emit(&rules, "tell", &[json!(8)]).unwrap()),
        [json!(["relay", "user:8", "tell", 8, ""])]
    );
}

#[test]
fn a_rule_whose_condition_does_not_hold_disturbs_no_other() {
    let rules = rules(
        r#"
        rate = { events = 8, per = "1s" }
        [[namespaces."/".on]]
        event = "e"
        when = "user.role == 'guest'"
        rate = { events = 1, per = "1s" }
        max_bytes = 5
        schema = { type = "string" }
        do = [{ reply = "'guest'" }]
        [[namespaces."/".on]]
        event = "e"
        when = "has(data.id)"
        rate = { events = 3, per = "1s", code = "second" }
        do = [{ reply = "'other'" }]"#,
    );
    let mut client = Client::new("7", json!({}));
    let data = [json!({ "id": 123_456 })];
    for _ in 0..3 {
        assert_eq!(
            brief(&client.emit(&rules, "e", &data).unwrap()),
            [json!(["reply", "other", null])]
        );
    }
    let refusal = client.emit(&rules, "e", &data).unwrap_err();
    assert_eq!(&*refusal.code, "second");
    for code in ["forbidden", "forbidden", "forbidden", "forbidden", "rate_limited"] {
        let refusal = client.emit(&rules, "e", &[json!({})]).unwrap_err();
        assert_eq!(&*refusal.code, code, "the connection's limit counts every event");
    }

    let mut guest = Client::new("8", json!({ "role": "guest" }));
    assert_eq!(
        &*guest.emit(&rules, "e", &[json!("123456")]).unwrap_err().code,
        "too_large"
    );
    assert_eq!(
        &*guest.emit(&rules, "e", &[json!(1)]).unwrap_err().code,
        "rate_limited",
        "an event that is refused for its size counts"
    );
    guest.now += Duration::from_secs(1);
    assert_eq!(
        &*guest.emit(&rules, "e", &[json!(1)]).unwrap_err().code,
        "bad_data"
    );
}

#[test]
fn rates_hold_per_connection_and_per_event() {
    let rules = rules(
        r#"
        rate = { events = 10, per = "1s", message = "Rate limit exceeded" }
        [[namespaces."/".on]]
        event = "rare"
        rate = { events = 2, per = "1s", code = "slow_down" }
        [[namespaces."/".on]]
        event = "any""#,
    );
    let mut client = Client::new("7", json!({}));
    for _ in 0..2 {
        assert_eq!(client.emit(&rules, "rare", &[]), Ok(vec![]));
    }
    assert_eq!(
        client.emit(&rules, "rare", &[]),
        Err(refused("slow_down", "too many events"))
    );
    for _ in 0..7 {
        assert_eq!(client.emit(&rules, "any", &[]), Ok(vec![]));
    }
    let limited = refused("rate_limited", "Rate limit exceeded");
    for _ in 0..90 {
        assert_eq!(client.emit(&rules, "any", &[]), Err(limited.clone()));
    }
    assert_eq!(
        client.emit(&rules, "any", &[]),
        Err(Refusal {
            abuse: true,
            ..limited.clone()
        })
    );
    client.now += Duration::from_millis(100);
    assert_eq!(client.emit(&rules, "any", &[]), Ok(vec![]));
    assert_eq!(client.emit(&rules, "any", &[]), Err(limited));
    client.now += Duration::from_millis(400);
    assert_eq!(client.emit(&rules, "rare", &[]), Ok(vec![]));
}

#[test]
fn a_reload_keeps_the_count_of_the_connection() {
    let text = "rate = { events = 2, per = \"1s\" }\n[[namespaces.\"/\".on]]\nevent = \"e\"";
    let (before, after) = (rules(text), rules(text));
    let mut client = Client::new("7", json!({}));
    assert!(client.emit(&before, "e", &[]).is_ok());
    assert!(client.emit(&after, "e", &[]).is_ok());
    assert!(client.emit(&after, "e", &[]).is_err());
}

#[test]
fn the_heartbeat_is_answered_without_a_rule() {
    let rules_on = rules("heartbeat = { every = \"25s\" }");
    let mut client = Client::new("7", json!({}));
    assert_eq!(client.emit(&rules_on, "pong", &[]), Ok(vec![Effect::Alive]));
    assert_eq!(rules_on.heartbeat().unwrap().event, "ping");
    let off = rules("heartbeat = { every = 0 }");
    assert!(off.heartbeat().is_none());
    assert!(client.emit(&off, "pong", &[]).is_err());
}

#[test]
fn a_connection_begins_with_its_events() {
    let rules = rules(
        r#"welcome = [
            { event = "authenticated", data = "{'userId': user.id}" },
            { event = "email", data = "user.claims.email" },
            { event = "admin", when = "user.role == 'admin'" },
        ]"#,
    );
    let client = Client::new("7", json!({}));
    let welcome = rules.welcome(&client.context());
    assert_eq!(welcome.len(), 1, "what cannot be built is left out");
    assert_eq!(
        (&*welcome[0].event, value(&welcome[0].payload)),
        ("authenticated", json!({ "userId": "7" }))
    );
    let anonymous = Client::anonymous();
    let welcome = rules.welcome(&anonymous.context());
    assert_eq!(value(&welcome[0].payload), json!({ "userId": null }));
}

#[test]
fn published_events_get_the_envelope() {
    let rules = rules(
        r#"
        envelope = true
        sanitize_published = ["html"]
        [[namespaces."/".on]]
        event = "typing"
        do = [{ relay = { to = "others" } }]"#,
    );
    let data = Payload::One(r#"{"html":"<b>x</b><script>1</script>","n":1}"#.into());
    let sent = value(&rules.published("new", &data, 0));
    let expected = json!({ "event": "new", "data": { "html": "<b>x</b>", "n": 1 }, "timestamp": "1970-01-01T00:00:00.000Z" });
    assert_eq!(sent, expected);
    assert_eq!(
        value(&rules.published("a\"b", &Payload::NONE, 0))["data"],
        Value::Null
    );
    assert_eq!(
        value(&rules.published("a\"b", &Payload::NONE, 0))["event"],
        "a\"b"
    );
    assert_eq!(
        value(&rules.published("new", &Payload::Many("[1,2]".into()), 0))["data"],
        json!([1, 2])
    );
    assert_eq!(
        value(&rules.published("typing", &Payload::One("1".into()), 0)),
        json!(1)
    );
}
