//! `docs/migrating.md`: the configuration there does what the gateway class before it did.

use carillon_testkit::clients::SioOptions;
use serde_json::json;

use crate::stage::{Stage, error_of, root, token};

const FRONTEND: &str = "https://app.example.org";

fn configuration() -> String {
    let document = std::fs::read_to_string(root().join("docs/migrating.md")).unwrap();
    let (_, rest) = document.split_once("```toml\n").unwrap();
    rest.split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_configuration_does_what_the_gateway_did() {
    let stage = Stage::config(configuration(), &[("FRONTEND_URL", FRONTEND)]).await;
    stage
        .backend
        .answer(
            "rt.authz.notifications",
            |body| json!({ "allow": body["room"] == "classroom:open" }),
        )
        .await;
    let read =
        |body: serde_json::Value| json!({ "read": body["data"]["notificationId"], "by": body["user"]["id"] });
    stage
        .backend
        .answer("rt.up.notifications.notification:mark_read", read)
        .await;

    let connect = async |edge: usize, claims: serde_json::Value| {
        let options = SioOptions::websocket(format!("Bearer {}", token(claims)))
            .with("extraHeaders", json!({ "Origin": FRONTEND }));
        let client = stage.sio(edge, "/notifications", options);
        client.connected().await;
        client
    };
    let ana = connect(0, json!({ "sub": "42", "role": "teacher", "classrooms": ["7a"] })).await;
    let ben = connect(1, json!({ "sub": "43", "classrooms": ["7a"] })).await;
    let greeting = ana.next_event("authenticated").await;
    assert_eq!(greeting.data(), &json!({ "success": true, "userId": "42" }));
    for room in ["user:42", "classroom:7a", "teacher:42"] {
        stage
            .backend
            .publish(&format!("notifications.{room}"), "notification:new", json!(room))
            .await;
        assert_eq!(ana.next_event("notification:new").await.data(), &json!(room));
    }
    assert_eq!(ben.next_event("notification:new").await.data(), "classroom:7a");

    ben.emit("typing", json!([{ "classroomId": "7a", "userId": "42" }]));
    let typing = ana.next_event("typing").await;
    assert_eq!(typing.data(), &json!({ "classroomId": "7a", "userId": "43" }));
    ben.emit("join:classroom", json!(["open"]));
    assert_eq!(
        ben.next_event("joined").await.data(),
        &json!({ "room": "classroom:open" })
    );
    ben.emit("join:classroom", json!(["closed"]));
    let refused = error_of(&ben.next_event("exception").await);
    assert_eq!(
        refused,
        json!({ "code": "forbidden", "message": "No autorizado", "event": "join:classroom" })
    );
    let answer = ana
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n1" }]))
        .await;
    assert_eq!(answer, [json!({ "read": "n1", "by": "42" })]);
}
