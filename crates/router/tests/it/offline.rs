use std::time::Duration;

use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State};
use carillon_testkit::wait;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LIMIT, RECOVERY, settings};

/// What a session that begins now writes.
async fn fresh(cluster: &Cluster, edge: &crate::edge::Edge, user: &str) -> Record {
    Record {
        epoch: cluster.epoch(),
        start: cluster.now().await,
        ..edge.record(Some(user), &[])
    }
}

async fn until_kept(cluster: &Cluster, user: &str, expected: &[Value]) {
    wait::until_true(format!("{expected:?} is kept"), LIMIT, async || {
        cluster.kept(user).await == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_nobody_is_kept_at_once() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let sequence = cluster.publish("user:42", "note", json!({ "n": 1 })).await;
    until_kept(&cluster, "42", &[json!({ "n": 1 })]).await;
    let subject = cluster.bus.subjects().offline(&Namespace::main(), "42");
    let kept = cluster.stored(&cluster.streams.offline, &subject).await;
    let body: Value = serde_json::from_slice(&kept[0].body).unwrap();
    assert_eq!(
        (&body["event"], &body["room"], &body["namespace"]),
        (&json!("note"), &json!("user:42"), &json!("/"))
    );
    assert_eq!(body["offset"], format!("{:08x}{sequence:012x}", cluster.epoch()));
    assert!(body["ts"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_has_nothing_kept() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.open(fresh(&cluster, &edge, "42").await).await;
    cluster.publish("user:42", "note", json!(1)).await;
    // Events are looked at in order: the second one says that the first was.
    // More than is looked at together with those.
    for number in 0..300 {
        cluster.publish("user:43", "note", json!(number)).await;
    }
    wait::until_true("300 events are kept", LIMIT, async || {
        cluster.kept("43").await.len() == 300
    })
    .await;
    assert!(cluster.kept("42").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_the_own_room_is_still_there() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let mut sids = Vec::new();
    for user in ["42", "43"] {
        let record = Record {
            left: vec![Room::of_user(user)],
            ..fresh(&cluster, &edge, user).await
        };
        sids.push(edge.open(record).await);
    }
    cluster.publish("user:42", "note", json!(1)).await;
    cluster.publish("user:43", "note", json!(2)).await;
    // One ends for good, the other is away until its window is over.
    let gone = carillon_bus::history::now() + 1;
    edge.change(sids[0], |record| {
        (record.state, record.gone) = (State::Ended, Some(gone));
    })
    .await;
    edge.away(sids[1]).await;
    wait::until_true("the other session ends", LIMIT, async || {
        cluster.state(sids[1]).await == Some(State::Ended)
    })
    .await;
    for user in ["42", "43"] {
        cluster
            .publish(&format!("user:{user}"), "note", json!("after"))
            .await;
        until_kept(&cluster, user, &[json!("after")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_came_after_the_event_does_not_hear_it() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge().await;
    // No router runs: the event is looked at when the session is there already.
    cluster.publish("user:42", "note", json!(1)).await;
    edge.open(fresh(&cluster, &edge, "42").await).await;
    let _router = cluster.router().await;
    until_kept(&cluster, "42", &[json!(1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_away_is_kept_when_the_session_ends() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let sid = edge.open(fresh(&cluster, &edge, "42").await).await;
    edge.away(sid).await;
    cluster.publish("user:42", "note", json!(1)).await;
    cluster.publish("user:42", "note", json!(2)).await;
    cluster.publish("user:43", "note", json!(3)).await;
    until_kept(&cluster, "43", &[json!(3)]).await;
    assert!(cluster.kept("42").await.is_empty());
    until_kept(&cluster, "42", &[json!(1), json!(2)]).await;
    assert_eq!(cluster.state(sid).await, Some(State::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_heard_before_it_left_is_not_kept() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let mut sids = Vec::new();
    for user in ["42", "43"] {
        sids.push(edge.open(fresh(&cluster, &edge, user).await).await);
    }
    for (user, sid) in ["42", "43"].into_iter().zip(sids) {
        let heard = cluster.publish(&format!("user:{user}"), "note", json!(1)).await;
        edge.change(sid, |record| {
            record.state = if user == "42" { State::Away } else { State::Ended };
            (record.gone, record.complete) = (Some(carillon_bus::history::now()), Some(heard));
        })
        .await;
        cluster.publish(&format!("user:{user}"), "note", json!(2)).await;
    }
    // Nobody knows what this one heard. Events get their second look in order, so all above have had theirs then.
    let lost = edge.open(fresh(&cluster, &edge, "44").await).await;
    cluster.publish("user:44", "note", json!(1)).await;
    edge.change(lost, |record| record.state = State::Ended).await;
    until_kept(&cluster, "44", &[json!(1)]).await;
    until_kept(&cluster, "43", &[json!(2)]).await;
    until_kept(&cluster, "42", &[json!(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_has_nothing_kept() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let sid = edge.open(fresh(&cluster, &edge, "42").await).await;
    edge.away(sid).await;
    cluster.publish("user:42", "note", json!(1)).await;
    edge.change(sid, |record| {
        (record.state, record.gone, record.term) = (State::Live, None, 2)
    })
    .await;
    let other = edge.open(fresh(&cluster, &edge, "43").await).await;
    edge.away(other).await;
    // More than is looked at together with those.
    for number in 0..300 {
        cluster.publish("user:43", "note", json!(number)).await;
    }
    wait::until_true("300 events are kept", LIMIT, async || {
        cluster.kept("43").await.len() == 300
    })
    .await;
    assert!(cluster.kept("42").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_session_heard_meanwhile_is_not_kept() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let lost = edge.open(fresh(&cluster, &edge, "42").await).await;
    edge.away(lost).await;
    for number in [1, 2] {
        let other = edge.open(fresh(&cluster, &edge, "42").await).await;
        let heard = cluster.publish("user:42", "note", json!(number)).await;
        edge.change(other, |record| {
            record.state = State::Ended;
            (record.gone, record.complete) = (Some(carillon_bus::history::now()), Some(heard));
        })
        .await;
    }
    cluster.publish("user:42", "note", json!("after")).await;
    until_kept(&cluster, "42", &[json!("after")]).await;
    assert_eq!(cluster.state(lost).await, Some(State::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_late_return_is_kept() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge().await;
    let lost = edge.open(fresh(&cluster, &edge, "42").await).await;
    edge.away(lost).await;
    let gone = cluster.record(lost).await.unwrap().gone.unwrap();
    cluster.publish("user:42", "note", json!(1)).await;
    let _router = cluster.router().await;
    // As a router finds it that ran when the event came, and then not until the client was there again.
    let since = gone + u64::try_from(RECOVERY.as_millis()).unwrap() + 1;
    edge.open(Record {
        since,
        ..fresh(&cluster, &edge, "42").await
    })
    .await;
    until_kept(&cluster, "42", &[json!(1)]).await;
    assert!(carillon_bus::history::now() >= since);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sessions_that_end_together_one_keeps() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let record = fresh(&cluster, &edge, "42").await;
    let (first, second) = (edge.open(record.clone()).await, edge.open(record).await);
    edge.away(first).await;
    edge.away(second).await;
    cluster.publish("user:42", "note", json!(1)).await;
    until_kept(&cluster, "42", &[json!(1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_edge_may_not_have_delivered_is_kept() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let mut edge = cluster.edge().await;
    edge.open(fresh(&cluster, &edge, "42").await).await;
    assert_eq!(cluster.count("user:42").await, 1);
    edge.kill();
    // The session still looks live.
    cluster.publish("user:42", "note", json!(1)).await;
    assert_eq!(cluster.count("user:42").await, 1);
    until_kept(&cluster, "42", &[json!(1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_and_publishing_at_once_loses_nothing() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let mut users = Vec::new();
    for number in 0..60 {
        let user = format!("u{number}");
        let sid = edge.open(fresh(&cluster, &edge, &user).await).await;
        users.push((user, sid));
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut pauses = fastrand::Rng::with_seed(seed);
    for (number, (user, sid)) in users.iter().enumerate() {
        // Which comes first is what the test varies.
        let [before, between] = [(); 2].map(|()| Duration::from_micros(pauses.u64(0..2000)));
        let leave = async {
            tokio::time::sleep(before).await;
            // Half go away, half end for good: nobody was told the event in this test, so all must be kept.
            match number % 2 {
                0 => edge.away(*sid).await,
                _ => edge.change(*sid, |record| record.state = State::Ended).await,
            }
        };
        let room = format!("user:{user}");
        let publish = async {
            tokio::time::sleep(between).await;
            cluster.publish(&room, "note", json!(number)).await
        };
        tokio::join!(leave, publish);
    }
    for (number, (user, _)) in users.iter().enumerate() {
        until_kept(&cluster, user, &[json!(number)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_router_goes_on_where_one_was_killed() {
    let mut settings = settings();
    settings.session.lease = Duration::from_secs(2);
    let cluster = Cluster::start_with(settings).await;
    let first = cluster.router().await;
    cluster.publish("user:1", "note", json!(1)).await;
    until_kept(&cluster, "1", &[json!(1)]).await;
    let _second = cluster.router().await;
    first.kill();
    cluster.publish("user:1", "note", json!(2)).await;
    until_kept(&cluster, "1", &[json!(1), json!(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_restart_loses_no_event() {
    let mut cluster = Cluster::start().await;
    let router = cluster.router().await;
    cluster.publish("user:42", "note", json!(1)).await;
    cluster.nats.restart().await;
    let stored = wait::within(LIMIT, async || {
        let subject = cluster
            .bus
            .subjects()
            .event(&Namespace::main(), &"user:42".try_into().unwrap());
        let headers = Headers::new()
            .with(name::EVENT, "note")
            .with(name::MSG_ID, "second");
        cluster.bus.store(&subject, &headers, "2".into()).await.ok()
    });
    assert!(stored.await.is_some());
    wait::until_true("the router is ready", LIMIT, async || {
        router.readyz().await == 200
    })
    .await;
    until_kept(&cluster, "42", &[json!(1), json!(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_be_kept_for_stops_nobody_else() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    // Rooms that no user has.
    cluster.publish("user:", "note", json!(1)).await;
    cluster
        .publish(&format!("user:{}", "x".repeat(201)), "note", json!(1))
        .await;
    // An event whose copy has more headers than a message can have: they fit into EVENTS with a few bytes to spare.
    let subject = cluster
        .bus
        .subjects()
        .event(&Namespace::main(), &"user:42".try_into().unwrap());
    let headers = Headers::new()
        .with(name::EVENT, "e")
        .with(name::TRACEPARENT, "x".repeat(65_487));
    cluster.bus.store(&subject, &headers, "1".into()).await.unwrap();
    // More than is looked at together with those.
    for number in 0..300 {
        cluster.publish("user:43", "note", json!(number)).await;
    }
    wait::until_true("300 events are kept", LIMIT, async || {
        cluster.kept("43").await.len() == 300
    })
    .await;
    assert!(cluster.kept("42").await.is_empty());
}
