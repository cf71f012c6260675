use super::*;

#[test]
fn the_token_opens_rooms() {
    let rules = rules(
        r#"auto_join = [
            "lobby",
            "user:{user.id}",
            { room = "admin:all", when = "user.role == 'admin'" },
            { room = "team:{user.claims.team}" },
            { room = "classroom:{each}", each = "user.claims.classrooms" },
            { room = "grade:{each.id}", each = "user.claims.grades", when = "each.active" },
        ]"#,
    );
    let plain = Client::new("7", json!({}));
    assert_eq!(plain.automatic(&rules), ["lobby"]);
    let claims = json!({
        "role": "admin", "team": 12, "classrooms": ["a", 3, null, {}, "a"],
        "grades": [{ "id": "x", "active": true }, { "id": "y", "active": false }, { "id": "z" }],
    });
    let rich = Client::new("7", claims);
    let expected = [
        "lobby",
        "admin:all",
        "team:12",
        "classroom:a",
        "classroom:3",
        "grade:x",
    ];
    assert_eq!(rich.automatic(&rules), expected);
    for team in [
        json!(null),
        json!(1.5),
        json!(true),
        json!([]),
        json!(""),
        json!("x".repeat(300)),
    ] {
        let odd = Client::new("7", json!({ "team": team, "classrooms": "a" }));
        assert_eq!(odd.automatic(&rules), ["lobby"], "{team}");
    }
    assert_eq!(Client::anonymous().automatic(&rules), ["lobby"]);
}

#[test]
fn a_token_opens_a_thousand_rooms_at_most() {
    let rules = rules(r#"auto_join = [{ room = "r:{each}", each = "user.claims.list" }]"#);
    let many = Client::new("7", json!({ "list": (0..5000).collect::<Vec<_>>() }));
    assert_eq!(many.automatic(&rules).len(), 1000);
}

#[test]
fn the_first_pattern_decides_and_none_is_a_refusal() {
    let rules = rules(
        r#"
        auto_join = [{ room = "teacher:{user.id}", when = "user.role == 'teacher'" }]
        rooms = [
            { pattern = "admin", join = "user.role == 'admin'", code = "nope", message = "Solo administradores" },
            { pattern = "case:{id}", join = "nats", message = "No autorizado" },
            { pattern = "class:{id}", join = "room.id in user.claims.classes" },
            { pattern = "closed:{id}" },
            { pattern = "deep/{path*}", join = "room.path.startsWith('a/') && room.name == 'deep/' + room.path" },
            { pattern = "class:{id*}", join = "true" },
        ]"#,
    );
    let client = Client::new("7", json!({ "classes": ["a"] }));
    let forbidden = |message: &str| JoinDecision::Refuse(refused("forbidden", message));
    let default = "not allowed to join this room";
    let solo = refused("nope", "Solo administradores");
    assert_eq!(client.join(&rules, "admin"), JoinDecision::Refuse(solo));
    assert_eq!(
        Client::new("1", json!({ "role": "admin" })).join(&rules, "admin"),
        JoinDecision::Allow
    );
    assert_eq!(
        client.join(&rules, "case:9"),
        JoinDecision::Ask(refused("forbidden", "No autorizado"))
    );
    assert_eq!(client.join(&rules, "case:9:admin"), forbidden(default));
    assert_eq!(client.join(&rules, "class:a"), JoinDecision::Allow);
    assert_eq!(client.join(&rules, "class:b"), forbidden(default));
    assert_eq!(client.join(&rules, "class:b:c"), JoinDecision::Allow);
    assert_eq!(
        Client::anonymous().join(&rules, "class:a"),
        forbidden(default),
        "a failed condition is no"
    );
    assert_eq!(client.join(&rules, "closed:1"), forbidden(default));
    assert_eq!(client.join(&rules, "deep/a/b"), JoinDecision::Allow);
    assert_eq!(client.join(&rules, "deep/b"), forbidden(default));
    assert_eq!(client.join(&rules, "elsewhere"), forbidden(default));
    assert_eq!(client.join(&rules, "all"), JoinDecision::Allow);
    assert_eq!(client.join(&rules, "teacher:7"), forbidden(default));
    assert_eq!(
        Client::new("7", json!({ "role": "teacher" })).join(&rules, "teacher:7"),
        JoinDecision::Allow
    );
    assert_eq!(
        Client::new("7", json!({ "role": "teacher" })).join(&rules, "teacher:8"),
        forbidden(default)
    );
}

#[test]
fn personal_rooms_are_their_owners_whatever_a_rule_says() {
    let rules = rules(r#"rooms = [{ pattern = "{room*}", join = "true", message = "No" }]"#);
    let client = Client::new("7", json!({}));
    assert_eq!(client.join(&rules, "anything"), JoinDecision::Allow);
    assert_eq!(client.join(&rules, "user:7"), JoinDecision::Allow);
    assert_eq!(
        client.join(&rules, &format!("session:{SID}")),
        JoinDecision::Allow
    );
    for room in ["user:8", "user:", "user:7 ", "session:other", "session:"] {
        assert_eq!(
            client.join(&rules, room),
            JoinDecision::Refuse(refused("forbidden", "No")),
            "{room}"
        );
    }
    for room in ["user:", "user:null", "user:undefined", "user:7"] {
        assert!(
            matches!(Client::anonymous().join(&rules, room), JoinDecision::Refuse(_)),
            "{room}"
        );
    }
}

#[test]
fn a_rule_for_personal_rooms_opens_none() {
    let rules = rules(
        r#"rooms = [
            { pattern = "user:{id}", join = "true", message = "No" },
            { pattern = "session:{id}", join = "nats", message = "No" },
        ]"#,
    );
    let client = Client::new("7", json!({}));
    assert_eq!(client.join(&rules, "user:7"), JoinDecision::Allow);
    for room in ["user:8", "session:other"] {
        assert_eq!(
            client.join(&rules, room),
            JoinDecision::Refuse(refused("forbidden", "No")),
            "{room}"
        );
    }
}

#[test]
fn rooms_have_options() {
    let rules = rules(
        r#"
        overflow = "drop_oldest"
        rooms = [
            { pattern = "a:{id}", presence = { joined = "in", left = "out", data = "sid" }, history = false },
            { pattern = "b", overflow = "latest_only" },
        ]"#,
    );
    let of = |name: &str| rules.room_options(&Room::new(name).unwrap());
    let a = of("a:1");
    assert_eq!(a.presence.unwrap().joined.as_deref(), Some("in"));
    assert!(!a.history);
    assert_eq!(a.overflow, Overflow::DropOldest);
    assert_eq!(of("b").overflow, Overflow::LatestOnly);
    assert_eq!(
        of("c"),
        RoomOptions {
            presence: None,
            history: true,
            overflow: Overflow::DropOldest
        }
    );
}
