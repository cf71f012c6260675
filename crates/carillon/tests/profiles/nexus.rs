//! nexus: notifications and rankings, several devices a user.

use carillon_testkit::clients::{SioClient, SioOptions};
use serde_json::json;

use crate::stage::{Stage, error_of, token, two_ports};

/// `io(url, { path: "/socket.io/", auth: { token } })`
async fn connect(stage: &Stage, edge: usize, user: &str, options: SioOptions) -> SioClient {
    let claims = json!({ "sub": user, "email": format!("{user}@nexus.example") });
    let client = stage.sio(
        edge,
        "/",
        options.token(token(claims)).with("path", json!("/socket.io/")),
    );
    client.connected().await;
    client
}

fn websocket() -> SioOptions {
    SioOptions::new().transports(&["websocket"])
}

#[tokio::test]
async fn a_client_is_told_that_it_is_authenticated_over_either_transport() {
    let stage = Stage::of("nexus").await;
    for (edge, options) in [
        (0, websocket()),
        (1, SioOptions::new().transports(&["polling"])),
        (1, SioOptions::new()),
    ] {
        let client = connect(&stage, edge, "7", options).await;
        let expected = json!({ "success": true, "userId": "7", "email": "7@nexus.example" });
        assert_eq!(client.next_event("authenticated").await.data(), &expected);
        stage
            .backend
            .publish("main.user:7", "notification:new", json!({ "edge": edge }))
            .await;
        assert_eq!(
            client.next_event("notification:new").await.data(),
            &json!({ "edge": edge })
        );
        client.disconnect();
    }
    let refused = stage.sio(0, "/", websocket()).refused().await;
    assert_eq!(refused.message, "Authentication required");
}

#[tokio::test]
async fn every_device_hears_and_rankings_are_for_everyone() {
    let stage = Stage::of("nexus").await;
    let phone = connect(&stage, 0, "7", websocket()).await;
    let laptop = connect(&stage, 1, "7", websocket()).await;
    let other = connect(&stage, 1, "8", websocket()).await;
    for (event, data) in [
        ("notification:new", json!({ "id": "n1", "type": "like" })),
        ("notification:read", json!({ "notificationId": "n1" })),
        ("notification:deleted", json!({ "notificationId": "n1" })),
        ("notification:unread_count", json!({ "count": 3 })),
        ("achievement:unlocked", json!({ "achievementId": "a1" })),
        ("rank:updated", json!({ "rank": 12 })),
        ("xp:gained", json!({ "amount": 10, "total": 110 })),
    ] {
        stage.backend.publish("main.user:7", event, data.clone()).await;
        for device in [&phone, &laptop] {
            assert_eq!(device.next_event(event).await.data(), &data);
        }
    }
    stage
        .backend
        .publish("main.all", "leaderboard:updated", json!({ "top": ["8", "7"] }))
        .await;
    for client in [&phone, &laptop, &other] {
        assert_eq!(
            client.next_event("leaderboard:updated").await.data(),
            &json!({ "top": ["8", "7"] })
        );
    }
    other.assert_no_event("notification:new");

    let user = stage.get("/v1/users/7?namespace=/").await;
    assert_eq!(
        (&user["online"], user["connections"].as_array().unwrap().len()),
        (&json!(true), 2)
    );
    assert_eq!(stage.get("/v1/users/9").await["online"], false);
}

#[tokio::test]
async fn marking_as_read_is_the_backends_business() {
    let stage = Stage::of("nexus").await;
    let client = connect(&stage, 1, "7", websocket()).await;
    let subject = "rt.up.main.notification:mark_read";
    let refused = client
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n1" }]))
        .await;
    assert_eq!(refused[0]["error"]["code"], "no_handler");
    assert_eq!(
        client.next_event("error").await.data()["event"],
        "notification:mark_read"
    );

    let answering = stage
        .backend
        .answer(
            subject,
            |body| json!({ "success": true, "id": body["data"]["notificationId"], "by": body["user"]["id"] }),
        )
        .await;
    let answer = client
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n1" }]))
        .await;
    assert_eq!(answer, [json!({ "success": true, "id": "n1", "by": "7" })]);
    answering.abort();

    client.emit("notification:mark_read", json!([{ "id": "n1" }]));
    let refused = error_of(&client.next_event("error").await);
    let expected = json!({
        "code": "bad_data", "message": "notificationId is required", "event": "notification:mark_read",
    });
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_list_of_users_is_served_at_once_and_who_is_away_is_kept_for() {
    let stage = Stage::of("nexus").await;
    let seven = connect(&stage, 0, "7", websocket()).await;
    let eight = connect(&stage, 1, "8", websocket()).await;
    let event = json!({
        "rooms": ["user:7", "user:8", "user:9"], "event": "notification:new", "data": { "id": "n2" }, "receipt": true,
    });
    let receipt = stage.post(event).await;
    assert_eq!(
        (&receipt["users"], &receipt["connections"]),
        (&json!(2), &json!(2))
    );
    for client in [&seven, &eight] {
        assert_eq!(
            client.next_event("notification:new").await.data(),
            &json!({ "id": "n2" })
        );
    }
    let (_, kept) = stage.backend.stored("RT_OFFLINE", "rt.offline.main.9").await;
    assert_eq!(
        (&kept["event"], &kept["data"]),
        (&json!("notification:new"), &json!({ "id": "n2" }))
    );
}

#[tokio::test]
async fn the_short_names_set_what_differs_between_installations() {
    let port = two_ports();
    let env = [
        ("WS_PORT", port.to_string()),
        ("WS_PATH", "/realtime/".to_owned()),
    ];
    let mut env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    env.push(("CORS_ORIGIN", "https://nexus.example,https://www.nexus.example"));
    let stage = Stage::with("nexus", &env).await;
    assert_eq!([stage.edges[0].port(), stage.edges[1].port()], [port, port + 1]);
    for (edge, origin) in [(0, "https://nexus.example"), (1, "https://www.nexus.example")] {
        let options = websocket()
            .token(token(json!({ "sub": "7" })))
            .with("path", json!("/realtime/"))
            .with("extraHeaders", json!({ "Origin": origin }));
        let client = stage.sio(edge, "/", options);
        client.connected().await;
        let expected = json!({ "success": true, "userId": "7", "email": null });
        assert_eq!(client.next_event("authenticated").await.data(), &expected);
    }
}
