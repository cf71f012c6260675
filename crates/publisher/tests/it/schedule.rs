use std::time::{Duration, SystemTime};

use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::wait;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stage::{LIMIT, Stage, data, event_subject, header};

fn rfc3339(after: Duration) -> String {
    OffsetDateTime::from(SystemTime::now() + after)
        .format(&Rfc3339)
        .unwrap()
}

fn millis() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

#[tokio::test]
async fn an_event_for_later_is_stored_at_its_time_once() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let begun = millis();
    let body = json!({ "event": "e", "data": "later", "id": "x", "ttl": 100, "at": rfc3339(Duration::from_secs(2)) });
    stage.publish("rt.pub.main.a", &body.to_string()).await;
    stage
        .publish("rt.pub.main.a", r#"{"event":"e","data":"now"}"#)
        .await;
    let stored = stage.room("a", 2).await;
    assert_eq!(data(&stored), ["\"now\"", "\"later\""]);
    assert!(
        stored[1].time >= begun + 2000,
        "stored {} ms after the publish",
        stored[1].time - begun
    );
    assert_eq!(header(&stored[1], name::TTL), "100s");
    stage.ingest_is_empty().await;
    assert_eq!(stage.room("a", 2).await.len(), 2);
    publisher.stop().await;
}

#[tokio::test]
async fn an_event_for_later_needs_no_publisher_until_then() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let at = rfc3339(Duration::from_secs(2));
    let list = json!({ "rooms": ["a", "b"], "event": "e", "data": 1, "at": at });
    assert_eq!(publisher.post("/v1/events", list).await.0, 202);
    let subject = event_subject(&stage.bus, "a");
    // The appointment is kept before the next message of INGEST is out of the queue.
    stage.publish("rt.pub.main.c", r#"{"event":"e","data":0}"#).await;
    stage.room("c", 1).await;
    assert!(stage.read("RT_EVENTS", &subject).await.is_empty());
    publisher.stop().await;
    let publisher = stage.publisher().await;
    for room in ["a", "b"] {
        let stored = stage.room(room, 1).await;
        assert_eq!(data(&stored), ["1"]);
        assert!(header(&stored[0], name::SET).ends_with(";2"));
    }
    publisher.stop().await;
}

#[tokio::test]
async fn an_event_whose_appointment_was_kept_but_not_acknowledged_is_stored_once() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let at = rfc3339(Duration::from_secs(1));
    let one = json!({ "event": "e", "data": 1, "at": at }).to_string();
    let list = json!({ "event": "e", "data": 2, "at": at, "rooms": ["a", "b"] }).to_string();
    let published = [("a", &one), ("%list", &list)];
    for (room, body) in published {
        stage.publish(&format!("rt.pub.main.{room}"), body).await;
    }
    // What a publisher has done that died then.
    let all = ["rt.ingest.*.main.*".to_owned()];
    let waiting = stage.bus.last("RT_INGEST", &all, 0).await.unwrap();
    assert_eq!(waiting.len(), 2);
    for (original, (room, _)) in waiting.iter().zip(published) {
        let (sequence, time) = (original.sequence, original.time);
        let headers = Headers::new()
            .with("Nats-Schedule", format!("@at {at}"))
            .with("Nats-Schedule-Target", format!("rt.pub.main.{room}"))
            .with(name::MSG_ID, format!("at:{sequence}-{time}"))
            .with("Carillon-Origin", format!("{sequence} {time}"))
            .with("Carillon-Fired", "1");
        let subject = stage.bus.subjects().scheduled(&format!("{sequence}-{time}"));
        stage
            .bus
            .store(&subject, &headers, original.body.clone())
            .await
            .unwrap();
    }
    wait::until_true("both appointments fired", LIMIT, async || {
        let last = stage.bus.last("RT_INGEST", &all, 0).await.unwrap();
        last.iter()
            .all(|message| message.headers.get("Carillon-Fired").is_some())
    })
    .await;
    let publisher = stage.publisher().await;
    stage.room("a", 2).await;
    stage.ingest_is_empty().await;
    assert_eq!(data(&stage.room("a", 2).await), ["1", "2"]);
    assert_eq!(data(&stage.room("b", 1).await), ["2"]);
    publisher.stop().await;
}

#[tokio::test]
async fn a_time_in_the_past_is_now() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    stage
        .publish(
            "rt.pub.main.a",
            r#"{"event":"e","data":1,"at":"2020-01-01T00:00:00Z"}"#,
        )
        .await;
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    publisher.stop().await;
}

#[tokio::test]
async fn a_signal_for_later_is_a_signal_then() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.main.r.a", None).await.unwrap();
    stage.bus.flush().await;
    let body = json!({ "event": "e", "data": 1, "at": rfc3339(Duration::from_secs(1)) }).to_string();
    stage
        .bus
        .publish("rt.signal.main.a", &Headers::new(), Bytes::from(body))
        .await
        .unwrap();
    let delivery = tokio::time::timeout(LIMIT, deliveries.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (delivery.body.as_ref(), delivery.headers.get(name::SEQUENCE)),
        (b"1".as_slice(), None)
    );
    assert!(
        stage
            .read("RT_EVENTS", &event_subject(&stage.bus, "a"))
            .await
            .is_empty()
    );
    publisher.stop().await;
}

#[tokio::test]
async fn a_ttl_counts_from_the_publish() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let begun = millis();
    for (ttl, data) in [(1, 0), (100, 1)] {
        let body = json!({ "event": "e", "data": data, "ttl": ttl });
        stage.publish("rt.pub.main.a", &body.to_string()).await;
    }
    wait::until_true("the end of the first ttl", LIMIT, async || {
        millis() > begun + 2500
    })
    .await;
    let publisher = stage.publisher().await;
    stage.ingest_is_empty().await;
    let stored = stage.room("a", 1).await;
    assert_eq!(data(&stored), ["1"]);
    let ttl: u64 = header(&stored[0], name::TTL)
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(ttl < 100, "{ttl} s of 100 are left");
    assert!(stage.read("RT_DEAD", "rt.dead.>").await.is_empty());
    publisher.stop().await;
}

#[tokio::test]
async fn a_ttl_of_an_event_for_later_counts_from_its_time() {
    let mut stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let publisher = stage.publisher().await;
    let at = millis() + 1000;
    for (ttl, data) in [(1, 0), (100, 1)] {
        let body = json!({ "event": "e", "data": data, "ttl": ttl, "at": rfc3339(Duration::from_secs(1)) });
        stage.publish("rt.pub.main.a", &body.to_string()).await;
    }
    let kept = ["rt.ingest.at.>".to_owned()];
    wait::until_true("both appointments", LIMIT, async || {
        let kept = stage.bus.last("RT_INGEST", &kept, 0).await;
        kept.is_ok_and(|kept| kept.len() == 2)
    })
    .await;
    // The server is away at that time, and fires late.
    stage.nats.stop().await;
    wait::until_true("the end of the first ttl", LIMIT, async || millis() > at + 3000).await;
    stage.nats.restart().await;
    wait::until_true("the second event", LIMIT, async || {
        let stored = stage
            .bus
            .last("RT_EVENTS", &["rt.event.main.r.a".to_owned()], 0)
            .await;
        stored.is_ok_and(|stored| !stored.is_empty())
    })
    .await;
    stage.ingest_is_empty().await;
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    publisher.stop().await;
}
