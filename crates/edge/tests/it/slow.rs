//! Clients that do not read: their queue is bounded, and nobody else waits for them.

use std::time::Duration;

use carillon_service::settings::{AutoJoin, Overflow, RoomRule};
use carillon_testkit::clients::{WsClient, WsOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw_polling::Raw;
use crate::stage::{PATIENCE, Plan, Stage, copy_of_list};

/// More than the sockets' buffers take.
const EVENTS: u64 = 1200;

impl Stage {
    /// Small queues, and a room `kept` of which nothing may be lost whatever the namespace says.
    async fn with_small_queues(overflow: Overflow) -> Self {
        let mut plan = Plan::default();
        plan.edge.queue = 64 * 1024;
        let namespace = plan.namespaces.get_mut("/").unwrap();
        namespace.overflow = overflow;
        let kept = RoomRule {
            overflow: Some(Overflow::CloseAndRecover),
            ..RoomRule::open("kept")
        };
        namespace.rooms.insert(0, kept);
        namespace.auto_join.push(AutoJoin {
            room: "kept".to_owned(),
            ..AutoJoin::default()
        });
        Self::with(plan).await
    }

    async fn publish_much(&self) {
        let filling = "x".repeat(8 * 1024);
        for n in 1..=EVENTS {
            self.publish("all", "much", json!({ "n": n, "filling": filling }))
                .await;
        }
    }
}

fn number(event: &Value) -> u64 {
    event["payload"]["n"].as_u64().unwrap()
}

/// A client that reads gets everything in order.
async fn gets_all(client: &WsClient, from: u64) {
    for n in from..=EVENTS {
        assert_eq!(number(&client.next_event("much").await), n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_recovers_while_its_neighbour_hears_on() {
    let stage = Stage::with_small_queues(Overflow::CloseAndRecover).await;
    let edge = stage.edge().await;
    let (stalled, _) = stage.ws(&edge, "1").await;
    let (neighbour, _) = stage.ws(&edge, "2").await;
    stalled.pause().await;
    tokio::join!(stage.publish_much(), gets_all(&neighbour, 1));
    stalled.resume().await;
    let closed = stalled.closed().await;
    assert_eq!(closed.code, 1013, "{closed:?}");
    assert_eq!(stalled.next_of_type("error").await["code"], "slow_client");
    // What had left before the queue was full is in order and without a gap.
    let mut last = (0, None);
    while let Some(event) = stalled.event_now("much") {
        assert_eq!(number(&event), last.0 + 1);
        last = (number(&event), event["offset"].as_str().map(str::to_owned));
    }
    assert!(last.0 < EVENTS, "the queue never was full");
    let since = last.1.expect("something was heard before");
    let url = format!(
        "ws://{}/ws?token={}&since={since}",
        edge.address,
        tokens::dev("1")
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(resumed.next_of_type("welcome").await["recovered"], true);
    gets_all(&resumed, last.0 + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_the_latest_counts_a_client_that_does_not_read_stays_and_gets_that() {
    let stage = Stage::with_small_queues(Overflow::LatestOnly).await;
    let edge = stage.edge().await;
    let (stalled, _) = stage.ws(&edge, "1").await;
    stalled.pause().await;
    stage.publish_much().await;
    stalled.resume().await;
    let mut last = 0;
    let mut heard = 0;
    while last < EVENTS {
        let n = number(&stalled.next_event("much").await);
        assert!(n > last, "{n} came after {last}");
        (last, heard) = (n, heard + 1);
    }
    assert!(heard < EVENTS, "the queue never was full");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_recovered_does_not_go_for_a_room_that_may_lose_some() {
    let stage = Stage::with_small_queues(Overflow::DropOldest).await;
    let edge = stage.edge().await;
    let idle = Raw::open(&edge).await;
    idle.post("a", &format!("40{}", json!({ "token": tokens::dev("1") })))
        .await;
    idle.poll_until("b", "40{").await;
    let (neighbour, _) = stage.ws(&edge, "2").await;
    // It waits before more than its queue takes, and so does a list's copy that stands for the one of `kept`.
    stage.publish("kept", "kept", json!({})).await;
    stage.store("all", "both", json!({}), copy_of_list(0, 2)).await;
    stage.store("kept", "both", json!({}), copy_of_list(1, 2)).await;
    let filling = "x".repeat(8 * 1024);
    for n in 1..=20 {
        stage
            .publish("all", "much", json!({ "n": n, "filling": filling }))
            .await;
        assert_eq!(number(&neighbour.next_event("much").await), n);
    }
    let (_, body) = idle.poll("c").await;
    let packets: Vec<&str> = body.split('\u{1e}').collect();
    for (packet, event) in packets.iter().zip(["kept", "both"]) {
        assert!(packet.starts_with(&format!(r#"42["{event}""#)), "{packet}");
    }
    assert!(packets.len() < 20, "the queue never was full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_not_read_ends_without_an_id_above_its_last_event() {
    let mut plan = Plan::default();
    plan.edge.queue = 64 * 1024;
    plan.edge.ws_ping_interval = Duration::from_millis(200);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (neighbour, _) = stage.ws(&edge, "2").await;
    let mut stalled = TcpStream::connect(edge.address).await.unwrap();
    let path = format!("/sse?token={}", tokens::dev("1"));
    let request = format!("GET {path} HTTP/1.1\r\nhost: edge\r\n\r\n");
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while memchr::memmem::find(&read, b"welcome").is_none() {
        assert!(stalled.read_buf(&mut read).await.unwrap() > 0);
    }
    tokio::join!(stage.publish_much(), gets_all(&neighbour, 1));
    neighbour.pinged().await;
    tokio::time::timeout(PATIENCE, stalled.read_to_end(&mut read))
        .await
        .expect("the stream ends")
        .unwrap();
    let text = String::from_utf8_lossy(&read);
    let mut last = (None, None);
    for line in text.lines() {
        if let Some(id) = line.strip_prefix("id: ") {
            last.0 = Some(id);
        } else if line.starts_with("data: ") && line.contains("much") {
            last.1 = last.0;
        }
    }
    assert!(text.contains("slow_client"), "the queue never was full");
    assert_eq!(last.0, last.1);
}
