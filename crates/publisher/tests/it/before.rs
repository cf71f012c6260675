//! Each stored event says what came before it in its room.

use carillon_bus::StoredMessage;
use carillon_protocol::before::Before;
use carillon_protocol::headers::name;
use carillon_testkit::wait;
use serde_json::json;

use crate::stage::{LIMIT, Stage, data, event_subject, header};

/// Seconds that an event stays which has a ttl.
const TTL: u64 = 600;

async fn publish(stage: &Stage, room: &str, data: usize, ttl: Option<u64>) {
    let mut body = json!({ "event": "e", "data": data });
    if let Some(ttl) = ttl {
        body["ttl"] = ttl.into();
    }
    stage
        .publish(&format!("rt.pub.main.{room}"), &body.to_string())
        .await;
}

fn before(event: &StoredMessage) -> Before {
    let text = header(event, name::BEFORE);
    Before::from_header(text, event.sequence).unwrap_or_else(|| panic!("{text:?} is no header"))
}

/// Checks that each event of a room names the one before it, and when that expires.
fn are_linked(events: &[StoredMessage]) {
    for pair in events.windows(2) {
        let [previous, event] = pair else {
            unreachable!("a pair")
        };
        let (before, sequence) = (before(event), previous.sequence);
        let text = header(event, name::BEFORE);
        assert!(
            !before.lost_after(sequence, 0),
            "{text} names more than {sequence}"
        );
        let end = previous.time + TTL * 1000;
        assert!(
            before.lost_after(sequence - 1, end - 60_000),
            "{text}: {sequence}"
        );
        let stays = previous.headers.get(name::TTL).is_none();
        assert_eq!(before.lost_after(sequence - 1, end), stays, "{text}: {sequence}");
    }
}

#[tokio::test]
async fn a_batch_and_a_list_say_what_came_before_in_each_room() {
    const COUNT: usize = 60;
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    // Everything waits, so that the room's events are stored in batches.
    for n in 0..COUNT {
        publish(&stage, "a", n, (n % 3 > 0).then_some(TTL)).await;
    }
    let publisher = stage.publisher().await;
    let events = stage.room("a", COUNT).await;
    assert_eq!(header(&events[0], name::BEFORE), "0");
    let in_batch = events
        .iter()
        .filter(|event| header(event, name::BEFORE).contains('-'));
    assert!(in_batch.count() > COUNT / 2);
    are_linked(&events);
    publish(&stage, "b", 0, None).await;
    stage.room("b", 1).await;
    let list = json!({ "rooms": ["c", "b", "a"], "event": "e", "data": 1, "receipt": true });
    assert_eq!(publisher.post("/v1/events", list).await.0, 202);
    assert_eq!(header(&stage.room("c", 1).await[0], name::BEFORE), "0");
    are_linked(&stage.room("a", COUNT + 1).await);
    let events = stage.room("b", 2).await;
    assert_eq!(header(&events[1], name::BEFORE), events[0].sequence.to_string());
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_replaced_goes_on_from_what_is_stored() {
    let stage = Stage::new().await;
    let mut publisher = stage.publisher().await;
    for (n, ttl) in [None, Some(TTL), Some(TTL), None, None].into_iter().enumerate() {
        publish(&stage, "a", n, ttl).await;
        stage.room("a", n + 1).await;
        publisher.kill();
        publisher = stage.publisher().await;
    }
    are_linked(&stage.room("a", 5).await);
    publisher.stop().await;
}

#[tokio::test]
async fn what_has_expired_is_not_forgotten_in_front_of_what_has_not() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    for (n, ttl) in [None, Some(TTL), Some(1)].into_iter().enumerate() {
        publish(&stage, "a", n, ttl).await;
    }
    publish(&stage, "b", 0, Some(1)).await;
    let subjects = ["a", "b"].map(|room| event_subject(&stage.bus, room));
    stage.ingest_is_empty().await;
    wait::until_true("an end that has expired", LIMIT, async || {
        let (a, b) = tokio::join!(
            stage.read("RT_EVENTS", &subjects[0]),
            stage.read("RT_EVENTS", &subjects[1])
        );
        a.len() == 2 && b.is_empty()
    })
    .await;
    publish(&stage, "a", 3, None).await;
    publish(&stage, "b", 1, None).await;
    let events = stage.room("a", 3).await;
    assert_eq!(data(&events), ["0", "1", "3"]);
    are_linked(&events);
    assert!(before(&events[2]).lost_after(events[0].sequence, events[1].time));
    assert!(!before(&stage.room("b", 1).await[0]).lost_after(0, u64::MAX));
    publisher.stop().await;
}
