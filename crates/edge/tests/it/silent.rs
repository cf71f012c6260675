//! Polling clients that fall silent: they were gone when they were heard last.

use std::time::Duration;

use carillon_bus::history::now;
use carillon_protocol::session::State;
use carillon_testkit::tokens;
use carillon_testkit::wait::until;
use serde_json::{Value, json};

use crate::moves::record;
use crate::raw_polling::Raw;
use crate::stage::{Edge, PATIENCE, Plan, Stage};

async fn stage() -> Stage {
    let mut plan = Plan::default();
    plan.edge.ping_interval = Duration::from_secs(1);
    plan.edge.ping_timeout = Duration::from_secs(2);
    Stage::with(plan).await
}

/// Enters the main namespace; returns the session's id too.
async fn enter(edge: &Edge) -> (Raw, String) {
    let raw = Raw::open(edge).await;
    raw.post("p", &format!("40{}", json!({ "token": tokens::dev("42") })))
        .await;
    let answer = raw.poll_until("e", "40{").await;
    let packet = answer
        .split('\u{1e}')
        .find_map(|packet| packet.strip_prefix("40"));
    let greeting: Value = serde_json::from_str(packet.unwrap()).unwrap();
    (raw, greeting["sid"].as_str().unwrap().to_owned())
}

/// Waits until the session is away, and returns since when.
async fn gone(stage: &Stage, sid: &str) -> u64 {
    until("the client is away", PATIENCE, async || {
        let record = record(stage, sid).await;
        record.gone.filter(|_| record.state == State::Away)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_polling_was_gone_since_its_last_poll() {
    let stage = stage().await;
    let edge = stage.edge().await;
    let (_raw, sid) = enter(&edge).await;
    let polled = now();
    assert!(gone(&stage, &sid).await <= polled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_polls_and_never_answers_was_there_until_its_last_request() {
    let stage = stage().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let (raw, sid) = enter(&first).await;
    let elsewhere = format!("{}/socket.io/?EIO=4&transport=polling", second.url());
    // The ping comes, and is not answered.
    raw.poll_until("q", "2").await;
    let pinged = now();
    assert_eq!(raw.poll_at(&elsewhere, "r").await, (200, "1".to_owned()));
    let ended = now();
    let gone = gone(&stage, &sid).await;
    assert!((pinged..ended).contains(&gone), "{pinged}..{ended}: {gone}");
}
