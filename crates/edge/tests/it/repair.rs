use carillon_bus::HistoryError;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::{Namespace, Room};
use serde_json::json;

use crate::stage::{Plan, Stage};

/// A republished copy that never came: what follows it names it as the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_never_came_is_read_and_sent_in_order() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage.publish("user:42", "tick", json!(1)).await;
    client.next_event("tick").await;
    // The stream stops republishing for two events, then a delivery tells of a later one.
    let subject = stage
        .bus
        .subjects()
        .event(&Namespace::main(), &Room::of_user("42"));
    let republish = stage.without_republish().await;
    let mut sequences = Vec::new();
    for n in 2..=4 {
        sequences.push(stage.publish("user:42", "tick", json!(n)).await);
    }
    stage.with_republish(republish).await;
    let headers = Headers::new()
        .with("Carillon-Event", "tick")
        .with("Nats-Sequence", sequences[2].to_string())
        .with("Nats-Last-Sequence", sequences[1].to_string())
        .with("Nats-Subject", &*subject);
    let delivery = stage
        .bus
        .subjects()
        .delivery(&Namespace::main(), &Room::of_user("42"));
    stage.bus.publish(&delivery, &headers, "4".into()).await.unwrap();
    for n in 2..=4 {
        assert_eq!(client.next_event("tick").await["payload"], n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_is_longer_than_one_read_is_closed_whole() {
    const GAP: u64 = 10_100;
    let mut plan = Plan::default();
    plan.history.max_per_room = 20_000;
    plan.edge.queue = 64 << 20;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage.publish("user:42", "tick", json!(0)).await;
    client.next_event("tick").await;
    let republish = stage.without_republish().await;
    let mut stored = Vec::new();
    for n in 1..GAP {
        stored.push(stage.burst("user:42", "tick", json!(n)).await);
    }
    for stored in stored {
        stored.await.unwrap();
    }
    stage.publish("user:42", "tick", json!(GAP)).await;
    stage.with_republish(republish).await;
    stage.publish("user:42", "tick", json!(GAP + 1)).await;
    for n in 1..=GAP + 1 {
        assert_eq!(client.next_event("tick").await["payload"], n);
    }
}

/// The last event of a room was never delivered, and nothing follows: only a comparison with the stream finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tail_is_found_when_a_publisher_says_so() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let republish = stage.without_republish().await;
    stage.publish("user:42", "tail", json!(1)).await;
    stage.with_republish(republish).await;
    stage.doubt("user:42", 0).await;
    assert_eq!(client.next_event("tail").await["payload"], 1);
    // It comes once, and what follows is in order.
    stage.publish("user:42", "end", json!(2)).await;
    client.next_event("end").await;
    client.assert_no_message("second copy", |message| message["event"] == "tail");
}

/// A replica may answer without what was stored last: the answer must reach as far as the barrier.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stays_behind_is_asked_for_again() {
    let stage = Stage::start().await;
    let stream = &stage.streams.of(&Namespace::main()).unwrap().name;
    let sequence = stage.publish("a", "first", json!(1)).await;
    let room = Room::new("a").unwrap();
    let asked = [stage.bus.subjects().event(&Namespace::main(), &room)];
    let ahead = stage.bus.last(stream, &asked, sequence + 1);
    let (lasts, next) = tokio::join!(ahead, stage.publish("a", "second", json!(2)));
    assert_eq!(lasts.unwrap()[0].sequence, next);
    let error = stage.bus.last(stream, &asked, next + 1).await.unwrap_err();
    assert_eq!(error, HistoryError::Stale);
}

impl Stage {
    /// Stops the republishing of the events' stream, and returns how it was.
    pub(crate) async fn without_republish(&self) -> serde_json::Value {
        let mut republish = serde_json::Value::Null;
        self.change_events(|config| {
            republish = config["republish"].take();
            config.as_object_mut().unwrap().remove("republish");
        })
        .await;
        republish
    }

    pub(crate) async fn with_republish(&self, republish: serde_json::Value) {
        self.change_events(|config| config["republish"] = republish).await;
    }

    /// Changes the configuration of the events' stream.
    pub(crate) async fn change_events(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let name = &self.streams.of(&Namespace::main()).unwrap().name;
        let info = self.api(&format!("STREAM.INFO.{name}"), json!({})).await;
        let mut config = info["config"].clone();
        change(&mut config);
        self.update(&config).await;
    }

    async fn update(&self, config: &serde_json::Value) {
        let name = config["name"].as_str().unwrap();
        let answer = self.api(&format!("STREAM.UPDATE.{name}"), config.clone()).await;
        assert!(answer["error"].is_null(), "{answer}");
    }

    async fn api(&self, verb: &str, body: serde_json::Value) -> serde_json::Value {
        let body = body.to_string().into();
        let timeout = crate::stage::PATIENCE;
        let reply = self
            .bus
            .request(&format!("$JS.API.{verb}"), &Headers::new(), body, timeout)
            .await
            .unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }
}
