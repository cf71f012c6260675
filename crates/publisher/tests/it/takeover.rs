use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bucket, Lease};
use carillon_protocol::doubt::Doubt;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use carillon_service::settings;
use carillon_testkit::wait;
use serde_json::json;

use crate::stage::{LIMIT, Options, Stage, data, event_subject, is_numbered};

const ROOMS: usize = 6;

/// Sends numbered events to all rooms, as fast as they are acknowledged in bulk.
async fn publish_numbers(stage: &Stage, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let mut acks = Vec::new();
        for number in chunk {
            for room in 0..ROOMS {
                let body = Bytes::from(json!({ "event": "e", "data": number }).to_string());
                let subject = format!("rt.pub.main.room{room}");
                acks.push(
                    stage
                        .bus
                        .store_later(&subject, &Headers::new(), body)
                        .await
                        .unwrap(),
                );
            }
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }
}

/// Waits until a room has more than so many events.
async fn stored_past(stage: &Stage, room: &str, count: usize) {
    let subject = event_subject(&stage.bus, room);
    wait::until_true(format!("{count} events in {room}"), LIMIT, async || {
        stage.read("RT_EVENTS", &subject).await.len() > count
    })
    .await;
}

async fn all_rooms_are_numbered(stage: &Stage, count: usize) {
    for room in 0..ROOMS {
        stage.room(&format!("room{room}"), count).await;
    }
    stage.ingest_is_empty().await;
    for room in 0..ROOMS {
        is_numbered(&stage.room(&format!("room{room}"), count).await, count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_publishers_are_replaced_without_loss_repetition_or_disorder() {
    const EACH: usize = 1000;
    let stage = Stage::new().await;
    let first = stage.publisher().await;
    first.owns_all(&stage).await;
    let sending = publish_numbers(&stage, 3 * EACH);
    let killing = async {
        let mut active = first;
        for round in 0..3 {
            stored_past(&stage, "room0", round * EACH + EACH / 4).await;
            active.kill();
            active = stage.publisher().await;
        }
        active
    };
    let ((), active) = tokio::join!(sending, killing);
    all_rooms_are_numbered(&stage, 3 * EACH).await;
    active.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_within_seconds() {
    let stage = Stage::new().await;
    let first = stage.publisher().await;
    first.owns_all(&stage).await;
    let second = stage.publisher().await;
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":0}"#).await;
    stage.room("a", 1).await;
    first.kill();
    let begun = std::time::Instant::now();
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":1}"#).await;
    is_numbered(&stage.room("a", 2).await, 2);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_lose_their_lease_in_the_middle_store_nothing_twice() {
    const COUNT: usize = 1500;
    let stage = Stage::new().await;
    let publishers = [stage.publisher().await, stage.publisher().await];
    publishers[0].owns_all(&stage).await;
    let table = stage.bus.table(Bucket::Cluster);
    let sending = publish_numbers(&stage, COUNT);
    let stealing = async {
        for round in 1..=3 {
            stored_past(&stage, "room1", round * COUNT / 5).await;
            for partition in 0..stage.options.partitions {
                let _ = table.delete(&format!("lease.publisher.{partition}"), None).await;
            }
        }
    };
    tokio::join!(sending, stealing);
    all_rooms_are_numbered(&stage, COUNT).await;
    for publisher in publishers {
        publisher.stop().await;
    }
}

#[tokio::test]
async fn what_a_dead_owner_stored_is_not_stored_again_after_the_duplicate_window() {
    let dedupe = Duration::from_millis(200);
    let history = settings::History {
        dedupe,
        ..settings::History::default()
    };
    let stage = Stage::with(Options {
        history,
        partitions: 1,
        ..Options::default()
    })
    .await;
    stage.publisher().await.stop().await;
    for number in 0..4 {
        let body = json!({ "event": "e", "data": number, "id": format!("{number}") });
        stage.publish("rt.pub.main.a", &body.to_string()).await;
    }
    // An owner stored the first two and died before it acknowledged them.
    let ingested = stage.read("RT_INGEST", "rt.ingest.0.main.a").await;
    assert_eq!(ingested.len(), 4);
    for (number, ingested) in ingested.iter().take(2).enumerate() {
        let headers = Headers::new()
            .with(name::EVENT, "e")
            .with(name::INGEST, ingested.sequence.to_string())
            .with(name::TIME, ingested.time.to_string());
        stage
            .publish_with("rt.event.main.r.a", &headers, &number.to_string())
            .await;
    }
    tokio::time::sleep(dedupe * 2).await;
    let publisher = stage.publisher().await;
    stage.room("a", 4).await;
    stage.ingest_is_empty().await;
    is_numbered(&stage.room("a", 4).await, 4);
    publisher.stop().await;
}

#[tokio::test]
async fn a_room_that_another_writer_changed_is_read_again_and_the_edges_are_told() {
    let stage = Stage::with(Options {
        partitions: 1,
        ..Options::default()
    })
    .await;
    let publisher = stage.publisher().await;
    let mut doubts = stage.bus.subscribe("rt.out.main.d.doubt", None).await.unwrap();
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":0}"#).await;
    stage.room("a", 1).await;
    stage.ingest_is_empty().await;
    // A store of a former owner lands late, behind the publisher's back.
    let soon = carillon_bus::history::now() + 1000;
    let headers = Headers::new()
        .with(name::EVENT, "e")
        .with(name::INGEST, "1")
        .with(name::TIME, soon.to_string());
    stage.publish_with("rt.event.main.r.a", &headers, "1").await;
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":2}"#).await;
    assert_eq!(data(&stage.room("a", 3).await), ["0", "1", "2"]);
    // The doubt lies behind the event, and begins before the one that nobody expected.
    let doubt = tokio::time::timeout(LIMIT, doubts.next()).await.unwrap().unwrap();
    let sequence = doubt.headers.number(name::SEQUENCE).unwrap();
    let doubt: Doubt = serde_json::from_slice(&doubt.body).unwrap();
    let stored = stage.read("RT_EVENTS", &event_subject(&stage.bus, "a")).await;
    let [first, .., last] = &stored[..] else {
        unreachable!("there are three")
    };
    assert_eq!(doubt.rooms, [(Room::new("a").unwrap(), first.sequence)].into());
    assert!(sequence > last.sequence);
    publisher.stop().await;
}

#[tokio::test]
async fn without_an_owner_events_wait_and_health_stays_good() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let mut leases = Vec::new();
    for partition in 0..stage.options.partitions {
        let name = format!("publisher.{partition}");
        leases.push(Lease::acquire(&stage.bus, &name, "test", Duration::from_secs(60)).await);
    }
    let standby = stage.publisher().await;
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":0}"#).await;
    let ready = format!("http://{}/readyz", standby.admin);
    let client = carillon_testkit::http::client();
    let status = client.get(ready).send().await.unwrap().status();
    assert_eq!(status.as_u16(), 200, "a standby is ready");
    let metrics = carillon_testkit::http::text(&format!("http://{}/metrics", standby.admin)).await;
    for name in [
        "publisher_lease_held{partition=\"0\"}",
        "publisher_store_retries_total",
        "publisher_store_seconds",
        "publisher_refused_total{code=\"not_json\"}",
        "publisher_doubts_total",
        "publisher_http_requests_total{status=\"503\"}",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "{name} is missing");
    }
    assert!(
        stage
            .read("RT_EVENTS", &event_subject(&stage.bus, "a"))
            .await
            .is_empty()
    );
    for lease in leases {
        lease.release().await;
    }
    is_numbered(&stage.room("a", 1).await, 1);
    standby.stop().await;
}
