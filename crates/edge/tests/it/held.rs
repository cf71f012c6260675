//! Rooms that cannot be read for a while: whoever leaves, comes in or comes back meanwhile loses nothing.

use std::time::Duration;

use carillon_bus::{Bucket, RequestError};
use carillon_protocol::doubt::Findings;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::State;
use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::{tokens, wait};
use serde_json::json;

use crate::moves::record;
use crate::stage::{PATIENCE, Stage};

impl Stage {
    /// Lets the history be read, or not.
    async fn readable(&self, is_readable: bool) {
        self.change_events(|config| config["allow_direct"] = is_readable.into())
            .await;
    }

    /// Stores an event of a room that is never delivered, and the one behind it, which shows the gap; neither can be
    /// read yet.
    async fn gap(&self, room: &str) {
        let republish = self.without_republish().await;
        self.publish(room, "lost", json!({})).await;
        self.with_republish(republish).await;
        self.publish("all", "later", json!({})).await;
        self.readable(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_closed_while_a_room_is_repaired_recovers_what_it_lacks() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    client.set_patience(PATIENCE);
    let sid = client.state().await["sid"].as_str().unwrap().to_owned();
    stage.publish("user:42", "first", json!({})).await;
    client.next_event("first").await;
    stage.gap("user:42").await;
    // Its offset is above what it lacks.
    client.next_event("later").await;
    stage.publish("user:42", "gap", json!({})).await;
    client.disconnected().await;
    // Attempts to come back fail, and leave the record with what it has to say.
    wait::until_true("attempts to recover", PATIENCE, async || {
        let record = record(&stage, &sid).await;
        record.term >= 3 && record.state == State::Away
    })
    .await;
    stage.readable(true).await;
    assert!(client.connected().await.recovered);
    client.next_event("lost").await;
    client.next_event("gap").await;
    stage.publish("user:42", "end", json!({})).await;
    client.next_event("end").await;
    for event in ["first", "lost", "later", "gap"] {
        client.assert_no_event(event);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_in_vain_is_away_since_it_went() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    client.set_patience(PATIENCE);
    let sid = client.state().await["sid"].as_str().unwrap().to_owned();
    // Without an offset there would be nothing to read.
    stage.publish("user:42", "first", json!({})).await;
    client.next_event("first").await;
    stage.readable(false).await;
    client.cut();
    let away = async |least| {
        wait::until("the session is away", PATIENCE, async || {
            let record = record(&stage, &sid).await;
            (record.term >= least && record.state == State::Away).then_some(record.gone)
        })
        .await
    };
    let gone = away(1).await;
    stage.publish("user:42", "second", json!({})).await;
    assert_eq!(away(3).await, gone);
    stage.readable(true).await;
    assert!(client.connected().await.recovered);
    client.next_event("second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_that_is_closed_while_a_room_is_repaired_is_given_what_it_lacks() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage.publish("user:42", "first", json!({})).await;
    client.next_event("first").await;
    stage.gap("user:42").await;
    let since = client.next_event("later").await["offset"].clone();
    stage.publish("user:42", "gap", json!({})).await;
    assert_eq!(client.closed().await.code, 1013);
    wait::until_true("what it lacks is written down", PATIENCE, async || {
        let entries = stage.bus.table(Bucket::Cluster).all("findings.*.*").await;
        let mut findings = entries
            .iter()
            .flatten()
            .filter_map(|entry| serde_json::from_slice::<Findings>(&entry.value).ok());
        findings.any(|findings| !findings.late.is_empty())
    })
    .await;
    stage.readable(true).await;
    let url = format!(
        "ws://{}/ws?token={}&since={}",
        edge.address,
        tokens::dev("42"),
        since.as_str().unwrap()
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(resumed.next_of_type("welcome").await["recovered"], true);
    resumed.next_event("lost").await;
    resumed.next_event("gap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_a_room_under_repair_is_held_with_the_others() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (member, _) = stage.ws(&edge, "1").await;
    let (other, _) = stage.ws(&edge, "2").await;
    member.subscribe("chat", None).await;
    stage.publish("chat", "first", json!({})).await;
    member.next_event("first").await;
    stage.gap("chat").await;
    member.next_event("later").await;
    other.next_event("later").await;
    // The gap shows before the other one comes.
    stage.publish("chat", "gap", json!({})).await;
    stage.publish("user:1", "held", json!({})).await;
    let (seen, _) = stage.ws(&edge, "3").await;
    stage.publish("user:3", "mark", json!({})).await;
    seen.next_event("mark").await;
    other.subscribe("chat", None).await;
    stage.publish("chat", "next", json!({})).await;
    stage.publish("user:2", "after", json!({})).await;
    stage.publish("user:3", "mark", json!({})).await;
    seen.next_event("mark").await;
    other.assert_no_message("event that passes what is held", |message| {
        message["event"] == "after"
    });
    stage.readable(true).await;
    other.next_event("next").await;
    other.next_event("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_a_session_room_is_found_though_the_link_was_broken() {
    let mut stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, welcome) = stage.ws(&edge, "42").await;
    let room = format!("session:{}", welcome["sid"].as_str().unwrap());
    stage.publish("all", "first", json!({})).await;
    client.next_event("first").await;
    let republish = stage.without_republish().await;
    stage.publish(&room, "lost", json!({})).await;
    stage.with_republish(republish).await;
    stage.nats.stop().await;
    stage.nats.restart().await;
    client.set_patience(PATIENCE);
    client.next_event("lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_new_session_was_in_comes_once() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let _neighbour = stage.ws(&edge, "1").await;
    let subjects = stage.bus.subjects();
    let main = Namespace::main();
    // Without republishing no barrier passes, so the session waits while an event comes to a room that it is in.
    let republish = stage.without_republish().await;
    let options = SioOptions::websocket(tokens::dev("42"));
    let client = stage.driver.sio(edge.url(), options);
    let own = subjects.delivery(&main, &Room::of_user("42"));
    wait::until_true("the session waits for its barrier", PATIENCE, async || {
        let timeout = Duration::from_millis(100);
        let asked = stage.bus.request(&own, &Headers::new(), "".into(), timeout).await;
        matches!(asked, Err(RequestError::Timeout))
    })
    .await;
    let sequence = stage.publish("all", "early", json!({})).await;
    let headers = Headers::new()
        .with("Carillon-Event", "early")
        .with("Nats-Sequence", sequence.to_string())
        .with("Nats-Last-Sequence", "0")
        .with("Nats-Subject", subjects.event(&main, &Room::all()));
    let all = subjects.delivery(&main, &Room::all());
    stage.bus.publish(&all, &headers, "{}".into()).await.unwrap();
    stage.bus.flush().await;
    stage.with_republish(republish).await;
    client.set_patience(PATIENCE);
    client.connected().await;
    client.next_event("early").await;
    client.cut();
    assert!(client.connected().await.recovered);
    stage.publish("user:42", "end", json!({})).await;
    client.next_event("end").await;
    client.assert_no_event("early");
}
