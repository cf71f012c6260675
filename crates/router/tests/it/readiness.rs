use std::time::Duration;

use carillon_protocol::headers::Headers;
use carillon_testkit::wait;

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_nats_and_the_view_survives() {
    let mut cluster = Cluster::start().await;
    let router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["chat"]).await;
    cluster.nats.stop().await;
    wait::until_true("the router is not ready", LIMIT, async || {
        router.readyz().await == 503
    })
    .await;
    let health = carillon_testkit::http::client()
        .get(format!("http://{}/healthz", router.admin))
        .send()
        .await;
    assert_eq!(health.unwrap().status(), 200);
    let url = format!("http://{}/v1/rooms/chat", router.address);
    let answer = carillon_testkit::http::client()
        .get(&url)
        .bearer_auth("reader")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    cluster.nats.restart().await;
    wait::until_true("the router is ready", LIMIT, async || {
        router.readyz().await == 200
    })
    .await;
    wait::until_true("the room has its member", LIMIT, async || {
        let answer = carillon_testkit::http::client()
            .get(&url)
            .bearer_auth("reader")
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap().contains("\"count\":1")
    })
    .await;
    wait::until_true("NATS requests are answered", LIMIT, async || {
        let headers = Headers::new();
        let request = cluster.bus.request(
            "rt.presence.main.chat",
            &headers,
            "".into(),
            Duration::from_secs(2),
        );
        request
            .await
            .is_ok_and(|answer| answer.body.starts_with(b"{\"count\":1"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_the_router_sees() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["chat"]).await;
    assert_eq!(cluster.count("chat").await, 1);
    let url = format!("http://{}/metrics", router.admin);
    wait::until_true("the metrics are there", LIMIT, async || {
        let text = carillon_testkit::http::text(&url).await;
        [
            "router_sessions{state=\"live\"}",
            "# HELP router_edges_alive ",
            "router_sessions_swept_total",
            "router_watch_restarts_total{bucket=\"sessions\"}",
            "router_request_seconds_bucket{kind=\"presence\"",
        ]
        .iter()
        .all(|name| text.contains(name))
    })
    .await;
}
