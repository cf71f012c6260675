//! Answers that no client library would give.

use carillon_protocol::token;
use carillon_service::settings::JoinPolicy;
use carillon_testkit::nats::STRANGE_HEADERS;
use serde_json::json;

use crate::stage::{Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_backends_strange_answers_are_answers() {
    let mut plan = Plan::default();
    let namespace = plan.namespaces.get_mut("/").unwrap();
    namespace.rooms[0].join = Some(JoinPolicy::Ask);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut events = stage.bus.subscribe("rt.up.main.question", None).await.unwrap();
    let mut joins = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
    stage.bus.flush().await;
    let client = stage.sio(&edge, "42").await;
    let (plain, _) = stage.ws(&edge, "42").await;
    for (number, headers) in STRANGE_HEADERS.into_iter().enumerate() {
        let answer = async {
            let reply = events.next().await.unwrap().reply.unwrap();
            let body = number.to_string();
            stage
                .nats
                .publish_raw(reply.as_bytes(), headers, body.as_bytes())
                .await;
        };
        let (acknowledged, ()) = tokio::join!(client.emit_ack("question", json!([1])), answer);
        assert_eq!(acknowledged, [json!(number)]);

        let topic = format!("room {number}");
        plain.send(&json!({ "type": "sub", "topic": topic }));
        let reply = joins.next().await.unwrap().reply.unwrap();
        stage
            .nats
            .publish_raw(reply.as_bytes(), headers, br#"{"allow":true}"#)
            .await;
        let message = plain.next_message().await;
        assert_eq!(
            (&message["type"], &message["topic"]),
            (&json!("subscribed"), &json!(topic))
        );
    }
    // Deliveries come to edges over another link, from whoever may publish there.
    let subject = format!("rt.out.main.r.{}", token::encode("room 0"));
    for headers in STRANGE_HEADERS {
        stage.nats.publish_raw(subject.as_bytes(), headers, b"1").await;
    }
    stage.publish("room 0", "note", json!(1)).await;
    let note = plain.next_message().await;
    assert_eq!(note["event"], "note", "{note}");
}
