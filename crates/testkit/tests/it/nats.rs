use std::time::Duration;

use async_nats::jetstream::{self, stream};
use carillon_testkit::nats::{Cluster, MAX_PAYLOAD, Server};
use carillon_testkit::wait;

use crate::SOON;

fn config(replicas: usize) -> stream::Config {
    stream::Config {
        name: "NUMBERS".to_owned(),
        subjects: vec!["numbers.>".to_owned()],
        num_replicas: replicas,
        ..stream::Config::default()
    }
}

async fn publish(js: &jetstream::Context) -> Option<u64> {
    let ack = js.publish("numbers.one", "1".into()).await.ok()?;
    Some(ack.await.ok()?.sequence)
}

#[tokio::test]
async fn a_server_keeps_port_and_store_over_stop_and_kill() {
    let mut server = Server::start().await;
    let url = server.url();
    let client = server.connect().await;
    assert_eq!(client.server_info().max_payload, MAX_PAYLOAD);
    let js = jetstream::new(client);
    js.create_stream(config(1)).await.unwrap();
    assert_eq!(publish(&js).await, Some(1));

    server.stop().await;
    assert!(!server.is_running());
    assert!(async_nats::connect(&url).await.is_err());
    server.restart().await;
    assert_eq!(server.url(), url);
    let second = wait::until("a second message", SOON, async || publish(&js).await).await;
    assert!(second >= 2);

    server.kill();
    server.restart().await;
    let stored = wait::until("the stream", SOON, async || js.get_stream("NUMBERS").await.ok()).await;
    assert!(stored.cached_info().state.messages >= 2);
}

#[tokio::test]
async fn a_paused_server_answers_again_when_resumed() {
    let server = Server::start().await;
    let client = server.connect().await;
    server.pause();
    let silent = tokio::time::timeout(Duration::from_millis(300), client.flush());
    let asked = async { client.request("nobody.there", "".into()).await };
    let (_, answer) = tokio::join!(silent, tokio::time::timeout(Duration::from_millis(300), asked));
    assert!(answer.is_err(), "a paused server answered");
    server.resume();
    // With nobody listening the server itself says so at once.
    let answer = tokio::time::timeout(SOON, client.request("nobody.there", "".into())).await;
    assert!(answer.expect("the server is silent after resuming").is_err());
}

#[tokio::test]
async fn two_servers_never_meet() {
    let (one, two) = tokio::join!(Server::start(), Server::start());
    assert_ne!(one.addr(), two.addr());
    let js = jetstream::new(one.connect().await);
    js.create_stream(config(1)).await.unwrap();
    assert!(
        jetstream::new(two.connect().await)
            .get_stream("NUMBERS")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_cluster_elects_a_new_leader_when_the_old_one_is_killed() {
    let mut cluster = Cluster::three().await;
    let js = jetstream::new(cluster.connect().await);
    js.create_stream(config(3)).await.unwrap();
    // The server that the client is at may not know yet who takes what is published.
    let stored = async || publish(&js).await;
    wait::until("a publish to the first leader", SOON, stored).await;

    let leader = cluster.wait_stream_leader("NUMBERS").await;
    cluster.kill_node(leader);
    let next = cluster.wait_stream_leader("NUMBERS").await;
    assert_ne!(next, leader);
    wait::until("a publish to the new leader", Duration::from_secs(40), stored).await;

    cluster.restart_node(leader).await;
    cluster.wait_stream_current("NUMBERS").await;
    assert!(cluster.node(leader).is_running());
}
