//! guide: the chat of a Socket.IO guide.

use carillon_testkit::clients::{SioClient, SioOptions};
use serde_json::{Value, json};

use crate::stage::{Stage, error_of, profile, token};

async fn connect(stage: &Stage, edge: usize, user: &str) -> SioClient {
    stage.user(edge, "/", json!({ "sub": user })).await.0
}

/// A client that shows no token.
async fn guest(stage: &Stage, edge: usize, namespace: &str) -> (SioClient, String) {
    let client = stage.sio(edge, namespace, SioOptions::new().transports(&["websocket"]));
    let sid = client.connected().await.sid;
    (client, sid)
}

#[tokio::test]
async fn a_message_is_confirmed_told_to_the_others_and_broadcast() {
    let stage = Stage::of("guide").await;
    let ana = connect(&stage, 0, "ana").await;
    let ben = connect(&stage, 1, "ben").await;
    let answer = ana
        .emit_ack(
            "message",
            json!([{ "text": "<b>hi</b><script>x</script>", "userId": "ben" }]),
        )
        .await;
    assert_eq!(answer[0]["status"], "received");
    assert!(answer[0]["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    let id = ana.next_event("message-received").await.data()["id"].clone();
    assert!(id.as_str().is_some_and(|id| !id.is_empty()), "{id}");
    for (client, event) in [
        (&ben, "new-message"),
        (&ben, "message-broadcast"),
        (&ana, "message-broadcast"),
    ] {
        let heard = client.next_event(event).await;
        let data = heard.data();
        assert_eq!(
            (&data["text"], &data["userId"], &data["id"]),
            (&json!("<b>hi</b>"), &json!("ana"), &id)
        );
    }
    ana.assert_no_event("new-message");

    for bad in [
        json!([{ "text": "x".repeat(1001) }]),
        json!([{ "text": 7 }]),
        json!([{}]),
        json!(["hi"]),
    ] {
        ana.emit("message", bad);
        assert_eq!(ana.next_event("error").await.data()["message"], "Invalid message");
    }
    ana.emit("message", json!([{ "text": "x".repeat(1000) }]));
    ben.next_matching("the longest", |event| {
        event.data()["text"]
            .as_str()
            .is_some_and(|text| text.len() == 1000)
    })
    .await;
}

#[tokio::test]
async fn typing_and_rooms_are_told_to_the_others() {
    let stage = Stage::of("guide").await;
    let ana = connect(&stage, 0, "ana").await;
    let ben = connect(&stage, 1, "ben").await;
    let eva = connect(&stage, 1, "eva").await;
    ana.emit("typing", json!([{ "room": "lobby", "userId": "eva" }]));
    for other in [&ben, &eva] {
        let heard = other.next_event("user-typing").await;
        assert_eq!(heard.data(), &json!({ "userId": "ana", "room": "lobby" }));
    }
    ana.assert_no_event("user-typing");

    ana.emit_ack("join-room", json!(["lobby"])).await;
    ben.emit_ack("join-room", json!(["lobby"])).await;
    assert_eq!(ana.next_event("user-joined").await.data()["userId"], "ben");
    ben.emit_ack("leave-room", json!(["lobby"])).await;
    assert_eq!(ana.next_event("user-left").await.data()["userId"], "ben");
    // What is told to the room now comes behind whatever its others had been told.
    stage.backend.publish("main.all", "later", json!(1)).await;
    for client in [&ana, &ben, &eva] {
        client.next_event("later").await;
    }
    ben.assert_no_event("user-left");
    // Connecting joins no room that tells it.
    ana.assert_no_event("user-joined");
    for event in ["user-joined", "user-left"] {
        eva.assert_no_event(event);
    }
    ben.disconnect();
}

#[tokio::test]
async fn a_connection_may_send_a_hundred_events_a_minute() {
    let stage = Stage::of("guide").await;
    let ana = connect(&stage, 0, "ana").await;
    let ben = connect(&stage, 0, "ben").await;
    for n in 0..110 {
        ana.emit("message", json!([{ "text": format!("{n}") }]));
    }
    let refused = error_of(&ana.next_event("error").await);
    let expected = json!({ "code": "rate_limited", "message": "Rate limit exceeded", "event": "message" });
    assert_eq!(refused, expected);
    let answer = ben.emit_ack("message", json!([{ "text": "mine" }])).await;
    assert_eq!(answer[0]["status"], "received");
    let heard = ben
        .next_matching("the hundredth", |event| event.data()["text"] == "99")
        .await;
    assert_eq!(heard.data()["userId"], "ana");
    ana.assert_stayed_connected();
}

#[tokio::test]
async fn the_main_namespace_needs_a_token_and_the_chat_does_not() {
    let stage = Stage::of("guide").await;
    let refused = stage
        .sio(0, "/", SioOptions::new().transports(&["websocket"]))
        .refused()
        .await;
    assert_eq!(refused.message, "Authentication required");
    let refused = stage
        .sio(1, "/", SioOptions::websocket("nonsense"))
        .refused()
        .await;
    assert_eq!(refused.message, "Invalid token");

    let (ana, ana_sid) = guest(&stage, 0, "/chat").await;
    let (ben, ben_sid) = guest(&stage, 1, "/chat").await;
    let answer = ana
        .emit_ack("message", json!([{ "text": "hi", "id": ben_sid }]))
        .await;
    assert_eq!(answer, [json!({ "status": "received" })]);
    for client in [&ana, &ben] {
        assert_eq!(
            client.next_event("new-message").await.data(),
            &json!({ "id": ana_sid, "text": "hi" })
        );
    }
    ana.emit_ack("join-room", json!(["lobby"])).await;
    ben.emit_ack("join-room", json!(["lobby"])).await;
    assert_eq!(ana.next_event("user-joined").await.data(), &json!(ben_sid));
    ben.disconnect();
    assert_eq!(ana.next_event("user-left").await.data(), &json!(ben_sid));
    // A token is welcome there too.
    let known = stage.sio(1, "/chat", SioOptions::websocket(token(json!({ "sub": "ana" }))));
    known.connected().await;
}

#[tokio::test]
async fn a_channel_of_notifications_is_subscribed_to() {
    let stage = Stage::of("guide").await;
    let (client, _) = guest(&stage, 1, "/notifications").await;
    let (other, _) = guest(&stage, 0, "/notifications").await;
    let answer = client.emit_ack("subscribe", json!(["news"])).await;
    assert_eq!(answer[0]["channel"], "news");
    stage
        .backend
        .publish("notifications.news", "notification", json!({ "title": "a" }))
        .await;
    assert_eq!(
        client.next_event("notification").await.data(),
        &json!({ "title": "a" })
    );
    stage
        .backend
        .publish("notifications.all", "later", json!(1))
        .await;
    other.next_event("later").await;
    other.assert_no_event("notification");
    for bad in [json!([]), json!([{}]), json!([""])] {
        client.emit("subscribe", bad);
        assert_eq!(client.next_event("error").await.data()["code"], "bad_data");
    }
}

#[tokio::test]
async fn who_answers_the_heartbeat_once_must_go_on() {
    let quick = profile("guide").replace(
        "every = \"25s\", timeout = \"20s\"",
        "every = \"1s\", timeout = \"1s\"",
    );
    assert_ne!(quick, profile("guide"));
    let stage = Stage::config(quick, &[]).await;
    let ana = connect(&stage, 0, "ana").await;
    let silent = connect(&stage, 1, "ben").await;
    for client in [&ana, &silent] {
        client.next_event("ping").await;
    }
    ana.emit("pong", json!([]));
    ana.next_event("ping").await;
    ana.emit("pong", json!([]));
    // Now it stops, and is closed; it comes back by itself.
    assert_eq!(ana.disconnected().await, "transport close");
    assert!(ana.connected().await.recovered);
    for _ in 0..4 {
        silent.next_event("ping").await;
    }
    silent.assert_stayed_connected();
    let state: Value = silent.state().await;
    assert_eq!(state["connected"], true);
}
