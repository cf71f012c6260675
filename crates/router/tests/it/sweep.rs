use std::time::{Duration, Instant};

use carillon_bus::history;
use carillon_protocol::session::{Record, State};
use carillon_testkit::wait;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LEASE, LIMIT, RENEWAL};

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_dead_edge_are_away() {
    let mut settings = crate::cluster::settings();
    settings.session.recovery = Duration::from_secs(300);
    let cluster = Cluster::start_with(settings).await;
    let _router = cluster.router().await;
    let (mut dying, living) = (cluster.edge().await, cluster.edge().await);
    let told = dying
        .open(Record {
            lifecycle: true,
            term: 3,
            ..dying.record(Some("42"), &["chat"])
        })
        .await;
    dying.connect(None, &["chat"]).await;
    living.connect(Some("42"), &["chat"]).await;
    let mut up = cluster
        .bus
        .subscribe("rt.up.main.$disconnect", None)
        .await
        .unwrap();
    cluster.bus.flush().await;
    assert_eq!(cluster.count("chat").await, 3);

    let (killed, wall) = (Instant::now(), history::now());
    dying.kill();
    wait::until_true("the dead edge's sessions are away", LIMIT, async || {
        cluster.count("chat").await == 1
    })
    .await;
    let took = killed.elapsed();
    assert!(
        took >= LEASE - RENEWAL - Duration::from_millis(500),
        "swept after {took:?}"
    );
    let record = cluster.record(told).await.unwrap();
    assert_eq!((record.state, record.term), (State::Away, 3));
    let gone = record.gone.unwrap();
    assert!(gone <= wall + 200 && gone + 2000 > wall, "{gone} {wall}");

    let event = tokio::time::timeout(LIMIT, up.next()).await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["data"], json!({ "reason": "transport close", "term": 3 }));
    assert_eq!(body["user"], json!({ "id": "42", "claims": {} }));
    assert_eq!(
        (&body["sid"], &body["term"], &body["namespace"]),
        (&json!(told), &json!(3), &json!("/"))
    );
    assert_eq!(body["event"], "$disconnect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_taken_over_is_left_alone() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (mut dying, living) = (cluster.edge().await, cluster.edge().await);
    let moved = dying.connect(Some("42"), &["chat"]).await;
    let left = dying.connect(Some("43"), &["chat"]).await;
    dying.kill();
    living
        .change(moved, |record| (record.owner, record.term) = (living.id, 2))
        .await;
    wait::until_true("the other session is away", LIMIT, async || {
        cluster.state(left).await != Some(State::Live)
    })
    .await;
    assert_eq!(cluster.state(moved).await, Some(State::Live));
    assert_eq!(cluster.count("chat").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_dies_of_a_nats_restart() {
    let mut cluster = Cluster::start().await;
    let router = cluster.router().await;
    let edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &["chat"]).await;
    cluster.nats.stop().await;
    wait::until_true("the router is not ready", LIMIT, async || {
        router.readyz().await == 503
    })
    .await;
    // Longer than a lease: the renewals that did not come must not count.
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    cluster.nats.restart().await;
    wait::until_true("the router is ready", LIMIT, async || {
        router.readyz().await == 200
    })
    .await;
    let until = Instant::now() + LEASE + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(cluster.state(sid).await, Some(State::Live));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(cluster.count("chat").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_dies_of_a_silent_nats() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let mut dying = cluster.edge().await;
    let living = cluster.edge().await;
    let (gone, sid) = (
        dying.connect(Some("43"), &[]).await,
        living.connect(Some("42"), &["chat"]).await,
    );
    assert_eq!(cluster.count("chat").await, 1);
    cluster.nats.pause();
    // The leases expire in the server, while no renewal can come.
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    dying.kill();
    cluster.nats.resume();
    wait::until_true("the dead edge's session is away", LIMIT, async || {
        cluster.state(gone).await != Some(State::Live)
    })
    .await;
    assert_eq!(cluster.state(sid).await, Some(State::Live));
    assert_eq!(cluster.count("chat").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_nobody_ever_heard_of_are_dead() {
    let cluster = Cluster::start().await;
    let mut edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &["chat"]).await;
    edge.give_back().await;
    let _router = cluster.router().await;
    wait::until_true("the session is not live", LIMIT, async || {
        cluster.state(sid).await != Some(State::Live)
    })
    .await;
    assert_eq!(cluster.count("chat").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_given_back_is_swept_at_once() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (mut edge, mut first) = (cluster.edge().await, cluster.edge().await);
    let sid = edge.connect(Some("42"), &["chat"]).await;
    let swept = first.connect(Some("43"), &["chat"]).await;
    // The contact must be as old as a lease before anything counts.
    first.kill();
    wait::until_true("another is away", LIMIT, async || {
        cluster.state(swept).await != Some(State::Live)
    })
    .await;
    let started = Instant::now();
    edge.give_back().await;
    wait::until_true("the session is away", LIMIT, async || {
        cluster.state(sid).await != Some(State::Live)
    })
    .await;
    assert!(
        started.elapsed() < LEASE - Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_after_their_time_away() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &[]).await;
    let back = edge.connect(Some("43"), &[]).await;
    edge.away(sid).await;
    edge.away(back).await;
    edge.change(back, |record| {
        (record.state, record.gone, record.term) = (State::Live, None, 2)
    })
    .await;
    wait::until_true("the session has ended", LIMIT, async || {
        cluster.state(sid).await == Some(State::Ended)
    })
    .await;
    assert_eq!(cluster.state(back).await, Some(State::Live));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_more_sessions_than_a_round_takes_is_swept() {
    const SESSIONS: u64 = 2500;
    let mut settings = crate::cluster::settings();
    settings.session.recovery = Duration::from_secs(300);
    let cluster = Cluster::start_with(settings).await;
    let _router = cluster.router().await;
    let (mut dying, living) = (cluster.edge().await, cluster.edge().await);
    let connecting = futures_util::stream::iter(0..SESSIONS).map(|_| dying.connect(None, &["chat"]));
    connecting.buffer_unordered(64).count().await;
    living.connect(None, &["chat"]).await;
    assert_eq!(cluster.count("chat").await, SESSIONS + 1);
    dying.kill();
    wait::until_true("the dead edge's sessions are away", LIMIT, async || {
        cluster.count("chat").await == 1
    })
    .await;
}
