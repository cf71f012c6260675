use std::time::Duration;

use carillon_protocol::headers::Headers;
use carillon_protocol::session::State;
use carillon_testkit::wait;
use serde_json::Value;

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_say_the_same() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.router().await, cluster.router().await);
    let edge = cluster.edge().await;
    let client = carillon_testkit::http::client();
    let shown = async |address| -> Value {
        let request = client
            .get(format!("http://{address}/v1/rooms/chat"))
            .bearer_auth("reader");
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    for number in 0..20 {
        let sid = edge.connect(Some(&number.to_string()), &["chat"]).await;
        let (first, second) = (shown(one.address).await, shown(two.address).await);
        assert_eq!(first, second);
        assert_eq!(first["count"], number + 1);
        if number % 3 == 0 {
            edge.change(sid, |record| {
                record.rooms.extend([("chat".try_into().unwrap(), 9)])
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_when_a_replica_stops() {
    let cluster = Cluster::start().await;
    let (one, _two) = (cluster.router().await, cluster.router().await);
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["chat"]).await;
    let stopping = tokio::spawn(one.stop());
    for _ in 0..50 {
        assert_eq!(cluster.count("chat").await, 1);
    }
    stopping.await.unwrap();
    assert_eq!(cluster.count("chat").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_sweeps_after_an_edge_that_died_with_a_router() {
    let cluster = Cluster::start().await;
    let (one, _two) = (cluster.router().await, cluster.router().await);
    let mut edges = Vec::new();
    let mut sids = Vec::new();
    // Enough edges for some to fall to either router.
    for _ in 0..6 {
        let edge = cluster.edge().await;
        sids.push(edge.connect(Some("42"), &["chat"]).await);
        edges.push(edge);
    }
    one.kill();
    edges.iter_mut().for_each(|edge| edge.kill());
    for sid in sids {
        let swept = async || cluster.state(sid).await != Some(State::Live);
        wait::until_true("the session is swept", LIMIT, swept).await;
    }
    assert_eq!(cluster.count("chat").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_without_a_router() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    router.stop().await;
    let answer = cluster
        .bus
        .request(
            "rt.presence.main.chat",
            &Headers::new(),
            "{}".into(),
            Duration::from_secs(5),
        )
        .await;
    assert_eq!(answer.unwrap_err(), carillon_bus::RequestError::NoResponders);
}
