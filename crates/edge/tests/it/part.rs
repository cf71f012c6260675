//! How connections end: by their clients, by a cut, by a revocation; and what the record says then.

use std::time::Duration;

use carillon_bus::Bucket;
use carillon_protocol::headers::Headers;
use carillon_protocol::message::{Ended, Revoked};
use carillon_protocol::session::{Record, State};
use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::{tokens, wait};
use serde_json::json;

use crate::stage::{PATIENCE, Stage};

async fn record(stage: &Stage, sid: &str) -> Record {
    let entry = stage.bus.table(Bucket::Sessions).get(sid).await.unwrap();
    serde_json::from_slice(&entry.unwrap().value).unwrap()
}

async fn parted(stage: &Stage, sid: &str) -> Record {
    wait::until_true("the session has no transport", PATIENCE, async || {
        record(stage, sid).await.state != State::Live
    })
    .await;
    record(stage, sid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_by_itself_has_heard_what_came_before() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (plain, welcome) = stage.ws(&edge, "42").await;
    let socket = stage.sio(&edge, "43").await;
    let cut = stage.sio(&edge, "44").await;
    let sid = socket.state().await["sid"].as_str().unwrap().to_owned();
    let cut_sid = cut.state().await["sid"].as_str().unwrap().to_owned();

    let first = stage.publish("user:42", "note", json!(1)).await;
    plain.next_message().await;
    let second = stage.publish("user:43", "note", json!(2)).await;
    socket.next_event("note").await;
    stage.publish("user:44", "note", json!(3)).await;
    cut.next_event("note").await;

    plain.close(1000, "bye");
    let record = parted(&stage, welcome["sid"].as_str().unwrap()).await;
    assert_eq!((record.state, record.complete), (State::Away, Some(first)));
    socket.disconnect();
    let record = parted(&stage, &sid).await;
    assert_eq!((record.state, record.complete), (State::Ended, Some(second)));
    // It may have gone before it read what was written to it.
    cut.set_url("http://127.0.0.1:9").await;
    cut.cut();
    let record = parted(&stage, &cut_sid).await;
    assert_eq!((record.state, record.complete), (State::Away, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_connections_and_they_are_counted() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let token = tokens::hs256("dev-secret", &json!({ "sub": "42", "jti": "t1" }));
    let socket = stage.driver.sio(edge.url(), SioOptions::websocket(token.clone()));
    let sid = socket.connected().await.sid;
    let url = format!("ws://{}/ws?token={token}", edge.address);
    let plain = stage.driver.ws(&url, WsOptions::new());
    plain.next_of_type("welcome").await;
    let other = stage.sio(&edge, "42").await;

    let owner = record(&stage, &sid).await.owner;
    let subject = format!("{}.revoked", stage.bus.subjects().edge(owner));
    let revoked = Revoked {
        user: None,
        jti: Some("t1".to_owned()),
        at: carillon_bus::history::now(),
    };
    // The bucket and a router tell the same one.
    for _ in 0..2 {
        let body = serde_json::to_vec(&revoked).unwrap();
        let answer = stage
            .bus
            .request(&subject, &Headers::new(), body.into(), Duration::from_secs(5))
            .await
            .unwrap();
        let ended: Ended = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(ended.connections, 2);
    }
    assert_eq!(socket.disconnected().await, "io server disconnect");
    assert_eq!(parted(&stage, &sid).await.state, State::Ended);
    other.assert_stayed_connected();
}
