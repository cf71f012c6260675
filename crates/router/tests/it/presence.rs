use carillon_protocol::session::State;
use carillon_testkit::nats;
use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_there_as_soon_as_its_record_is() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    for number in 1..=50 {
        let sid = edge.connect(Some("42"), &["chat"]).await;
        let presence = cluster.presence("chat").await;
        assert_eq!(presence["count"], number);
        let members = presence["members"].as_array().unwrap();
        assert!(
            members.contains(&json!({ "userId": "42", "sid": sid })),
            "{presence}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_counts_live_connections_one_by_one() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let first = edge.connect(Some("42"), &["chat"]).await;
    let second = edge.connect(Some("42"), &["chat"]).await;
    let anonymous = edge.connect(None, &["chat"]).await;
    assert_eq!(cluster.count("chat").await, 3);
    assert_eq!(cluster.count("user:42").await, 2);
    assert_eq!(cluster.count("all").await, 3);
    let own = cluster.presence(&format!("session:{anonymous}")).await;
    assert_eq!(
        own,
        json!({ "count": 1, "members": [{ "userId": null, "sid": anonymous }] })
    );

    edge.away(first).await;
    assert_eq!(cluster.count("user:42").await, 1);
    edge.change(second, |record| record.state = State::Ended).await;
    assert_eq!(
        cluster.presence("user:42").await,
        json!({ "count": 0, "members": [] })
    );
    assert_eq!(
        cluster.presence("nowhere").await,
        json!({ "count": 0, "members": [] })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_parts() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    let mut sids = Vec::new();
    for _ in 0..7 {
        sids.push(json!(edge.connect(Some("42"), &["chat"]).await));
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let body = match &cursor {
            None => json!({ "limit": 3 }),
            Some(cursor) => json!({ "limit": 3, "cursor": cursor }),
        };
        let part = cluster.ask("rt.presence.main.chat", body).await;
        assert_eq!(part["count"], 7);
        seen.extend(
            part["members"]
                .as_array()
                .unwrap()
                .iter()
                .map(|member| member["sid"].clone()),
        );
        match part.get("next") {
            Some(next) => cursor = Some(next.clone()),
            None => break,
        }
    }
    sids.sort_by_key(|sid| sid.to_string());
    assert_eq!(seen, sids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_has_an_error_and_the_next_one_an_answer() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    for (subject, body, code) in [
        ("rt.presence.main", json!({}), "bad_subject"),
        ("rt.presence.main.a.b", json!({}), "bad_subject"),
        ("rt.presence.main.%zz", json!({}), "bad_subject"),
        ("rt.presence.nowhere.chat", json!({}), "unknown_namespace"),
        ("rt.presence.main.chat", json!({ "limit": 0 }), "bad_limit"),
        ("rt.presence.main.chat", json!({ "limit": 1001 }), "bad_limit"),
        ("rt.presence.main.chat", json!({ "limit": "x" }), "bad_field"),
        ("rt.presence.main.chat", json!({ "cursor": "x" }), "bad_field"),
        (
            "rt.router.union",
            json!({ "namespace": "/", "rooms": "x" }),
            "bad_field",
        ),
        (
            "rt.router.union",
            json!({ "namespace": "/nowhere", "rooms": [] }),
            "unknown_namespace",
        ),
    ] {
        let answer = cluster.ask(subject, body).await;
        assert_eq!(answer["error"]["code"], code, "{subject} {answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    assert_eq!(cluster.count("chat").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_union_counts_nobody_twice() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["a", "b"]).await;
    edge.connect(Some("42"), &["b"]).await;
    edge.connect(Some("43"), &["a"]).await;
    edge.connect(None, &["c"]).await;
    let rooms = json!({ "namespace": "/", "rooms": ["a", "b", "user:43", "c"] });
    assert_eq!(
        cluster.ask("rt.router.union", rooms).await,
        json!({ "users": 2, "connections": 4 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_requests_leave_the_router_to_others() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let edge = cluster.edge().await;
    edge.connect(Some("42"), &["chat"]).await;
    for subject in [
        "rt.presence.main.chat",
        "rt.ctl.main.disconnect",
        "rt.ask.main.chat",
    ] {
        for headers in nats::STRANGE_HEADERS {
            cluster.nats.publish_raw(subject.as_bytes(), headers, b"{}").await;
        }
    }
    for room in [&b"\xff"[..], "a\u{a0}b".as_bytes(), b"a\x0cb"] {
        let subject = [b"rt.presence.main.", room].concat();
        cluster
            .nats
            .publish_raw(&subject, nats::STRANGE_HEADERS[0], b"{}")
            .await;
    }
    assert_eq!(cluster.count("chat").await, 1);
}
