use carillon_bus::history;
use carillon_protocol::names::Room;
use carillon_protocol::session::{Record, State};
use carillon_testkit::wait;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LIMIT};

/// Returns what was published to a room.
async fn told(cluster: &Cluster, room: &str) -> Vec<Value> {
    let mut told = Vec::new();
    for partition in 0..4 {
        let subject = format!("rt.ingest.{partition}.main.{room}");
        told.extend(cluster.stored(&cluster.streams.ingest, &subject).await);
    }
    told.iter()
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect()
}

/// Waits until what was published to a room is what was expected.
async fn until_told(cluster: &Cluster, room: &str, expected: &[Value]) {
    let seen = wait::within(LIMIT, async || {
        (told(cluster, room).await == expected).then_some(())
    })
    .await;
    assert!(
        seen.is_some(),
        "told {:?}, expected {expected:?}",
        told(cluster, room).await
    );
}

fn joined(user: &str, sid: impl serde::Serialize) -> Value {
    json!({ "event": "desk:joined", "data": { "userId": user, "sid": sid }, "except": [sid] })
}

fn left(user: &str, sid: impl serde::Serialize) -> Value {
    json!({ "event": "desk:left", "data": { "userId": user, "sid": sid } })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_connection_of_a_user_are_told_once() {
    let cluster = Cluster::start().await;
    let (_one, _two) = (cluster.router().await, cluster.router().await);
    let edge = cluster.edge().await;
    let first = edge.connect(Some("42"), &["desk:1"]).await;
    let second = edge.connect(Some("42"), &["desk:1"]).await;
    let mut expected = vec![joined("42", first)];
    until_told(&cluster, "desk:1", &expected).await;
    edge.away(first).await;
    edge.change(second, |record| {
        (record.state, record.gone) = (State::Away, Some(history::now()))
    })
    .await;
    expected.push(left("42", second));
    until_told(&cluster, "desk:1", &expected).await;
    edge.change(first, |record| {
        (record.state, record.gone, record.term) = (State::Live, None, 2)
    })
    .await;
    expected.push(joined("42", first));
    until_told(&cluster, "desk:1", &expected).await;
    // Leaving and joining again is told each time.
    let desk = Room::new("desk:1").unwrap();
    edge.change(first, |record| record.rooms.retain(|room, _| *room != desk))
        .await;
    edge.change(first, |record| record.rooms.extend([(desk.clone(), 77)]))
        .await;
    expected.extend([left("42", first), joined("42", first)]);
    until_told(&cluster, "desk:1", &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stay_in_a_room_is_told() {
    let cluster = Cluster::start().await;
    let one = cluster.router().await;
    let edge = cluster.edge().await;
    let (automatic, joined_room) = (Room::new("desk:1").unwrap(), Room::new("desk:2").unwrap());
    let sid = edge
        .open(Record {
            automatic: vec![automatic.clone()],
            ..edge.record(Some("42"), &["desk:2"])
        })
        .await;
    let mut expected = vec![joined("42", sid)];
    for _ in 0..3 {
        edge.change(sid, |record| {
            record.left.push(automatic.clone());
            record.rooms.remove(&joined_room);
        })
        .await;
        // The sequence is that of the first stay: nothing was published meanwhile.
        edge.change(sid, |record| {
            record.left.clear();
            record.rooms.insert(joined_room.clone(), 0);
        })
        .await;
        expected.extend([left("42", sid), joined("42", sid)]);
    }
    for room in ["desk:1", "desk:2"] {
        until_told(&cluster, room, &expected).await;
    }
    // A new router tells the last stay again, under the same name.
    one.kill();
    let two = cluster.router().await;
    edge.connect(Some("43"), &["desk:3"]).await;
    wait::until_true("the new router tells", LIMIT, async || {
        told(&cluster, "desk:3").await.len() == 1
    })
    .await;
    for room in ["desk:1", "desk:2"] {
        until_told(&cluster, room, &expected).await;
    }
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_router_tells_what_none_has_told() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &["desk:1"]).await;
    let one = cluster.router().await;
    until_told(&cluster, "desk:1", &[joined("42", sid)]).await;
    one.kill();
    let two = cluster.router().await;
    edge.connect(Some("43"), &["desk:2"]).await;
    wait::until_true("the new router tells", LIMIT, async || {
        told(&cluster, "desk:2").await.len() == 1
    })
    .await;
    until_told(&cluster, "desk:1", &[joined("42", sid)]).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ended_while_no_router_ran_has_left() {
    let cluster = Cluster::start().await;
    let one = cluster.router().await;
    let edge = cluster.edge().await;
    let ending = edge.connect(Some("42"), &["desk:1"]).await;
    let gone_before = edge.connect(Some("42"), &["desk:1"]).await;
    let away = edge.connect(Some("43"), &["desk:2"]).await;
    let ending_later = edge.connect(Some("43"), &["desk:2"]).await;
    let staying = edge.connect(Some("44"), &["desk:3"]).await;
    let other = edge.connect(Some("44"), &["desk:3"]).await;
    let mut expected = [
        vec![joined("42", ending)],
        vec![joined("43", away)],
        vec![joined("44", staying)],
    ];
    for (room, expected) in ["desk:1", "desk:2", "desk:3"].into_iter().zip(&expected) {
        until_told(&cluster, room, expected).await;
    }
    one.kill();
    let now = history::now();
    for (sid, state, gone) in [
        (gone_before, State::Ended, now),
        (ending, State::Ended, now + 1),
        (away, State::Away, now),
        (ending_later, State::Ended, now + 1),
        (other, State::Ended, now),
    ] {
        edge.change(sid, |record| (record.state, record.gone) = (state, Some(gone)))
            .await;
    }
    let two = cluster.router().await;
    expected[0].push(left("42", ending));
    expected[1].push(left("43", ending_later));
    for (room, expected) in ["desk:1", "desk:2", "desk:3"].into_iter().zip(&expected) {
        until_told(&cluster, room, expected).await;
    }
    two.stop().await;
}
