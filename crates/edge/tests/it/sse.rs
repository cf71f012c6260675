//! Server-sent events.

use std::time::Duration;

use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::mortal::Mortal;
use crate::stage::{Plan, Stage};

fn url(address: std::net::SocketAddr, user: &str, more: &str) -> String {
    format!("http://{address}/sse?token={}{more}", tokens::dev(user))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_its_topics_and_automatic_rooms() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sse(url(edge.address, "42", "&topic=news&topic=sport"), &[]);
    let welcome = client.next_message().await;
    assert_eq!(
        (&welcome.json["type"], &welcome.json["userId"]),
        (&json!("welcome"), &json!("42"))
    );
    assert_eq!(welcome.last_event_id.len(), 20);
    for (room, n) in [("news", 1), ("sport", 2), ("user:42", 3), ("all", 4)] {
        stage.publish(room, "tick", json!(n)).await;
        let message = client.next_message().await;
        assert_eq!(
            (&message.json["topic"], &message.json["payload"]),
            (&json!(room), &json!(n))
        );
        assert_eq!(message.json["offset"], message.last_event_id.as_str());
    }
    stage.publish("elsewhere", "tick", json!(5)).await;
    stage.signal("news", "typing", json!({ "a": 1 })).await;
    let signal = client.next_message().await;
    assert_eq!(signal.json["event"], "typing");
    assert_eq!(signal.json.get("offset"), None);
    assert_eq!(signal.last_event_id.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_at_another_edge_when_its_own_is_killed() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let killed = Mortal::start(&stage).await;
    let client = stage.driver.sse(url(killed.address, "42", "&topic=news"), &[]);
    client.set_patience(Duration::from_secs(20));
    let first = client.next_message().await;
    let quiet = stage.driver.sse(url(killed.address, "43", ""), &[]);
    quiet.set_patience(Duration::from_secs(20));
    quiet.next_message().await;
    stage.publish("news", "tick", json!(0)).await;
    client.next_message().await;
    client.set_url(&url(edge.address, "42", "&topic=news")).await;
    quiet.set_url(&url(edge.address, "43", "")).await;
    killed.kill();
    for n in 1..=5 {
        stage
            .publish(if n % 2 == 0 { "news" } else { "user:42" }, "tick", json!(n))
            .await;
    }
    stage.publish("user:43", "tick", json!(9)).await;
    let again = client.next_message().await;
    assert_eq!(
        (&again.json["type"], &again.json["recovered"]),
        (&json!("welcome"), &json!(true))
    );
    assert_ne!(again.json["sid"], first.json["sid"]);
    for n in 1..=5 {
        assert_eq!(client.next_message().await.json["payload"], n);
    }
    stage.publish("news", "tick", json!(6)).await;
    assert_eq!(client.next_message().await.json["payload"], 6);
    // One that had heard nothing but the welcome goes on from there.
    assert_eq!(quiet.next_message().await.json["recovered"], true);
    assert_eq!(quiet.next_message().await.json["payload"], 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_a_named_topic_is_told_and_what_is_left_follows() {
    let mut plan = Plan::default();
    plan.history.max_per_room = 3;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    // One that has only what the stream has.
    let other = stage.edge().await;
    let client = stage
        .driver
        .sse(url(edge.address, "42", "&topic=news&topic=sport"), &[]);
    let offset = client.next_message().await.last_event_id;
    // The stream itself reaches back.
    stage.publish("elsewhere", "tick", json!(0)).await;
    for n in 1..=8 {
        stage.publish("news", "tick", json!(n)).await;
        stage.publish("user:42", "tick", json!(n)).await;
    }
    stage.publish("sport", "tick", json!(9)).await;
    let again = stage.driver.sse(
        url(
            other.address,
            "42",
            &format!("&topic=news&topic=sport&since={offset}"),
        ),
        &[],
    );
    assert_eq!(again.next_message().await.json["recovered"], false);
    let mut lost = Vec::new();
    for _ in 0..2 {
        let told = again.next_message().await.json;
        assert_eq!(told["code"], "history_lost");
        lost.push(told["topic"].as_str().unwrap().to_owned());
    }
    lost.sort();
    assert_eq!(lost, ["news", "user:42"]);
    let mut got = Vec::new();
    for _ in 0..7 {
        let message = again.next_message().await.json;
        got.push((
            message["topic"].as_str().unwrap().to_owned(),
            message["payload"].clone(),
        ));
    }
    let expected = [6, 7, 8]
        .into_iter()
        .flat_map(|n| [("news".to_owned(), json!(n)), ("user:42".to_owned(), json!(n))])
        .chain([("sport".to_owned(), json!(9))]);
    assert_eq!(got, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_before_the_stream() {
    let mut plan = Plan::default();
    plan.edge.cors_origin = vec!["https://app.example".to_owned()];
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let http = http::client();
    let at = |query: &str| format!("http://{}/sse{query}", edge.address);
    let good = format!("?token={}", tokens::dev("42"));
    let status = async |url: String, origin: &str| {
        let response = http.get(url).header("Origin", origin).send().await.unwrap();
        let readable = response.headers().contains_key("access-control-allow-origin");
        (response.status().as_u16(), readable)
    };
    assert_eq!(status(at(""), "https://app.example").await, (401, true));
    assert_eq!(status(at("?token=x"), "https://app.example").await, (401, true));
    assert_eq!(
        status(at(&format!("{good}&topic=user:43")), "https://app.example").await,
        (403, true)
    );
    for topic in ["&topic=", "&topic", "&topic=%FF", "&%74opic=user:43"] {
        assert_eq!(
            status(at(&format!("{good}{topic}")), "https://app.example").await,
            (403, true),
            "{topic}"
        );
    }
    assert_eq!(status(at(&good), "https://evil.example").await, (403, false));
    assert_eq!(http.post(at(&good)).send().await.unwrap().status(), 405);
    let response = http
        .get(at(&good))
        .header("Origin", "https://app.example")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "https://app.example"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_carry_the_offset_and_a_payload_over_lines_stays_one_message() {
    let mut plan = Plan::default();
    plan.edge.ws_ping_interval = Duration::from_millis(200);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut response = http::client()
        .get(url(edge.address, "42", ""))
        .send()
        .await
        .unwrap();
    let mut text = String::new();
    let mut read_until = async |wanted: &dyn Fn(&str) -> bool| {
        while !wanted(&text) {
            let chunk = tokio::time::timeout(crate::stage::PATIENCE, response.chunk())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text.clone()
    };
    let is_heartbeat = |block: &str| block.starts_with("id: ") && !block.contains("data:");
    let heard = read_until(&|text| text.split("\n\n").any(is_heartbeat)).await;
    let before = heard
        .split("\n\n")
        .find(|block| is_heartbeat(block))
        .unwrap()
        .to_owned();
    // Others' events move the offset on, once a heartbeat comes.
    stage.publish("user:43", "tick", json!(1)).await;
    stage.publish("user:42", "tick", json!({ "a": 1 })).await;
    let heard = read_until(&|text| {
        text.split("\n\n")
            .any(|block| is_heartbeat(block) && block > before.as_str())
    })
    .await;
    let message = heard
        .split("\n\n")
        .find(|block| block.contains("\"tick\""))
        .unwrap();
    let data: Vec<&str> = message
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    let json: Value = serde_json::from_str(&data.join("\n")).unwrap();
    assert_eq!(json["payload"], json!({ "a": 1 }));
    assert!(!heard.contains("event:"));
}
