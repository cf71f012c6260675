use std::ops::RangeInclusive;
use std::time::Duration;

use carillon_bus::Bucket;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::session::Record;
use carillon_service::settings::Rate;
use carillon_testkit::clients::{WsClient, WsOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Plan, Stage};

/// The client's offset now.
async fn offset_of(client: &WsClient) -> String {
    client.send(&json!({ "type": "ping" }));
    let pong = client.next_of_type("pong").await;
    pong["offset"].as_str().unwrap().to_owned()
}

async fn subscribe_since(client: &WsClient, topic: &str, offset: &str) {
    client.send(&json!({ "type": "sub", "topic": topic, "since": offset }));
    client.next_of_type("subscribed").await;
}

async fn hears_ticks(client: &WsClient, numbers: RangeInclusive<u64>) {
    for n in numbers {
        assert_eq!(client.next_event("tick").await["payload"]["n"], n);
    }
}

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
    let offset = offset_of(&client).await;
    for n in 1..=5 {
        stage.publish("lobby", "tick", json!({ "n": n })).await;
    }
    subscribe_since(&client, "lobby", &offset).await;
    hears_ticks(&client, 1..=5).await;
    // Again, from the third on.
    subscribe_since(&client, "lobby", &offset).await;
    hears_ticks(&client, 1..=5).await;
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
async fn a_gap_is_told_and_what_is_left_of_the_history_follows() {
    let mut plan = Plan::default();
    plan.history.max_per_room = 3;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    // The stream itself reaches back.
    stage.publish("elsewhere", "tick", json!(0)).await;
    for n in 1..=8 {
        for room in ["lobby", "user:43"] {
            stage.publish(room, "tick", json!({ "n": n })).await;
        }
    }
    let subscribed = client.subscribe("lobby", Some(&offset)).await;
    let error = client.next_of_type("error").await;
    assert_eq!(error["code"], "history_lost");
    let sequence = |offset: &Value| u64::from_str_radix(&offset.as_str().unwrap()[8..], 16).unwrap();
    assert_eq!(sequence(&subscribed["offset"]) + 1, sequence(&error["oldest"]));
    hears_ticks(&client, 6..=8).await;
    // The automatic rooms in the same way.
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        edge.address,
        tokens::dev("43")
    );
    let late = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(late.next_of_type("welcome").await["recovered"], false);
    let error = late.next_of_type("error").await;
    assert_eq!(
        (&error["code"], &error["topic"]),
        (&json!("history_lost"), &json!("user:43"))
    );
    let first = late.next_event("tick").await;
    assert_eq!(
        (&first["payload"]["n"], &first["offset"]),
        (&json!(6), &error["oldest"])
    );
    hears_ticks(&late, 7..=8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_larger_than_the_queue_arrives_whole() {
    let mut plan = Plan::default();
    plan.edge.queue = 64 * 1024;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    let away = stage.sio(&edge, "43").await;
    let sid = away.state().await["sid"].clone();
    stage.publish("user:43", "before", json!(0)).await;
    away.next_event("before").await;
    away.cut();
    away.disconnected().await;
    // A megabyte for each, half of it in events of which one takes half the queue.
    for n in 0..200 {
        let text = "x".repeat(if n % 10 == 0 { 40_000 } else { 4000 });
        for room in ["lobby", "user:43"] {
            stage.publish(room, "tick", json!({ "n": n, "text": text })).await;
        }
    }
    client.send(&json!({ "type": "sub", "topic": "lobby", "since": offset }));
    let with = |user: &str, path: &str| {
        format!(
            "{}/{path}?token={}&topic=lobby&since={offset}",
            edge.address,
            tokens::dev(user)
        )
    };
    let resumed = stage
        .driver
        .ws(format!("ws://{}", with("43", "ws")), WsOptions::new());
    let stream = stage.driver.sse(format!("http://{}", with("44", "sse")), &[]);
    stream.next_message().await;
    for n in 0..200 {
        assert_eq!(client.next_event("tick").await["payload"]["n"], n);
        assert_eq!(resumed.next_event("tick").await["payload"]["n"], n);
        assert_eq!(stream.next_message().await.json["payload"]["n"], n);
        assert_eq!(away.next_event("tick").await.data()["n"], n);
    }
    let state = away.state().await;
    assert_eq!((&state["sid"], &state["recovered"]), (&sid, &json!(true)));
    stage.publish("lobby", "after", json!(1)).await;
    client.next_event("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_client_has_lost_nothing_where_nothing_was_stored() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    // Every room that is entered stores a probe in the place of the one before.
    for room in ["a", "b", "c"] {
        client.send(&json!({ "type": "sub", "topic": room }));
        client.next_of_type("subscribed").await;
    }
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        edge.address,
        tokens::dev("42")
    );
    let again = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(again.next_of_type("welcome").await["recovered"], true);
    stage.publish("user:42", "tick", json!(1)).await;
    again.next_event("tick").await;
    again.assert_no_message("an error", |message| message["type"] == "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn since_does_not_replay_what_was_published_for_everyone_but_this_client() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, welcome) = stage.ws(&edge, "42").await;
    client.send(&json!({ "type": "sub", "topic": "lobby" }));
    let offset = client.next_of_type("subscribed").await["offset"].clone();
    let except = Headers::new().with(name::EXCEPT, welcome["sid"].as_str().unwrap());
    stage.store("lobby", "others", json!(1), except).await;
    stage.publish("lobby", "all", json!(2)).await;
    client.next_event("all").await;
    client.send(&json!({ "type": "sub", "topic": "lobby", "since": offset }));
    client.next_event("all").await;
    client.assert_no_message("event for others", |message| message["event"] == "others");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_without_a_sense_is_one_that_cannot_be_read() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    for since in ["&since=%FF", "&since", "&since=", "&sinc%65=x"] {
        let url = format!("ws://{}/ws?token={}{since}", edge.address, tokens::dev("42"));
        let client = stage.driver.ws(&url, WsOptions::new());
        assert_eq!(
            client.next_of_type("welcome").await["recovered"],
            false,
            "{since}"
        );
        assert_eq!(client.next_of_type("error").await["code"], "history_lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_its_rate_is_named() {
    let mut plan = Plan::default();
    plan.namespaces.get_mut("/").unwrap().rate = few();
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    for _ in 0..2 {
        offset_of(&client).await;
    }
    let refused = [
        json!({ "type": "sub", "topic": "lobby" }),
        json!({ "type": "unsub", "topic": "lobby" }),
        json!({ "type": "presence", "topic": "lobby", "id": 7 }),
    ];
    for message in refused {
        client.send(&message);
        let error = client.next_of_type("error").await;
        assert_eq!(error["code"], "rate_limited");
        assert_eq!(
            (&error["topic"], &error["id"]),
            (&message["topic"], &message["id"])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_count_where_nobody_asked() {
    let mut plan = Plan::default();
    plan.namespaces.get_mut("/").unwrap().rate = few();
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (client, welcome) = stage.ws(&edge, "42").await;
    let sid: Sid = welcome["sid"].as_str().unwrap().parse().unwrap();
    let record = stage.bus.table(Bucket::Sessions).get(sid.as_str()).await.unwrap();
    let record: Record = serde_json::from_slice(&record.unwrap().value).unwrap();
    let subject = format!("{}.ask", stage.bus.subjects().edge(record.owner));
    let question = json!({
        "namespace": "/", "room": "all", "event": "sure?", "payload": 1, "sids": [sid], "timeoutMs": 20_000,
    });
    // Whoever is asked may answer, more often than the limit has events.
    for _ in 0..30 {
        let body = question.to_string().into();
        let headers = Headers::new();
        let (answers, ()) = tokio::join!(stage.bus.request(&subject, &headers, body, PATIENCE), async {
            let asked = client.next_event("sure?").await;
            client.send(&json!({ "type": "answer", "ask": asked["ask"], "data": true }));
        });
        let answers: Value = serde_json::from_slice(&answers.unwrap().body).unwrap();
        assert_eq!(answers["answers"][0]["data"], true);
    }
    offset_of(&client).await;
    for _ in 0..20 {
        client.send(&json!({ "type": "answer", "ask": 1, "data": true }));
    }
    assert_eq!(client.closed().await.code, 1008);
    // A Socket.IO client that acknowledges what it was not sent.
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", edge.address);
    let raw = stage.driver.ws(url, WsOptions::new());
    raw.opened().await;
    raw.send_text(&format!("40{}", json!({ "token": tokens::dev("42") })));
    let mut acknowledge = tokio::time::interval(Duration::from_millis(10));
    let closed = tokio::select! {
        closed = raw.closed() => closed,
        () = async { loop { acknowledge.tick().await; raw.send_text("431[]"); } } => unreachable!(),
    };
    assert_eq!(closed.code, 1008);
}

/// Two events, which come again in an hour.
fn few() -> Rate {
    Rate {
        events: 2,
        per: Duration::from_secs(3600),
        ..Rate::default()
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn each_stay_in_an_automatic_room_has_its_number() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, welcome) = stage.ws(&edge, "42").await;
    for stay in 1..3 {
        client.send(&json!({ "type": "unsub", "topic": "all" }));
        client.next_of_type("unsubscribed").await;
        client.send(&json!({ "type": "sub", "topic": "all" }));
        client.next_of_type("subscribed").await;
        let record = crate::moves::record(&stage, welcome["sid"].as_str().unwrap()).await;
        assert_eq!(
            record.stays.unwrap().rooms.into_iter().collect::<Vec<_>>(),
            [(Room::all(), stay)]
        );
    }
}
