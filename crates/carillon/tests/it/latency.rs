use carillon_testkit::nats::Server;
use carillon_testkit::{http, tokens, wait};
use serde_json::json;

use crate::dev::{Dev, Edge};
use crate::{LIMIT, carillon, run};

const LATENCY: &str = "ws_latency_seconds_count";

/// The time that an event takes ends when it leaves for the client, not when it waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waits_for_a_poll_is_measured_with_the_poll() {
    let nats = Server::start().await;
    let _dev = Dev::over(&nats).await;
    let edge = Edge::over(&nats).await;
    let url = format!("http://{}/socket.io/?EIO=4&transport=polling", edge.listen);
    let http = http::client();
    let get = async |url: &str| http.get(url).send().await.unwrap().text().await.unwrap();
    let opened = get(&url).await;
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).unwrap();
    let url = format!("{url}&sid={}", opened["sid"].as_str().unwrap());
    let connect = format!("40{}", json!({ "token": tokens::dev("42") }));
    let posted = http.post(&url).body(connect).send().await.unwrap();
    assert_eq!(posted.status(), 200);
    let connected = get(&url).await;
    assert!(connected.starts_with("40{"), "{connected}");

    let publish = carillon(["publish", "user:42", "waits", "1", "--nats"]).arg(nats.url());
    assert!(run(publish).await.0);
    wait::until_true("an event for the client", LIMIT, async || {
        edge.metric("ws_messages_sent_total").await > 0.0
    })
    .await;
    assert_eq!(edge.metric(LATENCY).await, 0.0);
    let event = get(&url).await;
    assert!(event.contains("waits"), "{event}");
    assert_eq!(edge.metric(LATENCY).await, 1.0);
}
