//! gamilit: notifications of a learning platform.

use carillon_testkit::clients::{SioClient, SioOptions, WsOptions};
use carillon_testkit::http;
use serde_json::{Value, json};

use crate::stage::{Stage, error_of, token};

const FRONTEND: &str = "https://app.gamilit.example";

async fn stage() -> Stage {
    Stage::with("gamilit", &[("FRONTEND_URL", FRONTEND)]).await
}

/// `io("/notifications", { auth: { token: "Bearer …" }, withCredentials: true })`
async fn connect(stage: &Stage, edge: usize, claims: Value) -> SioClient {
    let options = SioOptions::websocket(format!("Bearer {}", token(claims)))
        .with("withCredentials", json!(true))
        .with("extraHeaders", json!({ "Origin": FRONTEND }));
    let client = stage.sio(edge, "/notifications", options);
    client.connected().await;
    client
}

#[tokio::test]
async fn students_teachers_and_admins_hear_what_is_theirs() {
    let stage = stage().await;
    let student = connect(&stage, 0, json!({ "sub": "42", "classrooms": ["7a", 8] })).await;
    let classmate = connect(&stage, 1, json!({ "sub": "43", "classrooms": ["7a"] })).await;
    let teacher = connect(&stage, 1, json!({ "sub": "9", "role": "teacher" })).await;
    let admin = connect(&stage, 0, json!({ "sub": "1", "role": "admin" })).await;

    for (event, data) in [
        ("notification:new", json!({ "id": "n1", "title": "Hi" })),
        ("notification:read", json!({ "id": "n1" })),
        ("achievement:unlocked", json!({ "achievement": "first" })),
        ("rank:promoted", json!({ "from": "Nacom", "to": "Batab" })),
        ("coins:earned", json!({ "amount": 50, "total": 150 })),
    ] {
        stage
            .backend
            .publish("notifications.user:42", event, data.clone())
            .await;
        assert_eq!(student.next_event(event).await.data(), &data);
    }
    for (room, hearing, others) in [
        ("classroom:7a", vec![&student, &classmate], vec![&teacher, &admin]),
        ("classroom:8", vec![&student], vec![&classmate, &teacher, &admin]),
        ("teacher:9", vec![&teacher], vec![&student, &classmate, &admin]),
        ("admin:all", vec![&admin], vec![&student, &classmate, &teacher]),
    ] {
        let event = format!("to:{room}");
        stage
            .backend
            .publish(&format!("notifications.{room}"), &event, json!(room))
            .await;
        for client in hearing {
            assert_eq!(client.next_event(&event).await.data(), &json!(room));
        }
        // What is published later, to everyone, comes behind it.
        stage
            .backend
            .publish("notifications.all", "later", json!(room))
            .await;
        for client in [&student, &classmate, &teacher, &admin] {
            client.next_event("later").await;
        }
        for client in others {
            client.assert_no_event(&event);
        }
    }
    for client in [&student, &classmate, &teacher, &admin] {
        client.assert_no_event("coins:earned");
    }
}

#[tokio::test]
async fn the_backend_moves_students_and_hears_subscriptions() {
    let stage = stage().await;
    let student = connect(&stage, 1, json!({ "sub": "42" })).await;
    let mut up = stage
        .backend
        .hear("rt.up.notifications.subscribe:notifications")
        .await;
    let answer = student
        .emit_ack("subscribe:notifications", json!([{ "types": ["all"] }]))
        .await;
    assert_eq!(answer, [json!({ "success": true, "room": "user:42" })]);
    let heard = up.next().await;
    assert_eq!(heard["event"], "subscribe:notifications");
    assert_eq!(
        (&heard["data"], &heard["user"]["id"]),
        (&json!({ "types": ["all"] }), &json!("42"))
    );
    assert_eq!(
        (&heard["namespace"], heard["ts"].is_u64()),
        (&json!("/notifications"), true)
    );

    let order = json!({ "user": "42", "room": "classroom:9" });
    let reply = stage
        .backend
        .request("rt.ctl.notifications.join", order.clone())
        .await;
    assert_eq!(reply, json!({ "connections": 1 }));
    stage
        .backend
        .publish(
            "notifications.classroom:9",
            "rank:promoted",
            json!({ "to": "Halach" }),
        )
        .await;
    assert_eq!(
        student.next_event("rank:promoted").await.data(),
        &json!({ "to": "Halach" })
    );
    let members = stage
        .backend
        .request("rt.presence.notifications.classroom:9", json!({}))
        .await;
    assert_eq!(
        (&members["count"], &members["members"][0]["userId"]),
        (&json!(1), &json!("42"))
    );

    let reply = stage.backend.request("rt.ctl.notifications.leave", order).await;
    assert_eq!(reply, json!({ "connections": 1 }));
    stage
        .backend
        .publish(
            "notifications.classroom:9",
            "rank:promoted",
            json!({ "to": "Ahau" }),
        )
        .await;
    stage
        .backend
        .publish("notifications.user:42", "later", json!(1))
        .await;
    student.next_event("later").await;
    student.assert_no_event("rank:promoted");
}

#[tokio::test]
async fn only_the_frontend_may_connect_and_with_credentials() {
    let stage = stage().await;
    let url = format!("http://{}/socket.io/?EIO=4&transport=polling", stage.edges[1]);
    let polled = http::client()
        .get(&url)
        .header("Origin", FRONTEND)
        .send()
        .await
        .unwrap();
    let header = |name: &str| {
        polled
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(header("access-control-allow-origin").as_deref(), Some(FRONTEND));
    assert_eq!(
        header("access-control-allow-credentials").as_deref(),
        Some("true")
    );
    let elsewhere = "https://elsewhere.example";
    let polled = http::client()
        .get(&url)
        .header("Origin", elsewhere)
        .send()
        .await
        .unwrap();
    assert!(polled.headers().get("access-control-allow-origin").is_none());

    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", stage.edges[0]);
    let socket = stage
        .driver
        .ws(&url, WsOptions::new().header("Origin", elsewhere));
    assert_eq!(socket.rejected().await.status, 403);
    stage
        .driver
        .ws(&url, WsOptions::new().header("Origin", FRONTEND))
        .opened()
        .await;
}

#[tokio::test]
async fn payloads_are_cleaned_both_ways_and_events_are_limited() {
    let stage = stage().await;
    let student = connect(&stage, 0, json!({ "sub": "42" })).await;
    let neighbour = connect(&stage, 0, json!({ "sub": "43" })).await;
    let bad = json!({ "title": "<img src=x onerror=alert(1)>Hi", "parts": ["<script>1</script>ok"] });
    let good = json!({ "title": "<img src=\"x\">Hi", "parts": ["ok"] });
    stage
        .backend
        .publish("notifications.user:42", "notification:new", bad.clone())
        .await;
    assert_eq!(student.next_event("notification:new").await.data(), &good);
    let mut up = stage
        .backend
        .hear("rt.up.notifications.subscribe:notifications")
        .await;
    student.emit("subscribe:notifications", json!([bad]));
    assert_eq!(up.next().await["data"], good);

    for n in 0..150 {
        student.emit("subscribe:notifications", json!([n]));
    }
    let refused = error_of(&student.next_event("error").await);
    let expected = json!({
        "code": "rate_limited", "message": "Rate limit exceeded", "event": "subscribe:notifications",
    });
    assert_eq!(refused, expected);
    let answer = neighbour.emit_ack("subscribe:notifications", json!([])).await;
    assert_eq!(answer[0]["success"], true);
    student.assert_stayed_connected();
}

#[tokio::test]
async fn a_connection_without_a_good_token_is_refused() {
    let stage = stage().await;
    for (options, message) in [
        (
            SioOptions::new().transports(&["websocket"]),
            "Authentication required",
        ),
        (SioOptions::websocket("Bearer nonsense"), "Invalid token"),
        (
            SioOptions::websocket(format!("Bearer {}", token(json!({ "sub": "42", "exp": 1 })))),
            "Invalid token",
        ),
    ] {
        let refused = stage.sio(0, "/notifications", options.clone()).refused().await;
        assert_eq!(
            (refused.message.as_str(), &refused.data["code"]),
            (message, &json!("unauthorized"))
        );
        assert!(!refused.active);
    }
    let main = stage.sio(1, "/", SioOptions::websocket(token(json!({ "sub": "42" }))));
    let refused = main.refused().await;
    assert_eq!(
        (refused.message.as_str(), refused.data),
        ("Invalid namespace", Value::Null)
    );
}
