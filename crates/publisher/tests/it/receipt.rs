//! Answers that tell where an event is stored, and who is there.

use std::time::Duration;

use bytes::Bytes;
use carillon_bus::Lease;
use carillon_protocol::headers::Headers;
use carillon_protocol::offset::Offset;
use carillon_testkit::wait;
use serde_json::{Value, json};

use crate::stage::{Stage, data};

#[tokio::test]
async fn a_receipt_tells_the_place_and_who_is_there() {
    let stage = Stage::new().await;
    let owner = stage.publisher().await;
    owner.owns_all(&stage).await;
    let standby = stage.publisher().await;
    let mut questions = stage
        .bus
        .subscribe("rt.router.union", Some("router"))
        .await
        .unwrap();
    stage.bus.flush().await;
    let router = async {
        let question = questions.next().await.unwrap();
        let body = Bytes::from_static(br#"{"users":2,"connections":3}"#);
        stage
            .bus
            .publish(&question.reply.unwrap(), &Headers::new(), body)
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&question.body).unwrap()
    };
    let body = json!({ "rooms": ["user:1", "user:2"], "event": "e", "receipt": true });
    let ((status, answer), question) = tokio::join!(standby.post("/v1/events", body), router);
    assert_eq!(
        (status, &answer["users"], &answer["connections"]),
        (202, &json!(2), &json!(3)),
        "{answer}"
    );
    assert_eq!(
        question,
        json!({ "namespace": "/", "rooms": ["user:1", "user:2"] })
    );
    let last = stage.room("user:2", 1).await;
    assert_eq!(
        answer["offset"]
            .as_str()
            .unwrap()
            .parse::<Offset>()
            .unwrap()
            .sequence,
        last[0].sequence
    );

    // Without a router the rest of the receipt still comes.
    drop(questions);
    stage.bus.flush().await;
    let body = json!({ "rooms": ["a"], "event": "e", "receipt": true });
    let (status, answer) = standby.post("/v1/events", body).await;
    assert_eq!((status, &answer["users"]), (202, &Value::Null), "{answer}");
    assert!(answer["offset"].is_string());
    standby.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn a_receipt_that_does_not_come_is_a_timeout_of_an_accepted_event() {
    let mut stage = Stage::new().await;
    stage.options.config.receipt_timeout = Duration::from_millis(500);
    stage.publisher().await.stop().await;
    let mut leases = Vec::new();
    for partition in 0..stage.options.partitions {
        let name = format!("publisher.{partition}");
        leases.push(Lease::acquire(&stage.bus, &name, "test", Duration::from_secs(60)).await);
    }
    let publisher = stage.publisher().await;
    let body = json!({ "rooms": ["a"], "event": "e", "data": 1, "receipt": true });
    let (status, problem) = publisher.post("/v1/events", body).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("receipt_timeout")));
    drop(leases);
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    publisher.stop().await;
}

#[tokio::test]
async fn a_receipt_tells_that_the_ttl_was_over() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let mut leases = Vec::new();
    for partition in 0..stage.options.partitions {
        let name = format!("publisher.{partition}");
        leases.push(Lease::acquire(&stage.bus, &name, "test", Duration::from_secs(60)).await);
    }
    let publisher = stage.publisher().await;
    let body = json!({ "rooms": ["a"], "event": "e", "ttl": 1, "receipt": true });
    let owner = async {
        let all = ["rt.ingest.>".to_owned()];
        let now = carillon_bus::history::now;
        wait::until_true("an event that has expired", crate::stage::LIMIT, async || {
            let waiting = stage.bus.last("RT_INGEST", &all, 0).await.unwrap();
            waiting.first().is_some_and(|event| now() > event.time + 1500)
        })
        .await;
        drop(leases);
    };
    let ((status, problem), ()) = tokio::join!(publisher.post("/v1/events", body), owner);
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("expired")),
        "{problem}"
    );
    publisher.stop().await;
}
