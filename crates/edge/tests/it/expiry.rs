//! Tokens that expire: what clients of each kind are told of it, and when.

use std::time::Duration;

use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::tokens;
use serde_json::json;

use crate::stage::{Plan, Stage};

fn token(user: &str, seconds: i64) -> String {
    tokens::hs256(
        "dev-secret",
        &json!({ "sub": user, "exp": tokens::now() + seconds }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_json_protocol_is_told_by_an_error() {
    let mut plan = Plan::default();
    plan.auth.leeway = Duration::ZERO;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let query = format!("token={}", token("42", 3));
    let expired = json!({ "type": "error", "code": "token_expired", "message": "the token has expired" });
    let ws = stage
        .driver
        .ws(format!("ws://{}/ws?{query}", edge.address), WsOptions::new());
    let sse = stage
        .driver
        .sse(format!("http://{}/sse?{query}", edge.address), &[]);
    assert_eq!(ws.next_of_type("error").await, expired);
    let is_error = |message: &carillon_testkit::clients::SseMessage| message.json["type"] == "error";
    assert_eq!(sse.next_matching("an error", is_error).await.json, expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_on_its_way_in_is_warned_once_it_is_in() {
    let mut plan = Plan::default();
    plan.edge.expiry_warning = Duration::from_secs(2);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let [before, behind] = ["42", "43"].map(|user| SioOptions::websocket(token(user, 5)));
    let before = stage.driver.sio(edge.url(), before);
    before.connected().await;
    // The edge knows a place in the stream, and needs no other for a new client.
    stage.publish("user:42", "tick", json!(1)).await;
    before.next_event("tick").await;
    stage.nats.pause();
    let behind = stage.driver.sio(edge.url(), behind);
    before.next_event("auth:expiring").await;
    stage.nats.resume();
    behind.connected().await;
    behind.next_event("auth:expiring").await;
}
