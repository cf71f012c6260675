//! What backends are told of connections.

use carillon_bus::Subscription;
use carillon_testkit::clients::{SioClient, SioOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{Edge, PATIENCE, Plan, Stage};

/// Returns the next event of a user.
async fn told(events: &mut Subscription, user: &str) -> Value {
    let wanted = async {
        loop {
            let event = events.next().await.unwrap();
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            if body["user"]["id"] == user {
                return body;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wanted).await.unwrap()
}

async fn connect(stage: &Stage, edge: &Edge, user: &str, auth: Value) -> SioClient {
    let mut auth = auth;
    auth["token"] = tokens::dev(user).into();
    let options = SioOptions::websocket(tokens::dev(user)).with("auth", auth);
    let client = stage.driver.sio(edge.url(), options);
    client.connected().await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn handshake_data_that_is_too_large_is_left_out() {
    let mut plan = Plan::default();
    plan.nats.max_payload = 128 * 1024;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut events = stage.bus.subscribe("rt.up.main.$connect", None).await.unwrap();
    stage.bus.flush().await;
    // More than backends are shown, more than NATS takes, and what is passed on.
    for (size, is_passed_on) in [(300_000, false), (200_000, false), (1000, true)] {
        let data = "x".repeat(size);
        let _client = connect(&stage, &edge, "42", json!({ "data": data })).await;
        let body = told(&mut events, "42").await;
        let (auth, omitted) = if is_passed_on {
            (json!({ "data": data }), Value::Null)
        } else {
            (Value::Null, json!(["auth"]))
        };
        assert_eq!((&body["auth"], &body["omitted"]), (&auth, &omitted), "{size}");
    }
}
