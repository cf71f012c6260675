//! A client that tries what it may not: every attempt is refused with a code, and nobody else notices.

use carillon_testkit::clients::{SioClient, SioOptions};
use carillon_testkit::{net, tokens};
use serde_json::{Value, json};

use crate::stage::{Stage, error_of, token};

/// What a refused event is told, in its acknowledgement and as an event.
async fn refusal(client: &SioClient, event: &str, args: Value, error_event: &str) -> Value {
    let answer = client.emit_ack(event, args).await;
    let told = error_of(&client.next_event(error_event).await);
    assert_eq!(
        (&answer[0]["error"]["code"], &told["event"]),
        (&told["code"], &json!(event)),
        "{answer:?}"
    );
    told["code"].clone()
}

/// Publishes to a neighbour while somebody does harm, and checks that everything comes, once and in order.
async fn undisturbed(stage: &Stage, neighbour: &SioClient, address: &str, harm: impl Future<Output = ()>) {
    let publish = async {
        for n in 0..50 {
            stage.backend.publish(address, "order", json!({ "n": n })).await;
        }
    };
    tokio::join!(publish, harm);
    for n in 0..50 {
        let heard = neighbour.next_event("order").await;
        let data = if heard.data()["data"].is_object() {
            &heard.data()["data"]
        } else {
            heard.data()
        };
        assert_eq!(data, &json!({ "n": n }));
    }
    neighbour.assert_no_event("order");
    neighbour.assert_stayed_connected();
}

#[tokio::test]
async fn rooms_of_others_stay_closed() {
    let stage = Stage::of("expedientes").await;
    stage
        .backend
        .answer("rt.authz.api", |_| json!({ "allow": false }))
        .await;
    let (victim, victim_sid) = stage
        .user(0, "/api", json!({ "sub": "7", "rol": "cliente" }))
        .await;
    let (hostile, _) = stage
        .user(1, "/api", json!({ "sub": "66", "rol": "cliente" }))
        .await;
    let attempts = async {
        for (event, args) in [
            ("join:user", json!(["7"])),
            ("join:user", json!(["66\u{0}"])),
            ("join:user", json!([{ "toString": "7" }])),
            ("join:user", json!([["7"]])),
            ("join:user", json!([])),
            ("leave:user", json!([null])),
            ("join:expediente", json!(["e1"])),
            ("join:expediente", json!(["e1:../../admin"])),
            ("join:expediente", json!(["x".repeat(300)])),
            ("expediente:join", json!([{ "expedienteId": { "$ne": null } }])),
            ("join:admin", json!([])),
            ("join:oficio", json!(["3"])),
            (
                "mensaje:typing",
                json!([{ "expedienteId": "e1", "userId": "7", "isTyping": true }]),
            ),
            ("mensaje:typing", json!([{ "isTyping": true }])),
            // Events of the server, of others, and reserved ones.
            ("notification", json!([{ "titulo": "forged" }])),
            ("system:alert", json!([{ "forged": true }])),
            ("joined", json!([{ "room": "admin" }])),
            ("$disconnect", json!([{}])),
            ("$join", json!([{ "room": "admin" }])),
            ("", json!([])),
        ] {
            assert_eq!(
                refusal(&hostile, event, args.clone(), "error").await,
                "WS_ERROR",
                "{event} {args}"
            );
        }
        for session in [format!("session:{victim_sid}"), "session:x".to_owned()] {
            let answer = hostile.emit_ack("join:expediente", json!([session])).await;
            assert_eq!(answer[0]["error"]["code"], "WS_ERROR");
        }
    };
    undisturbed(&stage, &victim, "api.user:7", attempts).await;
    for event in ["notification", "system:alert", "mensaje:typing", "joined"] {
        victim.assert_no_event(event);
    }
    for room in ["user:7", "expediente:e1", "admin", "oficio:3"] {
        let members = stage
            .backend
            .request(&format!("rt.presence.api.{room}"), json!({}))
            .await;
        let ids: Vec<&Value> = members["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["userId"])
            .collect();
        assert!(!ids.contains(&&json!("66")), "{room}: {members}");
    }
}

#[tokio::test]
async fn a_forged_sender_is_put_right() {
    let stage = Stage::of("guide").await;
    let (hostile, _) = stage.user(0, "/", json!({ "sub": "66" })).await;
    let (other, other_sid) = stage.user(1, "/", json!({ "sub": "7" })).await;
    hostile.emit(
        "message",
        json!([{ "text": "I am 7", "userId": "7", "user": { "id": "7" } }]),
    );
    assert_eq!(other.next_event("new-message").await.data()["userId"], "66");
    hostile.emit("typing", json!([{ "userId": "7" }]));
    assert_eq!(other.next_event("user-typing").await.data()["userId"], "66");
    for room in ["user:7".to_owned(), format!("session:{other_sid}")] {
        assert_eq!(
            refusal(&hostile, "join-room", json!([room]), "error").await,
            "forbidden",
            "{room}"
        );
    }
    for event in [
        "new-message",
        "message-broadcast",
        "user-joined",
        "order",
        "$connect",
    ] {
        assert_eq!(
            refusal(&hostile, event, json!([{}]), "error").await,
            match event {
                "$connect" => "bad_event",
                _ => "unknown_event",
            }
        );
    }
    // A key that comes twice could be read as two values.
    let raw = r#"["typing",{"userId":"7","userId":"8"}]"#;
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", stage.edges[1]);
    let socket = stage.driver.ws(url, Default::default());
    socket.opened().await;
    socket.send_text(&format!(
        "40{}",
        json!({ "token": token(json!({ "sub": "66" })) })
    ));
    socket
        .next_matching("the connection", |text| {
            text.as_str().is_some_and(|text| text.starts_with("40"))
        })
        .await;
    socket.send_text(&format!("42{raw}"));
    let error = socket
        .next_matching("an error", |text| {
            text.as_str().is_some_and(|text| text.contains("bad_data"))
        })
        .await;
    assert!(error.as_str().unwrap().starts_with("42[\"error\""), "{error}");
}

#[tokio::test]
async fn a_flood_is_refused_then_closed_and_neighbours_go_on() {
    let stage = Stage::of("expedientes").await;
    let (neighbour, _) = stage
        .user(0, "/api", json!({ "sub": "7", "rol": "cliente" }))
        .await;
    let (hostile, _) = stage
        .user(0, "/api", json!({ "sub": "66", "rol": "cliente" }))
        .await;
    let flood = async {
        // As many as it takes: a slow machine gives the limit time to refill.
        let emit = async {
            loop {
                for n in 0..500 {
                    hostile.emit("notification:read", json!([n]));
                }
                hostile.state().await;
            }
        };
        let reason = tokio::select! {
            reason = hostile.disconnected() => reason,
            () = emit => unreachable!("it never ends"),
        };
        assert_eq!(reason, "transport close");
        let told = error_of(&hostile.next_event("error").await);
        assert_eq!(told["code"], "rate_limited");
    };
    undisturbed(&stage, &neighbour, "api.user:7", flood).await;
    assert_eq!(
        neighbour.emit_ack("join:user", json!(["7"])).await[0]["room"],
        "user:7"
    );
}

#[tokio::test]
async fn what_is_too_large_or_broken_is_refused_and_neighbours_go_on() {
    let stage = Stage::of("guide").await;
    let (neighbour, _) = stage.user(0, "/", json!({ "sub": "7" })).await;
    let (hostile, _) = stage.user(0, "/", json!({ "sub": "66" })).await;
    let harm = async {
        let large = json!([{ "text": "x", "padding": "y".repeat(100_000) }]);
        assert_eq!(refusal(&hostile, "message", large, "error").await, "too_large");
        assert_eq!(
            refusal(&hostile, &"e".repeat(200), json!([]), "error").await,
            "bad_event"
        );
        hostile.emit("message", json!([{ "text": "x".repeat(1_200_000) }]));
        assert_eq!(hostile.disconnected().await, "transport close");
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", stage.edges[0]);
        for (frame, code) in [
            ("4", 1002),
            ("4x", 1002),
            ("9", 1002),
            ("42[", 1002),
            ("451-[", 1002),
        ] {
            let socket = stage.driver.ws(&url, Default::default());
            socket.opened().await;
            socket.send_text(frame);
            assert_eq!(socket.closed().await.code, code, "{frame}");
        }
    };
    undisturbed(&stage, &neighbour, "main.user:7", harm).await;
}

#[tokio::test]
async fn a_plain_socket_may_no_more_than_the_others() {
    let url = format!("mqtt://{}", net::free_addr());
    let stage = Stage::with("sensores", &[("MQTT_URL", &url)]).await;
    let (victim, _) = stage.plain(0, json!({ "email": "ana@x.example" })).await;
    let (hostile, _) = stage.plain(1, json!({ "email": "mal@x.example" })).await;
    for topic in ["user:ana@x.example", "session:x", "admin/alarms", "private"] {
        assert_eq!(
            hostile.subscribe(topic, None).await["code"],
            "forbidden",
            "{topic}"
        );
    }
    let own = hostile.subscribe("user:mal@x.example", None).await;
    assert_eq!(own["type"], "subscribed");
    for topic in [json!(""), json!("x".repeat(257)), json!(7)] {
        hostile.send(&json!({ "type": "sub", "topic": topic }));
        assert_eq!(hostile.next_of_type("error").await["code"], "bad_field");
    }
    for (message, code) in [
        (
            json!({ "type": "emit", "event": "temperature", "data": 99, "id": 1 }),
            "unknown_event",
        ),
        (
            json!({ "type": "emit", "event": "$connect", "data": 1, "id": 2 }),
            "bad_event",
        ),
        (json!({ "type": "emit", "data": 1, "id": 3 }), "missing_field"),
        (
            json!({ "type": "presence", "topic": "admin/alarms", "id": 4 }),
            "not_member",
        ),
        (json!({ "type": "publish", "id": 5 }), "unknown_type"),
    ] {
        let answer = hostile.request(&message).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{message}"
        );
    }
    hostile.send_text("{");
    assert_eq!(hostile.next_of_type("error").await["code"], "bad_json");
    let flood = async {
        loop {
            for _ in 0..500 {
                hostile.send(&json!({ "type": "ping" }));
            }
            // Waits until the driver has sent them.
            hostile.resume().await;
        }
    };
    let closed = tokio::select! {
        closed = hostile.closed() => closed,
        () = flood => unreachable!("it never ends"),
    };
    assert_eq!(closed.code, 1008);
    hostile
        .next_matching("a limit", |message| message["code"] == "rate_limited")
        .await;
    stage
        .backend
        .publish("main.user:ana@x%2Eexample", "mine", json!(1))
        .await;
    assert_eq!(victim.next_event("mine").await["payload"], 1);

    let (large, _) = stage.plain(1, json!({ "email": "mal@x.example" })).await;
    large.send_text(&"x".repeat(1_200_000));
    assert_eq!(large.closed().await.code, 1009);
}

#[tokio::test]
async fn tokens_that_were_not_given_open_nothing() {
    let stage = Stage::of("nexus").await;
    let claims = json!({ "sub": "7" });
    let none = tokens::signed("", &json!({ "alg": "none" }), &claims);
    let unsigned = none.rsplit_once('.').map(|(rest, _)| format!("{rest}.")).unwrap();
    let good = token(claims.clone());
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let other = token(json!({ "sub": "8" }));
    let body = other.split('.').nth(1).unwrap();
    for (edge, bad) in [
        tokens::hs256("dev-secret", &claims),
        none,
        unsigned,
        format!("{head}.{body}.{signature}"),
        tokens::signed(
            "profile-secret",
            &json!({ "alg": "HS256", "crit": ["x"], "x": 1 }),
            &claims,
        ),
        token(json!({ "sub": "" })),
        token(json!({ "sub": "7", "nbf": tokens::now() + 3600 })),
        token(json!({ "sub": { "$ne": null } })),
        "x".repeat(20_000),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = stage
            .sio(edge % 2, "/", SioOptions::websocket(&bad))
            .refused()
            .await;
        assert_eq!(refused.message, "Invalid token", "{}", &bad[..bad.len().min(200)]);
        assert!(!refused.active);
    }
}
