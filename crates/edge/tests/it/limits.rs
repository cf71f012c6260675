//! What is over a limit is refused with a code, and harms nothing else.

use carillon_service::settings;
use carillon_testkit::clients::SioClient;
use serde_json::{Value, json};

use crate::stage::{Plan, Stage};

async fn refused(client: &SioClient, event: &str, args: Value) -> String {
    let answer = client.emit_ack(event, args).await;
    let told = client.next_event("error").await;
    assert_eq!(told.data()["code"], answer[0]["error"]["code"]);
    assert_eq!(told.data()["event"], event);
    answer[0]["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_too_large_for_an_event_is_refused_before_its_rule_does_anything() {
    let mut plan = Plan::default();
    plan.events.max_bytes = 1000;
    let steps = |durable| {
        json!([
            { "join": "team:1" },
            { "relay": { "to": "room", "room": "user:43", "durable": durable, "members_only": false } },
        ])
    };
    let namespace = serde_json::from_value(json!({
        "rooms": [{ "pattern": "team:{id}", "join": "true" }],
        "on": [
            { "event": "signal", "do": steps(false) },
            { "event": "stored", "do": steps(true) },
            { "event": "small", "do": [{ "relay": { "to": "room", "room": "user:43", "members_only": false } }] },
        ],
    }));
    plan.namespaces = [("/".to_owned(), namespace.unwrap())].into();
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (sender, member) = (stage.sio(&edge, "42").await, stage.sio(&edge, "43").await);
    for event in ["signal", "stored"] {
        let code = refused(&sender, event, json!(["x".repeat(1000)])).await;
        assert_eq!(code, "too_large", "{event}");
    }
    // The names, quotes and braces of the body count too: 27 bytes around the text.
    sender.emit("small", json!(["x".repeat(1000 - 27)]));
    member.next_event("small").await;
    member.assert_no_event("signal");
    let code = refused(&sender, "small", json!(["x".repeat(1000 - 26)])).await;
    assert_eq!(code, "too_large");
    stage.signal("team:1", "inside", json!(1)).await;
    stage.signal("user:42", "outside", json!(1)).await;
    sender.next_event("outside").await;
    sender.assert_no_event("inside");
}
