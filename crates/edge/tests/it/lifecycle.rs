//! What backends are told of connections.

use std::time::Duration;

use carillon_bus::{Bucket, Subscription};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::session::{Record, State};
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

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_taken_for_dead_goes_on_under_a_new_term() {
    let lease = Duration::from_secs(2);
    let mut plan = Plan::default();
    plan.session.lease = lease;
    plan.session.renewal = Duration::from_millis(200);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut events = stage.bus.subscribe("rt.up.main.>", None).await.unwrap();
    stage.bus.flush().await;
    let client = connect(&stage, &edge, "42", json!({})).await;
    let connected = told(&mut events, "42").await;
    assert_eq!(
        (&connected["event"], &connected["term"]),
        (&json!("$connect"), &json!(1))
    );

    // What a router does once it has not seen the lease for long.
    let sid = connected["sid"].as_str().unwrap();
    let table = stage.bus.table(Bucket::Sessions);
    let entry = table.get(sid).await.unwrap().unwrap();
    let mut record: Record = serde_json::from_slice(&entry.value).unwrap();
    (record.state, record.gone) = (State::Away, Some(carillon_bus::history::now()));
    let value = serde_json::to_vec(&record).unwrap();
    table
        .update(sid, value.into(), entry.revision, None)
        .await
        .unwrap();
    let body = json!({ "event": "$disconnect", "user": { "id": "42" }, "sid": sid, "term": 1 });
    let headers = Headers::new().with(name::MSG_ID, format!("{sid}.1.disconnect"));
    stage
        .bus
        .store("rt.lifecycle.main.$disconnect", &headers, body.to_string().into())
        .await
        .unwrap();
    assert_eq!(told(&mut events, "42").await["event"], "$disconnect");

    // The edge's own clock says the same, once it has been without NATS for longer than its lease.
    stage.nats.pause();
    tokio::time::sleep(lease + Duration::from_secs(1)).await;
    stage.nats.resume();
    let back = told(&mut events, "42").await;
    assert_eq!(
        (&back["event"], &back["recovered"], &back["term"], &back["sid"]),
        (&json!("$connect"), &json!(true), &json!(2), &json!(sid))
    );
    client.assert_stayed_connected();
    let entry = table.get(sid).await.unwrap().unwrap();
    let record: Record = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!((record.state, record.term), (State::Live, 2));

    client.kill_transport();
    let gone = told(&mut events, "42").await;
    assert_eq!(
        (&gone["event"], &gone["term"]),
        (&json!("$disconnect"), &json!(2))
    );
    let again = told(&mut events, "42").await;
    assert_eq!(
        (&again["event"], &again["recovered"], &again["term"]),
        (&json!("$connect"), &json!(true), &json!(3))
    );
}
