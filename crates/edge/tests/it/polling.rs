//! Long-polling, without sticky sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carillon_protocol::headers::Headers;
use carillon_testkit::clients::{FleetPlan, Kind, Member, SioOptions};
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::wait::until_true;
use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::raw_polling::Raw;
use crate::stage::{PATIENCE, Plan, Stage};

/// Clients of each kind that have every request at the next edge.
const MEMBERS: usize = 40;

/// Answers every event of this name as a backend does.
async fn serve_backend(stage: &Stage, event: &str, answer: Value) {
    let mut asked = stage
        .bus
        .subscribe(&format!("rt.up.main.{event}"), None)
        .await
        .unwrap();
    stage.bus.flush().await;
    let bus = stage.bus.clone();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                bus.publish(&reply, &Headers::new(), answer.to_string().into())
                    .await
                    .unwrap();
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_polls_has_events_acknowledgements_and_bytes() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let bytes = json!({ "$binary": "AAEC/w==" });
    serve_backend(&stage, "question", json!({ "echo": bytes })).await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::polling(tokens::dev("42")));
    let connected = client.connected().await;
    assert_eq!(connected.transport, "polling");
    for n in 0..100 {
        stage.publish("user:42", "tick", json!({ "n": n })).await;
    }
    for n in 0..100 {
        assert_eq!(client.next_event("tick").await.data()["n"], n);
    }
    stage
        .publish("user:42", "blob", json!({ "one": bytes, "two": [bytes] }))
        .await;
    assert_eq!(
        client.next_event("blob").await.data(),
        &json!({ "one": bytes, "two": [bytes] })
    );
    let mut heard = stage.bus.subscribe("rt.up.main.said", None).await.unwrap();
    stage.bus.flush().await;
    client.emit("said", json!([{ "file": bytes }]));
    let said: Value = serde_json::from_slice(&heard.next().await.unwrap().body).unwrap();
    assert_eq!(said["data"], json!({ "file": bytes }));
    assert_eq!(
        client.emit_ack("question", json!([1])).await,
        [json!({ "echo": bytes })]
    );
    client.disconnect();
    assert_eq!(client.disconnected().await, "io client disconnect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_is_asked_whether_it_is_there() {
    let mut plan = Plan::default();
    plan.edge.ping_interval = Duration::from_millis(300);
    plan.edge.ping_timeout = Duration::from_millis(600);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::polling(tokens::dev("42")));
    client.connected().await;
    // A raw client that never answers a ping is gone after a while, and its session unknown.
    let raw = Raw::open(&edge).await;
    raw.post("a", &format!("40{}", json!({ "token": tokens::dev("43") })))
        .await;
    raw.poll_until("b", "40").await;
    let mut n = 0;
    until_true("the silent client is gone", PATIENCE, async || {
        n += 1;
        raw.poll(&format!("c{n}")).await.0 == 400
    })
    .await;
    assert_eq!(
        raw.poll("d").await,
        (400, r#"{"code":1,"message":"Session ID unknown"}"#.to_owned())
    );
    stage.publish("user:42", "still", json!(1)).await;
    client.next_event("still").await;
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_poll_has_the_same_bytes_and_the_same_post_counts_once_at_any_edge() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let raw = Raw::open(&first).await;
    let elsewhere = format!("{}/socket.io/?EIO=4&transport=polling", second.url());
    let connect = format!("40{}", json!({ "token": tokens::dev("42") }));
    assert_eq!(
        raw.post_at(&elsewhere, "p1", &connect).await,
        (200, "ok".to_owned())
    );
    assert_eq!(raw.post("p1", &connect).await, (200, "ok".to_owned()));
    let (status, answer) = raw.poll_at(&elsewhere, "g1").await;
    assert_eq!(status, 200);
    assert!(answer.starts_with("40{"), "{answer}");
    assert_eq!(raw.poll_at(&elsewhere, "g1").await, (200, answer.clone()));
    assert_eq!(raw.poll("g1").await, (200, answer));
    // Two requests of the same poll wait together.
    let (here, there) = tokio::join!(raw.poll("g2"), async {
        let (answer, _) = tokio::join!(raw.poll_at(&elsewhere, "g2"), async {
            stage.publish("user:42", "one", json!(1)).await;
        });
        answer
    });
    assert_eq!(here, there);
    assert!(here.1.starts_with(r#"42["one",1,"#), "{}", here.1);
    // Of two different polls at once neither is served, and the session is over.
    let (older, newer) = tokio::join!(raw.poll("g3"), async {
        until_true("the second poll is refused", PATIENCE, async || {
            let newer = tokio::time::timeout(Duration::from_millis(200), raw.poll_at(&elsewhere, "g4")).await;
            newer.is_ok_and(|(status, _)| status == 400)
        })
        .await;
    });
    let ((), ended) = (newer, older);
    assert!(ended == (200, "1".to_owned()) || ended.0 == 400, "{ended:?}");
    assert_eq!(
        raw.poll("g5").await.1,
        r#"{"code":1,"message":"Session ID unknown"}"#
    );
    assert_eq!(
        raw.post("p9", "3").await.1,
        r#"{"code":1,"message":"Session ID unknown"}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_have_the_protocols_codes_and_can_be_read_by_pages() {
    let mut plan = Plan::default();
    plan.edge.cors_origin = vec!["https://app.example".to_owned()];
    plan.edge.max_payload = 1000;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let raw = Raw::open(&edge).await;
    let path = format!("{}/socket.io/", edge.url());
    let stranger = "A".repeat(24);
    for (query, code) in [
        ("EIO=4&transport=carrier-pigeon".to_owned(), 0),
        ("EIO=4&transport=polling&sid=nonsense".to_owned(), 1),
        (format!("EIO=4&transport=polling&sid={stranger}"), 1),
        ("EIO=3&transport=polling".to_owned(), 5),
        ("EIO=4&transport=polling&j=0".to_owned(), 3),
    ] {
        let url = format!("{path}?{query}");
        let response = raw
            .http
            .get(url)
            .header("Origin", "https://app.example")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 400, "{query}");
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "https://app.example"
        );
        assert_eq!(response.json::<Value>().await.unwrap()["code"], code, "{query}");
    }
    let response = raw.http.post(&raw.base).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["code"], 2);
    let response = raw
        .http
        .get(&raw.base)
        .header("Origin", "https://evil.example")
        .send()
        .await
        .unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert_eq!(raw.post("a", &"4".repeat(1001)).await.0, 413);
    // The session is still there, until a payload has no meaning.
    assert_eq!(raw.post("b", "3").await, (200, "ok".to_owned()));
    assert_eq!(
        raw.post("c", "x").await.1,
        r#"{"code":3,"message":"Bad request"}"#
    );
    until_true("the session is gone", PATIENCE, async || {
        raw.post("d", "3").await.1.contains("\"code\":1")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_at_another_edge_loses_and_repeats_nothing() {
    let stage = Stage::start().await;
    let edges = [stage.edge().await, stage.edge().await, stage.edge().await];
    serve_backend(&stage, "question", json!("answer")).await;
    let proxy = RoundRobin::start(edges.iter().map(|edge| edge.address)).await;
    let fleet = |transports: &[&str], name: &str| {
        let members =
            (0..MEMBERS).map(|n| Member::new(format!("{name}{n}"), tokens::dev(&format!("{name}{n}"))));
        stage.driver.fleet(FleetPlan {
            kind: Kind::Sio,
            urls: vec![proxy.url()],
            options: SioOptions::new().transports(transports),
            members: members.collect(),
        })
    };
    let polling = fleet(&["polling"], "p");
    let changing = fleet(&["polling", "websocket"], "w");
    let limit = Duration::from_secs(60);
    let publish = async {
        // The first numbers fall into the connects and upgrades of others.
        for n in 0..150 {
            stage.publish("all", "tick", json!({ "s": "all", "n": n })).await;
        }
    };
    tokio::join!(polling.all_connected(limit), changing.all_connected(limit));
    publish.await;
    let all_upgraded = |status: &carillon_testkit::clients::Status| status.upgrades == status.members;
    changing.wait("has upgraded", limit, all_upgraded).await;
    polling
        .emit_all("question", json!([1]), Duration::from_secs(20))
        .await;
    changing
        .emit_all("question", json!([1]), Duration::from_secs(20))
        .await;
    for n in 150..200 {
        stage.publish("all", "tick", json!({ "s": "all", "n": n })).await;
    }
    for fleet in [&polling, &changing] {
        until_true("everyone has everything", limit, async || {
            fleet
                .ledger()
                .await
                .iter()
                .all(|one| one.streams.get("all").is_some_and(|stream| stream.last == 199))
        })
        .await;
        for one in fleet.ledger().await {
            let stream = &one.streams["all"];
            assert!(stream.is_exactly(0, 199), "{}: {stream:?}", one.name);
            assert_eq!(one.connects, 1, "{}", one.name);
        }
        let status = fleet
            .wait("has all acknowledgements", limit, |status| {
                status.acks.answered == MEMBERS
            })
            .await;
        assert!(status.errors.is_empty(), "{status:?}");
    }
    assert!(proxy.served().iter().all(|served| *served > 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_poll_and_a_lost_answer_lose_nothing() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let proxy = RoundRobin::start([first.address, second.address]).await;
    let client = stage
        .driver
        .sio(proxy.url(), SioOptions::polling(tokens::dev("42")));
    client.set_patience(Duration::from_secs(30));
    let sid = client.connected().await.sid;
    stage.publish("user:42", "tick", json!(0)).await;
    client.next_event("tick").await;
    proxy.plan(|_| Action::Repeat);
    for n in 1..=20 {
        stage.publish("user:42", "tick", json!(n)).await;
    }
    for n in 1..=20 {
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    let mut heard = stage.bus.subscribe("rt.up.main.said", None).await.unwrap();
    stage.bus.flush().await;
    client.emit("said", json!([1]));
    client.emit("said", json!([2]));
    for n in 1..=2 {
        let said: Value = serde_json::from_slice(&heard.next().await.unwrap().body).unwrap();
        assert_eq!(said["data"], n);
    }
    client.assert_stayed_connected();
    // The answer to one poll with events in it gets lost; the client reconnects.
    let left = Arc::new(AtomicUsize::new(1));
    proxy.plan(move |seen| {
        let is_poll = seen.method == "GET" && seen.target.contains("sid=");
        let lose = is_poll
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        if lose {
            Action::LoseResponse
        } else {
            Action::Forward
        }
    });
    for n in 21..=40 {
        stage.publish("user:42", "tick", json!(n)).await;
    }
    client.disconnected().await;
    let again = client.connected().await;
    assert_eq!((again.recovered, again.sid), (true, sid));
    for n in 21..=40 {
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sid_is_the_key_to_its_session_and_to_nothing_else() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let raw = Raw::open(&first).await;
    let elsewhere = format!("{}/socket.io/?EIO=4&transport=polling", second.url());
    // Guessed: it names an edge that is there, or one that is not.
    let unknown = (400, r#"{"code":1,"message":"Session ID unknown"}"#.to_owned());
    let (edge, _) = raw.sid.split_at(10);
    for sid in [format!("{edge}{}", "A".repeat(14)), "A".repeat(24)] {
        let guessed = Raw {
            http: http::client(),
            base: raw.base.clone(),
            sid,
        };
        for base in [&raw.base, &elsewhere] {
            assert_eq!(guessed.poll_at(base, "g").await, unknown);
            assert_eq!(guessed.post_at(base, "p", "3").await, unknown);
        }
    }
    // Replayed with the token of somebody else: the request is the session's, and so is the user.
    raw.post("p1", &format!("40{}", json!({ "token": tokens::dev("42") })))
        .await;
    raw.poll_until("a", "40").await;
    let thief = format!("Bearer {}", tokens::dev("666"));
    let posted = raw
        .http
        .post(raw.at(&elsewhere, "p2"))
        .header("Authorization", &thief)
        .body("3")
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 200);
    let poll = raw
        .http
        .get(raw.at(&elsewhere, "b"))
        .header("Authorization", thief);
    let (polled, _) = tokio::join!(poll.send(), stage.publish("user:42", "mine", json!(1)));
    let heard = polled.unwrap().text().await.unwrap();
    assert!(heard.starts_with(r#"42["mine",1,"#), "{heard}");
    // After the session's end the sid is worth nothing.
    assert_eq!(raw.post("p3", "1").await, (200, "ok".to_owned()));
    for base in [&raw.base, &elsewhere] {
        until_true("the session is unknown", PATIENCE, async || {
            raw.post_at(base, "p4", "3").await == unknown
        })
        .await;
    }
}
