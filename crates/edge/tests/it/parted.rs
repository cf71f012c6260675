//! Long-polling sessions that are parted from their owner, or from NATS.

use std::time::Duration;

use carillon_protocol::session::State;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::tokens;
use carillon_testkit::wait::until_true;
use serde_json::{Value, json};

use crate::mortal::Mortal;
use crate::moves::record;
use crate::raw_polling::Raw;
use crate::stage::{PATIENCE, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_killed_edge_go_on_at_the_others() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let owner = Mortal::start(&stage).await;
    let clients: Vec<_> = (0..5)
        .map(|n| {
            let url = format!("http://{}", owner.address);
            stage
                .driver
                .sio(&url, SioOptions::polling(tokens::dev(&format!("u{n}"))))
        })
        .collect();
    let mut sids = Vec::new();
    let proxy = RoundRobin::start([first.address, second.address]).await;
    for (n, client) in clients.iter().enumerate() {
        client.set_patience(Duration::from_secs(30));
        sids.push(client.connected().await.sid);
        stage.publish(&format!("user:u{n}"), "tick", json!(0)).await;
        client.next_event("tick").await;
        client.set_url(&proxy.url()).await;
    }
    owner.kill();
    for n in 0..clients.len() {
        for i in 1..=5 {
            stage.publish(&format!("user:u{n}"), "tick", json!(i)).await;
        }
    }
    for (client, sid) in clients.iter().zip(&sids) {
        client.disconnected().await;
        let again = client.connected().await;
        assert_eq!((again.recovered, &again.sid), (true, sid));
        for i in 1..=5 {
            assert_eq!(client.next_event("tick").await.data(), i);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_poll_at_another_edge_ends_soon_when_its_owner_is_killed() {
    let stage = Stage::start().await;
    let front = stage.edge().await;
    let owner = Mortal::start(&stage).await;
    let proxy = RoundRobin::start([owner.address, front.address]).await;
    // Sessions are opened at the owner, and polled at the other edge.
    proxy.plan(|seen| Action::To(usize::from(seen.target.contains("sid="))));
    let client = stage
        .driver
        .sio(proxy.url(), SioOptions::polling(tokens::dev("42")));
    client.set_patience(Duration::from_secs(10));
    let sid = client.connected().await.sid;
    stage.publish("user:42", "tick", json!(0)).await;
    client.next_event("tick").await;
    proxy.plan(|_| Action::To(1));
    owner.kill();
    client.disconnected().await;
    let again = client.connected().await;
    assert_eq!((again.recovered, again.sid), (true, sid));
    stage.publish("user:42", "tick", json!(1)).await;
    assert_eq!(client.next_event("tick").await.data(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_with_another_edge_leaves_nobody_present() {
    let stage = Stage::start().await;
    let owner = stage.edge().await;
    let fronts = [Mortal::start(&stage).await, Mortal::start(&stage).await];
    let at = |front: &Mortal| format!("http://{}/socket.io/?EIO=4&transport=polling", front.address);
    let connect = |user: &str| format!("40{}", json!({ "token": tokens::dev(user) }));
    let (lost, there) = (Raw::open(&owner).await, Raw::open(&owner).await);
    let mut sids = Vec::new();
    for (raw, user, front) in [(&lost, "1", &fronts[0]), (&there, "2", &fronts[1])] {
        raw.post("p1", &connect(user)).await;
        let (status, answer) = raw.poll_at(&at(front), "g1").await;
        assert_eq!(status, 200);
        let opened: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
        sids.push(opened["sid"].as_str().unwrap().to_owned());
    }
    for sid in &sids {
        assert_eq!(record(&stage, sid).await.state, State::Live);
    }
    // One of the clients takes its answer for lost, the other one goes on at another edge.
    let began = std::time::Instant::now();
    for front in fronts {
        front.kill();
    }
    let poll = there.poll("g2");
    let gone = until_true("the session is away", PATIENCE, async || {
        record(&stage, &sids[0]).await.state == State::Away
    });
    tokio::select! {
        () = gone => {}
        answer = poll => panic!("nothing was to come: {answer:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(record(&stage, &sids[1]).await.state, State::Live);
    assert_eq!(there.post("p2", "3").await, (200, "ok".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_edge_hands_its_polling_clients_on() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let proxy = RoundRobin::start([first.address]).await;
    let client = stage
        .driver
        .sio(proxy.url(), SioOptions::polling(tokens::dev("42")));
    let sid = client.connected().await.sid;
    proxy.set_upstreams([second.address]);
    tokio::join!(first.stop(), async {
        assert_eq!(client.disconnected().await, "transport close");
        let again = client.connected().await;
        assert_eq!((again.recovered, again.sid), (true, sid));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_an_edge_drains_comes_in_an_answer_before_the_close() {
    let stage = Stage::start().await;
    let (edge, other) = (stage.edge().await, stage.edge().await);
    let at_other = format!("{}/socket.io/?EIO=4&transport=polling", other.url());
    let raw = Raw::open(&edge).await;
    let connect = format!("40{}", json!({ "token": tokens::dev("42") }));
    raw.post("p1", &connect).await;
    let answer = raw.poll_until("g", "40").await;
    let opened: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
    stage.publish("user:42", "tick", json!(1)).await;
    // It has come when it has come to somebody who polls.
    let listener = stage
        .driver
        .sio(edge.url(), SioOptions::polling(tokens::dev("42")));
    listener.connected().await;
    stage.publish("user:42", "tick", json!(2)).await;
    listener.next_event("tick").await;
    tokio::join!(edge.stop(), async {
        until_true("the session is away", PATIENCE, async || {
            record(&stage, opened["sid"].as_str().unwrap()).await.state == State::Away
        })
        .await;
        let mut answers = Vec::new();
        while answers.last().is_none_or(|last| last != "1") {
            let (status, body) = raw.poll_at(&at_other, &format!("l{}", answers.len())).await;
            assert_eq!(status, 200, "{body}");
            answers.push(body);
        }
        let events = &answers[..answers.len() - 1];
        let ticks: usize = events.iter().map(|body| body.matches("tick").count()).sum();
        assert_eq!(ticks, 2, "{answers:?}");
        assert!(
            events
                .iter()
                .all(|body| body.split('\u{1e}').all(|packet| packet != "1")),
            "{answers:?}"
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_at_another_edge_outlives_a_restart_of_nats() {
    let mut stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let proxy = RoundRobin::start([first.address, second.address]).await;
    // Sessions are opened at the first edge, and served at the second.
    proxy.plan(|seen| Action::To(usize::from(seen.target.contains("sid="))));
    let polling = stage
        .driver
        .sio(proxy.url(), SioOptions::polling(tokens::dev("42")));
    let relayed = stage
        .driver
        .sio(proxy.url(), SioOptions::new().token(tokens::dev("42")));
    for client in [&polling, &relayed] {
        client.set_patience(Duration::from_secs(30));
        client.connected().await;
    }
    relayed.upgraded().await;
    stage.publish("user:42", "before", json!(1)).await;
    for client in [&polling, &relayed] {
        client.next_event("before").await;
    }
    stage.nats.stop().await;
    until_true("the edges are not ready", PATIENCE, async || {
        !first.readiness.is_ready() && !second.readiness.is_ready()
    })
    .await;
    stage.nats.restart().await;
    let link = stage.bus.link_state();
    until_true("the stage is connected", PATIENCE, async || {
        link.borrow().connected
    })
    .await;
    stage.publish("user:42", "after", json!(2)).await;
    for client in [&polling, &relayed] {
        client.next_event("after").await;
        client.assert_stayed_connected();
    }
}
