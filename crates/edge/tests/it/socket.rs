//! WebSockets of Socket.IO clients, in what differs from one client to another.

use std::time::Duration;

use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::raw_polling::Raw;
use crate::stage::{Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_changes_to_a_websocket_is_pinged_soon() {
    let mut plan = Plan::default();
    plan.edge.ping_timeout = Duration::from_secs(2);
    let stage = Stage::with(plan).await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    for edge in [&first, &second] {
        let raw = Raw::open(&first).await;
        raw.post("p", &format!("40{}", json!({ "token": tokens::dev("42") })))
            .await;
        raw.poll_until("e", "40{").await;
        let url = format!(
            "ws://{}/socket.io/?EIO=4&transport=websocket&sid={}",
            edge.address, raw.sid
        );
        let socket = stage.driver.ws(url, WsOptions::new());
        socket.opened().await;
        socket.send_text("2probe");
        assert_eq!(socket.next_message().await, "3probe");
        socket.send_text("5");
        // Sooner than the interval.
        assert_eq!(socket.next_message().await, 2);
        socket.send_text("3");
        stage.publish("user:42", "tick", json!(1)).await;
        let tick = |message: &Value| message.as_str().is_some_and(|text| text.contains("tick"));
        socket.next_matching("the event", tick).await;
        socket.cut();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_bytes_as_base64() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let bytes = json!({ "$binary": "AAEC/w==" });
    let mut heard = stage.bus.subscribe("rt.up.main.said", None).await.unwrap();
    stage.bus.flush().await;
    let options = SioOptions::websocket(tokens::dev("42")).with("forceBase64", json!(true));
    let client = stage.driver.sio(edge.url(), options);
    client.connected().await;
    client.emit("said", json!([{ "file": bytes }]));
    let said = tokio::time::timeout(crate::stage::PATIENCE, heard.next()).await;
    let said: Value = serde_json::from_slice(&said.unwrap().unwrap().body).unwrap();
    assert_eq!(said["data"], json!({ "file": bytes }));
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_offers_subprotocols_is_answered_one() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let token = tokens::dev("42");
    let bearer = format!("bearer.{token}");
    for (offered, chosen) in [(json!(["x", "y"]), "x"), (json!([bearer]), bearer.as_str())] {
        let options = SioOptions::websocket(&token).with("protocols", offered.clone());
        stage.driver.sio(edge.url(), options).connected().await;
        let options = SioOptions::new().token(&token).with("protocols", offered.clone());
        let client = stage.driver.sio(edge.url(), options);
        client.connected().await;
        assert_eq!(client.upgraded().await, "websocket");
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", edge.address);
        let names = offered.as_array().unwrap().iter();
        let options = names.fold(WsOptions::new(), |options, name| {
            options.protocol(name.as_str().unwrap())
        });
        assert_eq!(stage.driver.ws(url, options).opened().await, chosen);
    }
}
