use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::wait;

use crate::stage::{LIMIT, Stage, data, event_subject, header, is_numbered};

#[tokio::test]
async fn an_event_is_stored_as_it_came_and_delivered_at_once() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.main.u.>", None).await.unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = Headers::new().with(name::TRACEPARENT, parent);
    let body = r#"{"event":"notification:new","data":{"n": 1.50},"id":"a b","except":["s1","s2"]}"#;
    stage.publish_with("rt.pub.main.user:42", &headers, body).await;

    let delivery = tokio::time::timeout(LIMIT, deliveries.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(delivery.subject, "rt.out.main.u.user:42");
    assert_eq!(delivery.body, r#"{"n": 1.50}"#);
    let stored = &stage.room("user:42", 1).await[0];
    assert_eq!(delivery.headers.number(name::SEQUENCE), Some(stored.sequence));
    for (name, value) in [
        (name::EVENT, "notification:new"),
        (name::ID, "a%20b"),
        (name::EXCEPT, "s1,s2"),
        (name::INGEST, "1"),
        (name::TRACEPARENT, parent),
    ] {
        assert_eq!(header(stored, name), value, "{name}");
    }
    assert!(
        stored
            .headers
            .number(name::TIME)
            .is_some_and(|time| time.abs_diff(stored.time) < 60_000)
    );
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn plain_publishes_wait_for_a_publisher_and_cloud_events_are_events() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let cloud = r#"{"specversion":"1.0","type":"com.example.x","source":"/s","id":"7","data":[1]}"#;
    stage
        .bus
        .publish(
            "rt.pub.main.plain",
            &Headers::new(),
            Bytes::from_static(cloud.as_bytes()),
        )
        .await
        .unwrap();
    let other = Bytes::from_static(br#"{"event":"e","args":[1,2]}"#);
    stage
        .bus
        .publish("rt.pub.main.plain", &Headers::new(), other)
        .await
        .unwrap();
    stage.bus.flush().await;
    let _publisher = stage.publisher().await;
    let stored = stage.room("plain", 2).await;
    assert_eq!(data(&stored), ["[1]", "[1,2]"]);
    assert_eq!(
        (header(&stored[0], name::EVENT), header(&stored[0], name::ID)),
        ("com%2Eexample%2Ex", "7")
    );
    assert_eq!(header(&stored[1], name::ARGS), "1");
}

#[tokio::test]
async fn duplicates_are_removed_by_message_id_and_by_id_in_a_room() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let twice = Headers::new().with(name::MSG_ID, "once");
    for _ in 0..2 {
        stage
            .publish_with("rt.pub.main.a", &twice, r#"{"event":"e","data":0}"#)
            .await;
    }
    // The same id in a burst, later again, and in another room.
    for data in 1..=3 {
        stage
            .publish(
                "rt.pub.main.a",
                &format!(r#"{{"event":"e","data":{data},"id":"x"}}"#),
            )
            .await;
    }
    stage.room("a", 2).await;
    for room in ["a", "b"] {
        stage
            .publish(
                &format!("rt.pub.main.{room}"),
                r#"{"event":"e","data":4,"id":"x"}"#,
            )
            .await;
    }
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":5}"#).await;
    assert_eq!(data(&stage.room("a", 3).await), ["0", "1", "5"]);
    assert_eq!(data(&stage.room("b", 1).await), ["4"]);
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn an_id_in_the_middle_of_a_batch_does_not_hold_its_neighbours() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    stage
        .publish("rt.pub.main.a", r#"{"event":"e","data":"first","id":"x"}"#)
        .await;
    stage.room("a", 1).await;
    publisher.stop().await;
    // With no publisher alive everything waits, so that it is stored in batches.
    for number in 0..50 {
        let id = if number % 10 == 5 {
            "x".to_owned()
        } else {
            format!("{number}")
        };
        stage
            .publish(
                "rt.pub.main.a",
                &format!(r#"{{"event":"e","data":{number},"id":"{id}"}}"#),
            )
            .await;
    }
    let publisher = stage.publisher().await;
    stage.ingest_is_empty().await;
    let expected: Vec<String> = (0..50)
        .filter(|number| number % 10 != 5)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(data(&stage.room("a", 46).await)[1..], expected);
    publisher.stop().await;
}

#[tokio::test]
async fn rooms_keep_their_order_under_load_and_stand_in_each_others_way_little() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut acks = Vec::new();
    for number in 0..500 {
        for room in 0..8 {
            let body = Bytes::from(format!(r#"{{"event":"e","data":{number}}}"#));
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
    for room in 0..8 {
        is_numbered(&stage.room(&format!("room{room}"), 500).await, 500);
    }
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn an_expired_end_of_a_room_does_not_stop_it() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    stage
        .publish("rt.pub.main.a", r#"{"event":"e","data":0,"ttl":1}"#)
        .await;
    let first = stage.room("a", 1).await;
    assert_eq!(header(&first[0], name::TTL), "1s");
    let subject = event_subject(&stage.bus, "a");
    wait::until_true("the end of the ttl", LIMIT, async || {
        stage.read("RT_EVENTS", &subject).await.is_empty()
    })
    .await;
    stage.publish("rt.pub.main.a", r#"{"event":"e","data":1}"#).await;
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    publisher.stop().await;
}
