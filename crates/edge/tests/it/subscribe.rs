use serde_json::json;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_heard_from_the_answer_on_until_it_is_left() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    client.send(&json!({ "type": "sub", "topic": "lobby" }));
    let subscribed = client.next_of_type("subscribed").await;
    assert_eq!(subscribed["topic"], "lobby");
    stage.publish("lobby", "one", json!(1)).await;
    client.next_event("one").await;
    client.send(&json!({ "type": "unsub", "topic": "lobby" }));
    client.next_of_type("unsubscribed").await;
    stage.publish("lobby", "two", json!(2)).await;
    stage.publish("user:42", "end", json!(3)).await;
    client.next_event("end").await;
    client.assert_no_message("event of a room that was left", |message| {
        message["event"] == "two"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn since_replays_what_came_after_the_offset_also_what_was_seen() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    client.send(&json!({ "type": "ping" }));
    let offset = client.next_of_type("pong").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    for n in 1..=5 {
        stage.publish("lobby", "tick", json!({ "n": n })).await;
    }
    client.send(&json!({ "type": "sub", "topic": "lobby", "since": offset }));
    client.next_of_type("subscribed").await;
    for n in 1..=5 {
        assert_eq!(client.next_event("tick").await["payload"]["n"], n);
    }
    // Again, from the third on.
    client.send(&json!({ "type": "sub", "topic": "lobby", "since": offset }));
    client.next_of_type("subscribed").await;
    for n in 1..=5 {
        assert_eq!(client.next_event("tick").await["payload"]["n"], n);
    }
    stage.publish("lobby", "tick", json!({ "n": 6 })).await;
    assert_eq!(client.next_event("tick").await["payload"]["n"], 6);
    client.send(&json!({ "type": "sub", "topic": "other", "since": "ffffffff000000000001" }));
    client.next_of_type("subscribed").await;
    let error = client.next_of_type("error").await;
    assert_eq!(
        (&error["code"], &error["topic"]),
        (&json!("history_lost"), &json!("other"))
    );
    assert_eq!(error["oldest"].as_str().map(str::len), Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_answered_and_do_no_harm() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let bad = [
        (json!({ "type": "dance" }), "unknown_type"),
        (json!({ "type": "sub" }), "missing_field"),
        (json!({ "type": "sub", "topic": 7 }), "bad_field"),
        (json!([1]), "bad_json"),
        (json!({ "type": "sub", "topic": "user:43" }), "forbidden"),
        (json!({ "type": "sub", "topic": "session:x" }), "forbidden"),
        (
            json!({ "type": "presence", "topic": "lobby", "id": 1 }),
            "not_member",
        ),
        (
            json!({ "type": "emit", "event": "$connect", "id": 2 }),
            "bad_event",
        ),
    ];
    for (message, code) in bad {
        client.send(&message);
        assert_eq!(client.next_of_type("error").await["code"], code, "{message}");
    }
    client.send(&json!({ "type": "ping" }));
    client.next_of_type("pong").await;
}
