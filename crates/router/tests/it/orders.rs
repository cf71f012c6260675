use carillon_protocol::names::Room;
use carillon_protocol::session::State;
use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_every_live_connection_of_a_user() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (one, two) = (cluster.edge().await, cluster.edge().await);
    let first = one.connect(Some("42"), &[]).await;
    let second = two.connect(Some("42"), &[]).await;
    let other = two.connect(Some("43"), &[]).await;

    let joined = cluster
        .ask("rt.ctl.main.join", json!({ "user": "42", "room": "chat" }))
        .await;
    assert_eq!(joined, json!({ "connections": 2 }));
    assert_eq!(cluster.count("chat").await, 2);
    let order = one.orders.lock()[0].clone();
    assert_eq!(
        order,
        json!({ "order": "join", "sid": first, "namespace": "/", "room": "chat" })
    );

    let left = cluster
        .ask("rt.ctl.main.leave", json!({ "sid": second, "room": "chat" }))
        .await;
    assert_eq!(left, json!({ "connections": 1 }));
    assert_eq!(cluster.count("chat").await, 1);

    let body = json!({ "user": 42, "reason": "enough" });
    assert_eq!(
        cluster.ask("rt.ctl.main.disconnect", body).await,
        json!({ "connections": 2 })
    );
    assert_eq!(one.orders.lock().last().unwrap()["reason"], "enough");
    assert_eq!(cluster.state(first).await, Some(State::Ended));
    assert_eq!(cluster.state(other).await, Some(State::Live));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_no_error() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &[]).await;
    for body in [
        json!({ "user": "nobody", "room": "chat" }),
        json!({ "sid": "AAAAAAAAAAAAAAAAAAAA", "room": "chat" }),
        json!({ "sid": "no sid", "room": "chat" }),
    ] {
        for order in ["join", "leave", "disconnect"] {
            let answer = cluster.ask(&format!("rt.ctl.main.{order}"), body.clone()).await;
            assert_eq!(answer, json!({ "connections": 0 }), "{order} {body}");
        }
    }
    let elsewhere = cluster
        .ask("rt.ctl.brief.disconnect", json!({ "user": "42" }))
        .await;
    assert_eq!(elsewhere, json!({ "connections": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_in_a_room_does_not_leave_it() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["chat"]).await;
    edge.connect(Some("42"), &[]).await;
    let order = json!({ "user": "42", "room": "chat" });
    assert_eq!(
        cluster.ask("rt.ctl.main.leave", order.clone()).await,
        json!({ "connections": 1 })
    );
    assert_eq!(
        cluster.ask("rt.ctl.main.leave", order).await,
        json!({ "connections": 0 })
    );
    assert_eq!(edge.orders.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_away_finds_the_order_done() {
    let mut settings = crate::cluster::settings();
    settings.session.recovery = std::time::Duration::from_secs(300);
    let cluster = Cluster::start_with(settings).await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &["old"]).await;
    edge.away(sid).await;
    let order = |order: &str, room: &str| {
        (
            format!("rt.ctl.main.{order}"),
            json!({ "user": "42", "room": room }),
        )
    };
    for (subject, body) in [
        order("join", "chat"),
        order("leave", "old"),
        order("leave", "user:42"),
    ] {
        assert_eq!(cluster.ask(&subject, body).await, json!({ "connections": 0 }));
    }
    let record = cluster.record(sid).await.unwrap();
    let rooms: Vec<String> = record.heard(sid).map(|room| room.to_string()).collect();
    assert_eq!(rooms, ["all", "chat", &format!("session:{sid}")]);
    assert_eq!(
        (record.state, record.left),
        (State::Away, vec![Room::of_user("42")])
    );
    assert!(edge.orders.lock().is_empty());

    cluster.ask("rt.ctl.main.disconnect", json!({ "sid": sid })).await;
    assert_eq!(cluster.state(sid).await, Some(State::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_an_edge_that_is_not_there_take_orders_too() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let mut edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &[]).await;
    edge.kill();
    let answer = cluster
        .ask("rt.ctl.main.disconnect", json!({ "user": "42" }))
        .await;
    assert_eq!(answer, json!({ "connections": 0 }));
    assert_eq!(cluster.state(sid).await, Some(State::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_order_has_an_error() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let sid = cluster.edge().await.connect(Some("42"), &[]).await;
    for (subject, body, code) in [
        ("rt.ctl.main.join", json!({ "user": "42" }), "no_room"),
        ("rt.ctl.main.join", json!({ "room": "chat" }), "no_target"),
        (
            "rt.ctl.main.join",
            json!({ "user": "42", "sid": "x", "room": "chat" }),
            "bad_target",
        ),
        (
            "rt.ctl.main.join",
            json!({ "user": "", "room": "chat" }),
            "bad_field",
        ),
        (
            "rt.ctl.main.join",
            json!({ "user": 1.5, "room": "chat" }),
            "bad_field",
        ),
        (
            "rt.ctl.main.join",
            json!({ "user": "42", "room": "" }),
            "bad_field",
        ),
        (
            "rt.ctl.main.leave",
            json!({ "sid": sid, "room": format!("session:{sid}") }),
            "reserved_room",
        ),
        (
            "rt.ctl.main.leave",
            json!({ "user": "42", "room": format!("session:{sid}") }),
            "reserved_room",
        ),
        (
            "rt.ctl.main.disconnect",
            json!({ "user": "42", "reason": "x".repeat(257) }),
            "bad_reason",
        ),
        ("rt.ctl.main.disconnect", json!([]), "bad_field"),
        ("rt.ctl.main.fly", json!({ "user": "42" }), "unknown_order"),
        (
            "rt.ctl.nowhere.disconnect",
            json!({ "user": "42" }),
            "unknown_namespace",
        ),
        ("rt.ctl.main", json!({ "user": "42" }), "bad_subject"),
        ("rt.ctl.main.revoke", json!({ "user": "42" }), "bad_ttl"),
        ("rt.ctl.main.revoke", json!({ "ttl": 5 }), "no_target"),
    ] {
        let answer = cluster.ask(subject, body).await;
        assert_eq!(answer["error"]["code"], code, "{subject} {answer}");
    }
    assert_eq!(cluster.state(sid).await, Some(State::Live));
}
