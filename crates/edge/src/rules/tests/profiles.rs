//! What the ready profiles decide, with the names and texts that their systems' clients know.

use super::*;

const GAMILIT: &str = include_str!("../../../../../deploy/profiles/gamilit.toml");
const NEXUS: &str = include_str!("../../../../../deploy/profiles/nexus.toml");
const EXPEDIENTES: &str = include_str!("../../../../../deploy/profiles/expedientes.toml");
const GUIDE: &str = include_str!("../../../../../deploy/profiles/guide.toml");
const SENSORES: &str = include_str!("../../../../../deploy/profiles/sensores.toml");

fn profile(text: &str, name: &str) -> Rules {
    let settings = namespaces(text).remove(name).unwrap();
    Rules::compile(name, &settings).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn every_namespace_of_every_profile_compiles() {
    let mut names = Vec::new();
    for text in [GAMILIT, NEXUS, EXPEDIENTES, GUIDE, SENSORES] {
        for name in namespaces(text).keys() {
            profile(text, name);
            names.push(name.clone());
        }
    }
    assert_eq!(
        names,
        ["/notifications", "/", "/api", "/", "/chat", "/notifications", "/"]
    );
}

#[test]
fn gamilit() {
    let rules = profile(GAMILIT, "/notifications");
    let mut student = Client::new("7", json!({ "role": "student", "classrooms": ["c1", 2] }));
    assert_eq!(student.automatic(&rules), ["classroom:c1", "classroom:2"]);
    assert_eq!(student.join(&rules, "classroom:c1"), JoinDecision::Allow);
    assert_eq!(student.join(&rules, "classroom:2"), JoinDecision::Allow);
    for room in ["classroom:c2", "teacher:7", "admin:all", "user:8"] {
        assert!(
            matches!(student.join(&rules, room), JoinDecision::Refuse(_)),
            "{room}"
        );
    }
    let teacher = Client::new("9", json!({ "role": "teacher" }));
    assert_eq!(teacher.automatic(&rules), ["teacher:9"]);
    assert_eq!(
        Client::new("1", json!({ "role": "admin" })).automatic(&rules),
        ["admin:all"]
    );
    let effects = student
        .emit(
            &rules,
            "subscribe:notifications",
            &[json!({ "x": "<script>1</script>a" })],
        )
        .unwrap();
    let expected = [
        json!(["forward", "subscribe:notifications", { "x": "a" }, false]),
        json!(["reply", { "success": true, "room": "user:7" }, null]),
    ];
    assert_eq!(brief(&effects), expected);
    assert_eq!(
        student
            .emit(&rules, "notification:new", &[])
            .unwrap_err()
            .code
            .as_ref(),
        "unknown_event"
    );
    let published = Payload::One(r#"{"title":"<img src=x onerror=alert(1)>Hi"}"#.into());
    assert_eq!(
        value(&rules.published("notification:new", &published, 0)),
        json!({ "title": "<img src=\"x\">Hi" })
    );
    for (text, cleaned) in [
        (
            r#"{"a":1,"a":2,"h":"<img src=x onerror=alert(1)>"}"#,
            r#"{"a":2,"h":"<img src=\"x\">"}"#,
        ),
        (
            r#"{"h":"<img src=x onerror=alert(1)>","h":"plain"}"#,
            r#"{"h":"plain"}"#,
        ),
        (
            r#"{"n":1e999,"h":"<img src=x onerror=alert(1)>"}"#,
            r#"{"n":1e999,"h":"&lt;img src=x onerror=alert(1)>"}"#,
        ),
        (
            r#"{"s":"\ud800","h":"\u003cimg src=x onerror=alert(1)>"}"#,
            r#"{"s":"\ud800","h":"&lt;img src=x onerror=alert(1)>"}"#,
        ),
    ] {
        let published = rules.published("dup", &Payload::One(text.into()), 0);
        assert_eq!(published.text(), cleaned, "{text}");
    }
}

#[test]
fn nexus() {
    let rules = profile(NEXUS, "/");
    let mut client = Client::new("7", json!({ "email": "a@b.c" }));
    let welcome = rules.welcome(&client.context());
    let expected = json!({ "success": true, "userId": "7", "email": "a@b.c" });
    assert_eq!(
        (&*welcome[0].event, value(&welcome[0].payload)),
        ("authenticated", expected)
    );
    let nameless = Client::new("7", json!({}));
    let welcome = rules.welcome(&nameless.context());
    assert_eq!(
        value(&welcome[0].payload),
        json!({ "success": true, "userId": "7", "email": null })
    );
    for id in [json!("n1"), json!(5)] {
        let data = json!({ "notificationId": id });
        let effects = client
            .emit(&rules, "notification:mark_read", std::slice::from_ref(&data))
            .unwrap();
        assert_eq!(
            brief(&effects),
            [json!(["forward", "notification:mark_read", data, true])]
        );
    }
    for bad in [
        json!({}),
        json!("n1"),
        json!(null),
        json!({ "notificationId": {} }),
    ] {
        let refusal = client.emit(&rules, "notification:mark_read", &[bad]);
        assert_eq!(refusal, Err(refused("bad_data", "notificationId is required")));
    }
    assert!(client.emit(&rules, "leaderboard:updated", &[]).is_err());
    assert!(matches!(client.join(&rules, "user:8"), JoinDecision::Refuse(_)));
}

#[test]
fn expedientes() {
    let rules = profile(EXPEDIENTES, "/api");
    let mut client = Client::new("7", json!({ "rol": "abogado" }));
    let no = |message| JoinDecision::Refuse(refused("WS_ERROR", message));
    let joined = |room: &str| json!(["reply", { "event": "joined", "room": room }, "joined"]);
    for id in [json!("7"), json!(7)] {
        let effects = client.emit(&rules, "join:user", &[id]).unwrap();
        assert_eq!(brief(&effects), [json!(["join", "user:7"]), joined("user:7")]);
    }
    assert_eq!(client.join(&rules, "user:7"), JoinDecision::Allow);
    assert_eq!(client.join(&rules, "user:8"), no("No autorizado"));
    let effects = client.emit(&rules, "leave:user", &[json!("7")]).unwrap();
    assert_eq!(brief(&effects)[0], json!(["leave", "user:7"]));
    let by_id = client.emit(&rules, "join:expediente", &[json!("e1")]).unwrap();
    let by_object = client
        .emit(&rules, "expediente:join", &[json!({ "expedienteId": "e1" })])
        .unwrap();
    assert_eq!(
        brief(&by_id),
        [json!(["join", "expediente:e1"]), joined("expediente:e1")]
    );
    assert_eq!(by_id, by_object);
    let ask = JoinDecision::Ask(refused("WS_ERROR", "No autorizado"));
    assert_eq!(client.join(&rules, "expediente:e1"), ask);
    assert_eq!(
        brief(&client.emit(&rules, "join:admin", &[]).unwrap()),
        [json!(["join", "admin"]), joined("admin")]
    );
    assert_eq!(client.join(&rules, "admin"), no("Solo administradores"));
    assert_eq!(
        Client::new("1", json!({ "rol": "admin" })).join(&rules, "admin"),
        JoinDecision::Allow
    );
    assert_eq!(
        brief(&client.emit(&rules, "join:oficio", &[]).unwrap())[0],
        json!(["join", "oficio"])
    );
    assert_eq!(
        brief(&client.emit(&rules, "join:oficio", &[json!(3)]).unwrap())[0],
        json!(["join", "oficio:3"])
    );
    assert_eq!(client.join(&rules, "oficio:3"), ask);
    assert_eq!(client.join(&rules, "elsewhere"), no("Error de conexión"));
    let read = client
        .emit(&rules, "notification:read", &[json!({ "id": 1 })])
        .unwrap();
    assert_eq!(
        brief(&read),
        [json!(["forward", "notification:read", { "id": 1 }, true])]
    );
    assert_eq!(
        client.emit(&rules, "other", &[]),
        Err(refused("WS_ERROR", "Error de conexión"))
    );
    let large = json!({ "x": "x".repeat(65 * 1024) });
    let refusal = client.emit(&rules, "notification:read", &[large]);
    assert_eq!(refusal, Err(refused("too_large", "Error de conexión")));
}

#[test]
fn expedientes_typing_and_envelope() {
    let rules = profile(EXPEDIENTES, "/api");
    let mut member = Client::new("7", json!({})).within("expediente:e1");
    let data = json!({ "expedienteId": "e1", "userId": "8", "isTyping": false });
    let effects = member.emit(&rules, "mensaje:typing", &[data]).unwrap();
    let sent = json!({ "expedienteId": "e1", "userId": "7", "isTyping": false });
    assert_eq!(
        brief(&effects),
        [json!([
            "relay",
            "expediente:e1",
            "mensaje:typing",
            sent,
            "others"
        ])]
    );
    let other = member.emit(
        &rules,
        "mensaje:typing",
        &[json!({ "expedienteId": "e2", "isTyping": true })],
    );
    assert_eq!(other, Err(refused("WS_ERROR", "No autorizado")));
    let published = Payload::One("{\"a\":1}".into());
    let wrapped =
        json!({ "event": "expediente:update", "data": { "a": 1 }, "timestamp": "1970-01-01T00:00:00.000Z" });
    assert_eq!(
        value(&rules.published("expediente:update", &published, 0)),
        wrapped
    );
    for own in ["mensaje:typing", "error", "joined"] {
        assert_eq!(
            value(&rules.published(own, &published, 0)),
            json!({ "a": 1 }),
            "{own}"
        );
    }
}

#[test]
fn guide_main() {
    let rules = profile(GUIDE, "/");
    let mut client = Client::new("7", json!({}));
    let effects = client
        .emit(
            &rules,
            "message",
            &[json!({ "text": "<script>x</script>hi", "userId": "8" })],
        )
        .unwrap();
    let sent = json!({ "id": "M1", "text": "hi", "userId": "7", "timestamp": 1_769_860_800_007_u64 });
    let expected = [
        json!(["emit", "message-received", { "id": "M1" }]),
        json!(["relay", "everyone", "new-message", sent, "others"]),
        json!(["relay", "everyone", "message-broadcast", sent, ""]),
        json!(["reply", { "status": "received", "timestamp": 1_769_860_800_007_u64 }, null]),
    ];
    assert_eq!(brief(&effects), expected);
    let own_id = client
        .emit(&rules, "message", &[json!({ "text": "hi", "id": 5 })])
        .unwrap();
    assert_eq!(
        brief(&own_id)[0],
        json!(["emit", "message-received", { "id": 5 }])
    );
    assert!(
        client
            .emit(&rules, "message", &[json!({ "text": "x".repeat(1000) })])
            .is_ok()
    );
    for bad in [
        json!({ "text": "x".repeat(1001) }),
        json!({ "text": 5 }),
        json!({}),
        json!("hi"),
        json!(null),
    ] {
        assert_eq!(
            client
                .emit(&rules, "message", &[bad])
                .unwrap_err()
                .message
                .as_ref(),
            "Invalid message"
        );
    }
    let typing = client
        .emit(&rules, "typing", &[json!({ "isTyping": true, "userId": "8" })])
        .unwrap();
    let sent = json!({ "userId": "7", "isTyping": true });
    assert_eq!(
        brief(&typing),
        [json!(["relay", "everyone", "user-typing", sent, "others"])]
    );
    let typing = client.emit(&rules, "typing", &[]).unwrap();
    assert_eq!(
        brief(&typing),
        [json!(["relay", "everyone", "user-typing", { "userId": "7" }, "others"])]
    );
    assert_eq!(
        brief(&client.emit(&rules, "join-room", &[json!("r1")]).unwrap())[0],
        json!(["join", "r1"])
    );
    assert_eq!(client.join(&rules, "r1"), JoinDecision::Allow);
    assert!(matches!(client.join(&rules, "user:8"), JoinDecision::Refuse(_)));
    let presence = rules.room_options(&Room::new("r1").unwrap()).presence.unwrap();
    assert_eq!(presence.joined.as_deref(), Some("user-joined"));
    assert_eq!(presence.left.as_deref(), Some("user-left"));
    assert_eq!(client.emit(&rules, "pong", &[]), Ok(vec![Effect::Alive]));
    assert_eq!(
        rules.heartbeat().unwrap().every,
        std::time::Duration::from_secs(25)
    );
}

#[test]
fn guide_rate() {
    let rules = profile(GUIDE, "/");
    let mut client = Client::new("7", json!({}));
    for at in 0..100 {
        let event = if at % 2 == 0 { "message" } else { "typing" };
        assert!(client.emit(&rules, event, &[json!({ "text": "hi" })]).is_ok());
    }
    let limited = refused("rate_limited", "Rate limit exceeded");
    assert_eq!(client.emit(&rules, "typing", &[]), Err(limited.clone()));
    client.now += std::time::Duration::from_millis(599);
    assert_eq!(client.emit(&rules, "typing", &[]), Err(limited));
    client.now += std::time::Duration::from_millis(1);
    assert!(client.emit(&rules, "typing", &[]).is_ok());
}

#[test]
fn guide_chat_and_notifications() {
    let chat = profile(GUIDE, "/chat");
    let mut anonymous = Client::anonymous();
    let effects = anonymous
        .emit(&chat, "message", &[json!({ "text": "hi", "id": "forged" })])
        .unwrap();
    let sent = json!({ "id": SID, "text": "hi" });
    let expected = [
        json!(["relay", "everyone", "new-message", sent, ""]),
        json!(["reply", { "status": "received" }, null]),
    ];
    assert_eq!(brief(&effects), expected);
    assert_eq!(anonymous.join(&chat, "r1"), JoinDecision::Allow);
    let presence = chat.room_options(&Room::new("r1").unwrap()).presence.unwrap();
    assert_eq!(presence.data, carillon_service::settings::PresenceData::Sid);
    let notifications = profile(GUIDE, "/notifications");
    let effects = anonymous
        .emit(&notifications, "subscribe", &[json!("news")])
        .unwrap();
    assert_eq!(brief(&effects)[0], json!(["join", "news"]));
    assert_eq!(anonymous.join(&notifications, "news"), JoinDecision::Allow);
    assert!(matches!(
        anonymous.join(&notifications, "user:7"),
        JoinDecision::Refuse(_)
    ));
    let guide = namespaces(GUIDE);
    assert!(!guide["/"].anonymous && guide["/chat"].anonymous && guide["/notifications"].anonymous);
}

#[test]
fn sensores() {
    let rules = profile(SENSORES, "/");
    let client = Client::new("a@b.c", json!({ "rol": "tecnico", "nombre": "Ana" }));
    assert_eq!(client.automatic(&rules), ["temperature"]);
    for topic in ["temperature", "metricas/demo", "sensores/s1/temperatura"] {
        assert_eq!(client.join(&rules, topic), JoinDecision::Allow, "{topic}");
    }
    assert_eq!(
        client.join(&rules, "admin/log"),
        JoinDecision::Refuse(refused("forbidden", "Solo administradores"))
    );
    assert!(matches!(client.join(&rules, "other"), JoinDecision::Refuse(_)));
    let admin = Client::new("1", json!({ "rol": "admin" }));
    assert_eq!(admin.join(&rules, "admin/log"), JoinDecision::Allow);
}
