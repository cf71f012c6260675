//! Requests that are made again with the same key.

use carillon_protocol::offset::Offset;
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::http::event;
use crate::stage::{Stage, data};

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_publish() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let key = [("idempotency-key", "k1")];
    let first = publisher.post_with("/v1/events", &key, event().to_string()).await;
    let again = publisher.post_with("/v1/events", &key, event().to_string()).await;
    assert_eq!(first.0, 202);
    assert_eq!(first, again);
    let mut receipt = event();
    receipt["receipt"] = json!(true);
    let (status, answer) = publisher.post_with("/v1/events", &key, receipt.to_string()).await;
    let stored = stage.room("a", 1).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(
        answer["offset"]
            .as_str()
            .unwrap()
            .parse::<Offset>()
            .unwrap()
            .sequence,
        stored[0].sequence
    );

    let batch = json!([event(), event()]).to_string();
    let keyed = [("idempotency-key", "k2")];
    let first = publisher
        .post_with("/v1/events/batch", &keyed, batch.clone())
        .await;
    assert_eq!(
        first,
        publisher.post_with("/v1/events/batch", &keyed, batch).await
    );
    // Another caller's key is another key.
    let token = format!(
        "Bearer {}",
        tokens::hs256(tokens::DEV_SECRET, &json!({ "sub": "u", "scope": "publish" }))
    );
    let other = [("idempotency-key", "k1"), ("authorization", token.as_str())];
    assert_eq!(
        publisher
            .post_with("/v1/events", &other, event().to_string())
            .await
            .0,
        202
    );
    assert_eq!(data(&stage.room("a", 4).await).len(), 4);
    stage.ingest_is_empty().await;
    assert_eq!(stage.room("a", 4).await.len(), 4);
    let long = "k".repeat(256);
    let refused = publisher
        .post_with("/v1/events", &[("idempotency-key", &long)], event().to_string())
        .await;
    assert_eq!(
        (refused.0, refused.1["code"].as_str()),
        (400, Some("bad_idempotency_key"))
    );
    publisher.stop().await;
}

#[tokio::test]
async fn a_signal_with_the_same_idempotency_key_is_sent_once() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut heard = stage.bus.subscribe("rt.out.main.>", None).await.unwrap();
    let send = async |key: &'static str, n: u64| {
        let body = json!({ "rooms": ["a"], "event": "e", "data": n, "ephemeral": true });
        let key = [("idempotency-key", key)];
        publisher.post_with("/v1/events", &key, body.to_string()).await
    };
    let first = send("k1", 1).await;
    assert_eq!(first.0, 202);
    assert_eq!(send("k1", 1).await, first);
    assert_eq!(send("k2", 2).await.0, 202);
    for n in ["1", "2"] {
        assert_eq!(heard.next().await.unwrap().body, n);
    }
    publisher.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let plain = json!({ "rooms": ["a"], "event": "e" });
    let with = |fields: Value| {
        let mut event = plain.clone();
        let fields = fields.as_object().unwrap().clone();
        event.as_object_mut().unwrap().extend(fields);
        event
    };
    let cases = [
        (
            with(json!({ "id": "A" })),
            with(json!({ "id": "B", "receipt": true })),
        ),
        (plain.clone(), with(json!({ "rooms": ["b"], "receipt": true }))),
        (with(json!({ "rooms": ["a", "b"] })), plain.clone()),
        (plain.clone(), with(json!({ "event": "other" }))),
        (with(json!({ "ephemeral": true })), plain.clone()),
        (plain.clone(), with(json!({ "ephemeral": true }))),
        (plain.clone(), with(json!({ "namespace": "/chat" }))),
    ];
    for (index, (first, second)) in cases.into_iter().enumerate() {
        let key = format!("k{index}");
        let key = [("idempotency-key", key.as_str())];
        let sent = publisher.post_with("/v1/events", &key, first.to_string()).await;
        assert_eq!(sent.0, 202, "{first}: {}", sent.1);
        let (status, problem) = publisher.post_with("/v1/events", &key, second.to_string()).await;
        let code = problem["code"].as_str();
        assert_eq!(
            (status, code),
            (422, Some("idempotency_key_reused")),
            "{second}: {problem}"
        );
        let again = publisher.post_with("/v1/events", &key, first.to_string()).await;
        assert_eq!(again, sent, "{first}");
    }
    let batch = json!([plain, plain]).to_string();
    let key = [("idempotency-key", "k0")];
    assert_eq!(publisher.post_with("/v1/events/batch", &key, batch).await.0, 422);
    stage.ingest_is_empty().await;
    assert_eq!(stage.room("a", 6).await.len(), 6);
    assert_eq!(stage.room("b", 1).await.len(), 1);
    publisher.stop().await;
}
