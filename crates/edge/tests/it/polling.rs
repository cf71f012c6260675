//! Long-polling, without sticky sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carillon_protocol::headers::Headers;
use carillon_protocol::session::State;
use carillon_testkit::clients::{FleetPlan, Kind, Member, SioOptions};
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::wait::until_true;
use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::mortal::Mortal;
use crate::moves::record;
use crate::stage::{Edge, PATIENCE, Plan, Stage};

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

/// Requests as they stand.
struct Raw {
    http: http::Client,
    base: String,
    sid: String,
}

impl Raw {
    async fn open(edge: &Edge) -> Self {
        let http = http::client();
        let base = format!("{}/socket.io/?EIO=4&transport=polling", edge.url());
        let response = http.get(&base).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=UTF-8");
        let body = response.text().await.unwrap();
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self { http, base, sid }
    }

    fn at(&self, base: &str, t: &str) -> String {
        format!("{base}&sid={}&t={t}", self.sid)
    }

    async fn poll(&self, t: &str) -> (u16, String) {
        self.poll_at(&self.base, t).await
    }

    async fn poll_at(&self, base: &str, t: &str) -> (u16, String) {
        let response = self.http.get(self.at(base, t)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Polls until an answer holds a packet that begins so.
    async fn poll_until(&self, t: &str, packet: &str) -> String {
        for n in 0.. {
            let (status, body) = self.poll(&format!("{t}{n}")).await;
            assert_eq!(status, 200, "{body}");
            if body.split('\u{1e}').any(|one| one.starts_with(packet)) {
                return body;
            }
        }
        unreachable!("polling goes on")
    }

    async fn post(&self, t: &str, body: &str) -> (u16, String) {
        self.post_at(&self.base, t, body).await
    }

    async fn post_at(&self, base: &str, t: &str, body: &str) -> (u16, String) {
        let response = self
            .http
            .post(self.at(base, t))
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
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
