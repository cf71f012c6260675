use proptest::prelude::*;

use super::*;

const TEXT: &str = r#"
max_bytes = "64KiB"
rate = { events = 1000000, per = "1s" }
unmatched = "refuse"
rooms = [{ pattern = "case:{id}", join = "nats" }]
[[namespaces."/".on]]
event = "loop"
when = "data.list.exists(x, x == user.id)"
do = [{ reply = "data.list.map(x, {'x': x})" }]
[[namespaces."/".on]]
event = "typing"
sanitize = ["**"]
do = [{ relay = { to = "room_others", room = "case:{data.caseId}", data = "merge(data, {'userId': user.id})" } }]
[[namespaces."/".on]]
event = "join"
do = [{ join = "case:{data}" }]
[[namespaces."/".on]]
event = "any"
do = [{ join = "{data.kind}:{data.id}" }, { leave = "{data.kind}:{data.id}" }]
[[namespaces."/".on]]
event = "checked"
schema = { type = "object", additionalProperties = false, properties = { a = { type = "array", uniqueItems = true } } }
do = [{ forward = {} }]
"#;

#[test]
fn reserved_events_are_refused() {
    let forwarding = rules("unmatched = \"forward\"");
    let mut client = Client::new("7", json!({}));
    for event in [
        "$connect",
        "$disconnect",
        "$join",
        "$",
        "connect",
        "disconnect",
        "connect_error",
        "",
    ] {
        assert_eq!(
            client.emit(&forwarding, event, &[]).unwrap_err().code.as_ref(),
            "bad_event",
            "{event}"
        );
    }
    assert_eq!(
        client
            .emit(&forwarding, &"x".repeat(129), &[])
            .unwrap_err()
            .code
            .as_ref(),
        "bad_event"
    );
}

#[test]
fn the_senders_id_cannot_be_forged() {
    let rules = rules(TEXT);
    let mut client = Client::new("7", json!({})).within("case:1");
    let effects = client
        .emit(&rules, "typing", &[json!({ "caseId": 1, "userId": "8" })])
        .unwrap();
    let expected = json!(["relay", "case:1", "typing", { "caseId": 1, "userId": "7" }, "others"]);
    assert_eq!(brief(&effects), [expected]);
    let twice = Payload::One(r#"{"caseId":2,"caseId":1}"#.into());
    assert_eq!(
        client
            .emit_raw(&rules, "typing", &twice)
            .unwrap_err()
            .code
            .as_ref(),
        "bad_data"
    );
}

#[test]
fn built_rooms_still_meet_the_rules_for_joining() {
    let rules = rules(TEXT);
    let mut client = Client::new("7", json!({}));
    let effects = client
        .emit(&rules, "any", &[json!({ "kind": "user", "id": "8" })])
        .unwrap();
    let Effect::Join(room) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert!(matches!(
        client.join(&rules, room.as_str()),
        JoinDecision::Refuse(_)
    ));
    let own = json!({ "kind": "session", "id": SID });
    assert_eq!(
        client.emit(&rules, "any", &[own]).unwrap_err().code.as_ref(),
        "forbidden"
    );
    let effects = client.emit(&rules, "join", &[json!("1:../2")]).unwrap();
    let Effect::Join(room) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert!(matches!(
        client.join(&rules, room.as_str()),
        JoinDecision::Refuse(_)
    ));
}

#[test]
fn deep_and_huge_data_is_refused() {
    let rules = rules(TEXT);
    let mut client = Client::new("7", json!({})).within("case:1");
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let long = format!("{{\"list\":[{}]}}", ["1"; 1001].join(","));
    let large = format!("\"{}\"", "x".repeat(70_000));
    for event in ["loop", "typing", "join", "any", "checked"] {
        for text in [&deep, &objects, &large] {
            assert!(
                client
                    .emit_raw(&rules, event, &Payload::One(text.clone().into()))
                    .is_err(),
                "{event}"
            );
        }
    }
    assert!(
        client
            .emit_raw(&rules, "loop", &Payload::One(long.into()))
            .is_err()
    );
    let fits = json!({ "list": ["7"] });
    assert!(client.emit(&rules, "loop", &[fits]).is_ok());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("<a href=javascript:x>")),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map("caseId|kind|id|list|a|userId|.{0,4}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_event_panics(
        event in "loop|typing|join|any|checked|.{0,8}",
        args in prop::collection::vec(any_json(), 0..3),
        claims in prop::collection::hash_map("rol|a", any_json(), 0..2),
    ) {
        static RULES: LazyLock<Rules> = LazyLock::new(|| rules(TEXT));
        let claims = Value::Object(claims.into_iter().collect());
        let mut client = Client::new("7", claims).within("case:1");
        if let Ok(effects) = client.emit(&RULES, &event, &args) {
            for effect in effects {
                if let Effect::Relay { to: Target::Room(room), .. } = effect {
                    prop_assert_eq!(room.as_str(), "case:1");
                }
            }
        }
    }

    #[test]
    fn no_text_panics(event in "loop|typing|join|any|checked", text in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,60}") {
        static RULES: LazyLock<Rules> = LazyLock::new(|| rules(TEXT));
        let mut client = Client::new("7", json!({}));
        let _ = client.emit_raw(&RULES, &event, &Payload::One(text.into()));
    }
}

#[test]
fn an_event_has_one_budget_of_markup_in_however_many_arguments() {
    let rules = rules(
        r#"
        unmatched = "forward"
        sanitize = ["**"]
        sanitize_published = ["**"]
        [[namespaces."/".on]]
        event = "known"
        do = [{ forward = {} }]"#,
    );
    let mut client = Client::new("7", json!({}));
    let args = [json!("<b>".repeat(400)), json!("<i onclick=x>")];
    let text = "&lt;i onclick=x&gt;";
    for event in ["known", "other"] {
        let effects = client.emit(&rules, event, &args).unwrap();
        assert_eq!(brief(&effects)[0][2][1], text, "{event}");
    }
    let published = Payload::Many(json!(args).to_string().into());
    assert_eq!(value(&rules.published("new", &published, 0))[1], text);
}
