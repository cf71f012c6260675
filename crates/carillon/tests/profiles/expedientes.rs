//! expedientes: cases, invoices and deadlines of a law firm.

use carillon_testkit::clients::{SioClient, SioOptions};
use serde_json::{Value, json};

use crate::stage::{Stage, error_of, token};

/// A stage whose backend lets the users 7 and 8 into the case e1.
async fn stage() -> Stage {
    let stage = Stage::of("expedientes").await;
    let answer = |body: Value| {
        let member = ["7", "8"].contains(&body["user"]["id"].as_str().unwrap_or_default());
        json!({ "allow": member && body["room"] == "expediente:e1" && body["namespace"] == "/api" })
    };
    stage.backend.answer("rt.authz.api", answer).await;
    stage
}

async fn connect(stage: &Stage, edge: usize, user: &str, rol: &str) -> SioClient {
    stage
        .user(edge, "/api", json!({ "sub": user, "rol": rol }))
        .await
        .0
}

fn joined(room: &str) -> Value {
    json!({ "event": "joined", "room": room })
}

fn refused(message: &str) -> Value {
    json!({ "error": { "code": "WS_ERROR", "message": message } })
}

#[tokio::test]
async fn the_token_may_be_in_the_handshake_or_the_cookie() {
    let stage = stage().await;
    let cookie = format!(
        "theme=dark; token={}",
        token(json!({ "sub": "7", "rol": "cliente" }))
    );
    let options = SioOptions::new()
        .transports(&["websocket"])
        .with("extraHeaders", json!({ "Cookie": cookie }));
    let by_cookie = stage.sio(1, "/api", options);
    by_cookie.connected().await;
    let by_auth = connect(&stage, 0, "7", "cliente").await;
    stage
        .backend
        .publish("api.user:7", "notification", json!({ "titulo": "Hola" }))
        .await;
    for client in [&by_cookie, &by_auth] {
        assert_eq!(
            client.next_event("notification").await.data()["data"],
            json!({ "titulo": "Hola" })
        );
    }
}

#[tokio::test]
async fn rooms_are_joined_by_ack_or_event_and_only_by_who_may() {
    let stage = stage().await;
    let lawyer = connect(&stage, 0, "7", "abogado").await;
    let admin = connect(&stage, 1, "1", "admin").await;

    assert_eq!(
        lawyer.emit_ack("join:user", json!(["7"])).await,
        [joined("user:7")]
    );
    lawyer.emit("join:user", json!([7]));
    assert_eq!(lawyer.next_event("joined").await.data(), &joined("user:7"));
    assert_eq!(
        lawyer.emit_ack("leave:user", json!(["7"])).await[0]["room"],
        "user:7"
    );
    assert_eq!(
        lawyer.emit_ack("join:user", json!(["7"])).await,
        [joined("user:7")]
    );
    assert_eq!(
        lawyer.emit_ack("join:expediente", json!(["e1"])).await,
        [joined("expediente:e1")]
    );
    lawyer.emit("expediente:join", json!([{ "expedienteId": "e1" }]));
    assert_eq!(lawyer.next_event("joined").await.data(), &joined("expediente:e1"));
    assert_eq!(admin.emit_ack("join:admin", json!([])).await, [joined("admin")]);
    assert_eq!(
        lawyer.emit_ack("join:oficio", json!([])).await,
        [joined("oficio")]
    );
    assert_eq!(
        admin.emit_ack("subscribe:notifications", json!([])).await[0]["room"],
        "user:1"
    );

    for (event, data, message) in [
        ("join:user", json!(["8"]), "No autorizado"),
        ("join:expediente", json!(["e2"]), "No autorizado"),
        (
            "expediente:join",
            json!([{ "expedienteId": "e2" }]),
            "No autorizado",
        ),
        ("join:admin", json!([]), "Solo administradores"),
        ("nothing:here", json!([]), "Error de conexión"),
    ] {
        assert_eq!(lawyer.emit_ack(event, data).await, [refused(message)], "{event}");
        let told = json!({ "code": "WS_ERROR", "message": message, "event": event });
        assert_eq!(error_of(&lawyer.next_event("error").await), told);
    }
    assert_eq!(
        lawyer.emit_ack("leave:expediente", json!(["e1"])).await[0]["room"],
        "expediente:e1"
    );
}

#[tokio::test]
async fn server_events_come_in_their_envelope() {
    let stage = stage().await;
    let lawyer = connect(&stage, 0, "7", "abogado").await;
    lawyer.emit_ack("join:expediente", json!(["e1"])).await;
    lawyer.emit_ack("join:oficio", json!([])).await;
    for (room, event) in [
        ("user:7", "notification"),
        ("expediente:e1", "expediente:update"),
        ("all", "expediente:new"),
        ("user:7", "factura:status"),
        ("expediente:e1", "calendario:update"),
        ("expediente:e1", "prescripcion:alert"),
        ("expediente:e1", "mensaje:new"),
        ("oficio", "oficio:assigned"),
        ("all", "system:alert"),
    ] {
        let data = json!({ "room": room });
        stage
            .backend
            .publish(&format!("api.{room}"), event, data.clone())
            .await;
        let heard = lawyer.next_event(event).await;
        let envelope = heard.data();
        assert_eq!((&envelope["event"], &envelope["data"]), (&json!(event), &data));
        let timestamp = envelope["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    }
}

#[tokio::test]
async fn typing_is_told_to_the_others_of_the_case_under_the_true_id() {
    let stage = stage().await;
    let seven = connect(&stage, 0, "7", "abogado").await;
    let eight = connect(&stage, 1, "8", "abogado").await;
    let outsider = connect(&stage, 1, "9", "abogado").await;
    for client in [&seven, &eight] {
        client.emit_ack("join:expediente", json!(["e1"])).await;
    }
    let typing = json!([{ "expedienteId": "e1", "userId": "1", "isTyping": true }]);
    seven.emit("mensaje:typing", typing.clone());
    let expected = json!({ "expedienteId": "e1", "userId": "7", "isTyping": true });
    assert_eq!(eight.next_event("mensaje:typing").await.data(), &expected);
    outsider.emit("mensaje:typing", typing);
    let told = json!({ "code": "WS_ERROR", "message": "No autorizado", "event": "mensaje:typing" });
    assert_eq!(error_of(&outsider.next_event("error").await), told);
    // The way back: what the neighbour says next comes behind whatever else had come.
    eight.emit(
        "mensaje:typing",
        json!([{ "expedienteId": "e1", "isTyping": false }]),
    );
    let heard = seven.next_event("mensaje:typing").await;
    assert_eq!(
        heard.data(),
        &json!({ "expedienteId": "e1", "userId": "8", "isTyping": false })
    );
    for client in [&seven, &eight, &outsider] {
        client.assert_no_event("mensaje:typing");
    }
}

#[tokio::test]
async fn the_backend_hears_what_is_read_and_events_have_a_size() {
    let stage = stage().await;
    let client = connect(&stage, 0, "7", "cliente").await;
    let mut up = stage.backend.hear("rt.up.api.notification:read").await;
    client.emit("notification:read", json!([{ "notificationId": "n1" }]));
    let heard = up.next().await;
    assert_eq!(
        (&heard["data"], &heard["user"]["id"]),
        (&json!({ "notificationId": "n1" }), &json!("7"))
    );
    assert_eq!(heard["user"]["claims"]["rol"], "cliente");

    client.emit(
        "notification:read",
        json!([{ "notificationId": "x".repeat(70_000) }]),
    );
    let told = json!({ "code": "too_large", "message": "Error de conexión", "event": "notification:read" });
    assert_eq!(error_of(&client.next_event("error").await), told);
    client.emit("notification:read", json!([{ "notificationId": "n2" }]));
    assert_eq!(up.next().await["data"]["notificationId"], "n2");
}
