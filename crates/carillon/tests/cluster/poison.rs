//! Bodies that no publisher can take.

use async_nats::jetstream;
use carillon_testkit::clients::{Driver, SioOptions};
use carillon_testkit::wait;
use serde_json::Value;

use crate::LIMIT;
use crate::stage::{NatsKind, Size, Stage, user_token};

/// Above `events.max_bytes`, below what NATS takes.
const TOO_LARGE: usize = 300 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_event_becomes_a_dead_letter_and_the_next_one_is_delivered() {
    let _turn = crate::alone().await;
    let size = Size {
        edges: 1,
        publishers: 2,
        routers: 1,
    };
    let mut stage = Stage::start(NatsKind::One, size).await;
    let driver = Driver::start().await;
    let url = format!("http://{}", stage.edges[0].listen);
    let client = driver.sio(url, SioOptions::websocket(user_token("42")));
    client.set_patience(LIMIT);
    client.connected().await;

    let nats = stage.nats.connect().await;
    let jetstream = jetstream::new(nats);
    let publish = async |body: String| {
        let sent = jetstream
            .publish("rt.pub.main.user:42", body.into())
            .await
            .unwrap();
        sent.await.unwrap();
    };
    publish("{\"event\":".to_owned()).await;
    publish(format!(
        "{{\"event\":\"large\",\"data\":\"{}\"}}",
        "x".repeat(TOO_LARGE)
    ))
    .await;
    publish("{\"event\":\"good\",\"data\":1}".to_owned()).await;
    assert_eq!(client.next_any_event().await.name, "good");

    // Neither a takeover nor a restart brings them back.
    for node in &mut stage.publishers {
        node.process.restart();
    }
    publish("{\"event\":\"good\",\"data\":2}".to_owned()).await;
    let next = client.next_any_event().await;
    assert_eq!((next.name.as_str(), next.data()), ("good", &2.into()));

    let reasons = wait::until("two dead letters", LIMIT, async || {
        let text = stage.run(["dead", "list"]).await;
        let letters: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let reasons: Vec<String> = letters
            .iter()
            .map(|letter| letter["reason"].to_string())
            .collect();
        assert!(letters.len() <= 2, "{text}");
        (letters.len() == 2).then_some(reasons)
    })
    .await;
    assert!(
        reasons[0].contains("not_json") && reasons[1].contains("too_large"),
        "{reasons:?}"
    );
}
