//! What the limit of a room evicts is told, whatever else expires; what only expires is not.

use carillon_bus::Limit;
use carillon_bus::history::now;
use carillon_protocol::before::Before;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::offset::Offset;
use carillon_testkit::clients::{SioClient, WsClient, WsOptions};
use carillon_testkit::{tokens, wait};
use serde_json::json;

use crate::stage::{Edge, PATIENCE, Plan, Stage};

/// A room to which the test stores as a publisher does.
struct Line<'a> {
    stage: &'a Stage,
    room: &'static str,
    before: Before,
}

impl<'a> Line<'a> {
    fn new(stage: &'a Stage, room: &'static str) -> Self {
        Self {
            stage,
            room,
            before: Before::default(),
        }
    }

    async fn store(&mut self, n: u64, ttl: Option<u64>) -> u64 {
        let mut headers = Headers::new().with(name::BEFORE, self.before.to_header(u64::MAX, u64::MAX));
        if let Some(ttl) = ttl {
            headers.push(name::TTL, format!("{ttl}s"));
        }
        let expires = ttl.map(|ttl| now() + ttl * 1000);
        let sequence = self.stage.store(self.room, "tick", json!(n), headers).await;
        self.before.push(sequence, expires);
        sequence
    }

    /// Waits until so many messages are left.
    async fn shrinks_to(&self, count: usize) {
        let stream = &self.stage.streams.of(&Namespace::main()).unwrap().name;
        let room = Room::new(self.room).unwrap();
        let subject = self.stage.bus.subjects().event(&Namespace::main(), &room);
        wait::until_true(format!("{count} messages are left"), PATIENCE, async || {
            let stored = self
                .stage
                .bus
                .read(stream, &subject, 0, u64::MAX, Limit::NONE)
                .await;
            stored.is_ok_and(|stored| stored.messages.len() == count)
        })
        .await;
    }
}

async fn stage(max_per_room: u64) -> Stage {
    let mut plan = Plan::default();
    plan.history.max_per_room = max_per_room;
    Stage::with(plan).await
}

/// A Socket.IO client that has the first event of the room of user 42 and tries in vain to connect, and the offset now.
async fn away(line: &mut Line<'_>, edge: &Edge) -> (SioClient, String) {
    let client = line.stage.sio(edge, "42").await;
    line.store(0, None).await;
    client.next_event("tick").await;
    client.set_url("http://127.0.0.1:1").await;
    client.cut();
    client.disconnected().await;
    let (plain, _) = line.stage.ws(edge, "43").await;
    plain.send(&json!({ "type": "ping" }));
    let pong = plain.next_of_type("pong").await;
    (client, pong["offset"].as_str().unwrap().to_owned())
}

/// A plain client that of user 42 that shows an offset, and whether it recovers.
async fn resume(stage: &Stage, edge: &Edge, offset: &str) -> (WsClient, bool) {
    let token = tokens::dev("42");
    let url = format!("ws://{}/ws?token={token}&since={offset}", edge.address);
    let client = stage.driver.ws(&url, WsOptions::new());
    let recovered = client.next_of_type("welcome").await["recovered"] == true;
    (client, recovered)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_is_told_where_others_have_expired() {
    let stage = stage(5).await;
    let edge = stage.edge().await;
    let mut line = Line::new(&stage, "user:42");
    let (client, offset) = away(&mut line, &edge).await;
    let mut sequences = Vec::new();
    for n in 1..=7 {
        sequences.push(line.store(n, None).await);
    }
    line.store(8, Some(1)).await;
    line.shrinks_to(4).await;
    let (plain, recovered) = resume(&stage, &edge, &offset).await;
    assert!(!recovered);
    let told = plain.next_of_type("error").await;
    assert_eq!(told["code"], "history_lost");
    let oldest: Offset = told["oldest"].as_str().unwrap().parse().unwrap();
    assert_eq!(oldest.sequence, sequences[3]);
    for n in 4..=7 {
        assert_eq!(plain.next_event("tick").await["payload"], n);
    }
    client.set_url(&edge.url()).await;
    assert!(!client.connected().await.recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_event_that_has_not_expired_is_told() {
    let stage = stage(3).await;
    let edge = stage.edge().await;
    let mut line = Line::new(&stage, "user:42");
    let (_, offset) = away(&mut line, &edge).await;
    line.store(1, Some(600)).await;
    line.store(2, Some(1)).await;
    for n in 3..=4 {
        line.store(n, None).await;
    }
    line.store(5, Some(1)).await;
    line.shrinks_to(2).await;
    let (plain, recovered) = resume(&stage, &edge, &offset).await;
    assert!(!recovered);
    assert_eq!(plain.next_of_type("error").await["code"], "history_lost");
    for n in 3..=4 {
        assert_eq!(plain.next_event("tick").await["payload"], n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_and_a_room_that_is_just_full_are_not_told() {
    let stage = stage(3).await;
    let edge = stage.edge().await;
    let mut line = Line::new(&stage, "user:42");
    let (client, offset) = away(&mut line, &edge).await;
    for n in 1..=2 {
        line.store(n, Some(1)).await;
    }
    // The event that the client has is left.
    line.shrinks_to(1).await;
    for n in 3..=5 {
        line.store(n, None).await;
    }
    let (plain, recovered) = resume(&stage, &edge, &offset).await;
    assert!(recovered);
    client.set_url(&edge.url()).await;
    assert!(client.connected().await.recovered);
    for n in 3..=5 {
        assert_eq!(plain.next_event("tick").await["payload"], n);
        assert_eq!(*client.next_event("tick").await.data(), n);
    }
    plain.assert_no_message("an error", |message| message["type"] == "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_learns_of_a_gap_too_that_cannot_be_read_any_more() {
    let stage = stage(3).await;
    let edge = stage.edge().await;
    let socket = stage.sio(&edge, "42").await;
    let (plain, _) = stage.ws(&edge, "42").await;
    let mut line = Line::new(&stage, "user:42");
    line.store(0, None).await;
    socket.next_event("tick").await;
    let offset = plain.next_event("tick").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    let republish = stage.without_republish().await;
    for n in 1..=5 {
        line.store(n, None).await;
    }
    stage.with_republish(republish).await;
    line.store(6, None).await;
    assert_eq!(plain.closed().await.code, 1013);
    socket.disconnected().await;
    assert!(!socket.connected().await.recovered);
    let (plain, recovered) = resume(&stage, &edge, &offset).await;
    assert!(!recovered);
    assert_eq!(plain.next_of_type("error").await["code"], "history_lost");
    for n in 4..=6 {
        assert_eq!(plain.next_event("tick").await["payload"], n);
    }
}
