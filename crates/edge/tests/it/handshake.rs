use carillon_protocol::headers::Headers;
use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::stage::{Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_io_client_is_told_why_it_is_refused() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let now = tokens::now();
    let bad = [
        (None, "Authentication required"),
        (Some("nonsense".to_owned()), "Invalid token"),
        (
            Some(tokens::hs256("other", &json!({ "sub": "42" }))),
            "Invalid token",
        ),
        (
            Some(tokens::hs256(
                "dev-secret",
                &json!({ "sub": "42", "exp": now - 60 }),
            )),
            "Invalid token",
        ),
        (
            Some(tokens::hs256("dev-secret", &json!({ "name": "nobody" }))),
            "Invalid token",
        ),
    ];
    for (token, message) in bad {
        let options = match token {
            Some(token) => SioOptions::websocket(token),
            None => SioOptions::new().transports(&["websocket"]),
        };
        let refused = stage.driver.sio(edge.url(), options).refused().await;
        assert_eq!(refused.message, message);
        assert_eq!(refused.data["code"], "unauthorized");
    }
    let elsewhere = stage.driver.sio(
        format!("{}/nowhere", edge.url()),
        SioOptions::websocket(tokens::dev("42")),
    );
    let refused = elsewhere.refused().await;
    assert_eq!(
        (refused.message.as_str(), &refused.data),
        ("Invalid namespace", &Value::Null)
    );
    // A good client is served all the same.
    stage.sio(&edge, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_is_refused_before_the_upgrade() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let rejected = stage
        .driver
        .ws(format!("ws://{}/ws", edge.address), WsOptions::new())
        .rejected()
        .await;
    assert_eq!(rejected.status, 401);
    assert_eq!(
        serde_json::from_str::<Value>(&rejected.body).unwrap()["code"],
        "unauthorized"
    );
    // Also where it is no handshake at all.
    let http = carillon_testkit::http::client();
    let status = async |query: &str| {
        let url = format!("http://{}{query}", edge.address);
        let response = http.get(url).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    assert_eq!(status("/ws").await.0, 401);
    assert_eq!(status("/ws?token=x").await.0, 401);
    let upgrade = status(&format!("/ws?token={}", tokens::dev("42"))).await;
    assert_eq!((upgrade.0, &upgrade.1["code"]), (426, &json!("upgrade_required")));
    let engine = status("/socket.io/?EIO=4&transport=websocket").await;
    assert_eq!(engine, (400, json!({ "code": 3, "message": "Bad request" })));
    let protocols = WsOptions::new()
        .protocol("carillon.v1")
        .protocol(format!("bearer.{}", tokens::dev("42")));
    let client = stage.driver.ws(format!("ws://{}/ws", edge.address), protocols);
    assert_eq!(client.opened().await, "carillon.v1");
    assert_eq!(client.next_of_type("welcome").await["userId"], "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn subprotocols_may_stand_in_several_lines() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let token = tokens::dev("42");
    let [name, bearer] = ["carillon.v1".to_owned(), format!("bearer.{token}")];
    for [first, second] in [[&name, &bearer], [&bearer, &name]] {
        let mut socket = TcpStream::connect(edge.address).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {first}\r\nSec-WebSocket-Protocol: {second}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(socket).lines();
        let mut head = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
            head.push(line.to_lowercase());
        }
        assert!(head[0].starts_with("http/1.1 101"), "{head:?}");
        assert!(head.contains(&"sec-websocket-protocol: carillon.v1".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_decides_and_is_away_keeps_clients_waiting_and_refuses_none() {
    let mut plan = Plan::default();
    let namespace = plan.namespaces.get_mut("/").unwrap();
    namespace.connect.ask = true;
    namespace.connect.timeout = std::time::Duration::from_millis(300);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("42")));
    let plain = stage.driver.ws(
        format!("ws://{}/ws?token={}", edge.address, tokens::dev("43")),
        WsOptions::new(),
    );
    let closed = plain.closed().await;
    assert_eq!(closed.code, 1013, "{}", closed.reason);
    let mut asked = stage.bus.subscribe("rt.up.main.$connect", None).await.unwrap();
    let bus = stage.bus.clone();
    let backend = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let body: Value = serde_json::from_slice(&message.body).unwrap();
            let allow = body["user"]["id"] == "42";
            let reply = json!({ "allow": allow, "code": "closed", "message": "Not you" });
            if let Some(to) = message.reply {
                bus.publish(&to, &Headers::new(), reply.to_string().into())
                    .await
                    .unwrap();
            }
        }
    });
    // The stock client does not come back after a connect_error, so it got none.
    client.connected().await;
    let refused = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("44")))
        .refused()
        .await;
    assert_eq!(
        (refused.message.as_str(), &refused.data["code"]),
        ("Not you", &json!("closed"))
    );
    backend.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_not_listed_is_refused() {
    let mut plan = Plan::default();
    plan.edge.cors_origin = vec!["https://app.example".to_owned()];
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let url = format!("ws://{}/ws?token={}", edge.address, tokens::dev("42"));
    let rejected = stage
        .driver
        .ws(&url, WsOptions::new().header("Origin", "https://evil.example"))
        .rejected()
        .await;
    assert_eq!(rejected.status, 403);
    let client = stage
        .driver
        .ws(&url, WsOptions::new().header("Origin", "https://app.example"));
    client.next_of_type("welcome").await;
    stage.ws(&edge, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_closes_the_connection_unless_it_is_refreshed() {
    let mut plan = Plan::default();
    plan.auth.leeway = std::time::Duration::ZERO;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let short = tokens::hs256("dev-secret", &json!({ "sub": "42", "exp": tokens::now() + 3 }));
    let refreshed = stage.driver.sio(edge.url(), SioOptions::websocket(&short));
    refreshed.connected().await;
    let left = stage.driver.sio(edge.url(), SioOptions::websocket(&short));
    left.connected().await;
    refreshed.next_event("auth:expiring").await;
    let answer = refreshed
        .emit_ack("auth:refresh", json!([{ "token": tokens::dev("42") }]))
        .await;
    assert_eq!(answer[0]["ok"], true);
    let other = refreshed
        .emit_ack("auth:refresh", json!([{ "token": tokens::dev("43") }]))
        .await;
    assert_eq!(other[0]["error"]["code"], "unauthorized");
    left.disconnected().await;
    stage.publish("user:42", "still", json!(1)).await;
    refreshed.next_event("still").await;
}
