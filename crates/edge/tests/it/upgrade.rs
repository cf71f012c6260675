//! From polling to a WebSocket, at the session's own edge and at another.

use std::time::Duration;

use carillon_testkit::clients::{SioClient, SioOptions};
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::tokens;
use serde_json::json;

use crate::mortal::Mortal;
use crate::moves::{ask_at, record};
use crate::stage::Stage;

/// Publishes numbers while the client connects and upgrades, and wants each of them once.
async fn nothing_is_lost_or_doubled(stage: &Stage, client: &SioClient, user: &str) {
    client.set_patience(Duration::from_secs(30));
    client.connected().await;
    let room = format!("user:{user}");
    let publish = async {
        for n in 0..300 {
            stage.publish(&room, "tick", json!(n)).await;
        }
    };
    let ((), upgraded) = tokio::join!(publish, client.upgraded());
    assert_eq!(upgraded, "websocket");
    for n in 300..400 {
        stage.publish(&room, "tick", json!(n)).await;
    }
    for n in 0..400 {
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    stage.publish(&room, "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_at_the_same_edge_loses_and_doubles_nothing() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    for n in 0..5 {
        let user = format!("u{n}");
        let client = stage
            .driver
            .sio(edge.url(), SioOptions::new().token(tokens::dev(&user)));
        nothing_is_lost_or_doubled(&stage, &client, &user).await;
        assert_eq!(client.state().await["transport"], "websocket");
        client.disconnect();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_at_another_edge_loses_and_doubles_nothing() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let proxy = RoundRobin::start([first.address, second.address]).await;
    proxy.plan(|seen| Action::To(usize::from(seen.upgrade)));
    for n in 0..5 {
        let user = format!("u{n}");
        let client = stage
            .driver
            .sio(proxy.url(), SioOptions::new().token(tokens::dev(&user)));
        nothing_is_lost_or_doubled(&stage, &client, &user).await;
        // Bytes go both ways, and the session's own heartbeat reaches the client.
        let bytes = json!({ "$binary": "AAEC/w==" });
        stage
            .publish(&format!("user:{user}"), "blob", json!({ "file": bytes }))
            .await;
        assert_eq!(client.next_event("blob").await.data(), &json!({ "file": bytes }));
        let mut heard = stage.bus.subscribe("rt.up.main.said", None).await.unwrap();
        stage.bus.flush().await;
        client.emit("said", json!([{ "file": bytes }]));
        let said: serde_json::Value = serde_json::from_slice(&heard.next().await.unwrap().body).unwrap();
        assert_eq!(said["data"], json!({ "file": bytes }));
        client.disconnect();
        assert_eq!(client.disconnected().await, "io client disconnect");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upgrade_leaves_polling_as_it_was() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let proxy = RoundRobin::start([edge.address]).await;
    proxy.plan(|seen| {
        if seen.upgrade {
            Action::Refuse(502)
        } else {
            Action::Forward
        }
    });
    let client = stage
        .driver
        .sio(proxy.url(), SioOptions::new().token(tokens::dev("42")));
    client.connected().await;
    for n in 0..50 {
        stage.publish("user:42", "tick", json!(n)).await;
    }
    for n in 0..50 {
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    assert_eq!(client.state().await["transport"], "polling");
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_socket_is_recovered_when_either_edge_is_killed() {
    let stage = Stage::start().await;
    let rest = stage.edge().await;
    for killed in [0, 1] {
        let pair = [Mortal::start(&stage).await, Mortal::start(&stage).await];
        let proxy = RoundRobin::start([pair[0].address, pair[1].address, rest.address]).await;
        proxy.plan(|seen| Action::To(usize::from(seen.upgrade)));
        let user = format!("k{killed}");
        let room = format!("user:{user}");
        let client = stage
            .driver
            .sio(proxy.url(), SioOptions::new().token(tokens::dev(&user)));
        client.set_patience(Duration::from_secs(20));
        let sid = client.connected().await.sid;
        // As long as the client owes an answer, its session stays where it is.
        let owner_id = record(&stage, &sid).await.owner;
        let asked = sid.parse().unwrap();
        let question = tokio::spawn(ask_at(
            stage.bus.clone(),
            owner_id,
            asked,
            "question".to_owned(),
            60_000,
        ));
        client.next_event("question").await;
        client.upgraded().await;
        stage.publish(&room, "tick", json!(0)).await;
        client.next_event("tick").await;
        assert_eq!(record(&stage, &sid).await.term, 1);
        proxy.plan(|_| Action::To(2));
        let [owner, front] = pair;
        if killed == 0 {
            owner.kill()
        } else {
            front.kill()
        }
        for n in 1..=5 {
            stage.publish(&room, "tick", json!(n)).await;
        }
        client.disconnected().await;
        let again = client.connected().await;
        assert_eq!((again.recovered, again.sid), (true, sid));
        for n in 1..=5 {
            assert_eq!(client.next_event("tick").await.data(), n);
        }
        client.disconnect();
        question.abort();
    }
}
