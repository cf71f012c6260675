//! Sessions that follow their client to the edge that has its WebSocket.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Bucket, Bus};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{Answers, Ask};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State};
use carillon_testkit::clients::{FleetPlan, Kind, Ledger, Member, SioClient, SioOptions, Status, WsOptions};
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::tokens;
use carillon_testkit::wait::{until, until_true};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::mortal::Mortal;
use crate::stage::{PATIENCE, Plan, Stage};

/// What the cluster knows of a session.
pub(crate) async fn record(stage: &Stage, sid: &str) -> Record {
    until("the session's record", PATIENCE, async || {
        let entry = stage.bus.table(Bucket::Sessions).get(sid).await.ok()??;
        serde_json::from_slice(&entry.value).ok()
    })
    .await
}

/// Waits until another edge owns the session than the one that opened it.
async fn moved(stage: &Stage, sid: &str) {
    until_true("the session has moved", PATIENCE, async || {
        record(stage, sid).await.term == 2
    })
    .await;
}

/// Asks a client a question, by its session's owner.
async fn ask(stage: &Stage, sid: &str, event: &str, timeout_ms: u64) -> Answers {
    let owner = record(stage, sid).await.owner;
    let sid = sid.parse().unwrap();
    ask_at(stage.bus.clone(), owner, sid, event.to_owned(), timeout_ms).await
}

/// Asks a client a question at an edge.
pub(crate) async fn ask_at(bus: Bus, owner: EdgeId, sid: Sid, event: String, timeout_ms: u64) -> Answers {
    let ask = Ask {
        namespace: Namespace::main(),
        room: Room::all(),
        event,
        payload: RawValue::from_string("1".to_owned()).unwrap(),
        args: false,
        sids: vec![sid],
        timeout_ms,
    };
    let body = serde_json::to_vec(&ask).unwrap().into();
    let subject = format!("rt.edge.{owner}.ask");
    let patience = Duration::from_millis(timeout_ms) + PATIENCE;
    let answer = bus.request(&subject, &Headers::new(), body, patience).await;
    serde_json::from_slice(&answer.unwrap().body).unwrap()
}

/// An owner and an edge that gets every upgrade.
async fn pair(stage: &Stage) -> (Mortal, RoundRobin) {
    let owner = Mortal::start(stage).await;
    let front = stage.edge().await;
    let proxy = RoundRobin::start([owner.address, front.address]).await;
    proxy.plan(|seen| Action::To(usize::from(seen.upgrade)));
    (owner, proxy)
}

fn client(stage: &Stage, proxy: &RoundRobin, user: &str) -> SioClient {
    let client = stage
        .driver
        .sio(proxy.url(), SioOptions::new().token(tokens::dev(user)));
    client.set_patience(Duration::from_secs(30));
    client
}

/// Takes numbered events of several streams until each has come to its end.
async fn every_number_once(client: &SioClient, streams: &[(&str, u64)]) {
    for (event, count) in streams {
        for n in 0..*count {
            assert_eq!(client.next_event(event).await.data(), n, "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_follows_its_client_and_its_former_owner_is_not_missed() {
    let mut plan = Plan::default();
    plan.namespaces.get_mut("/").unwrap().lifecycle = true;
    let stage = Stage::with(plan).await;
    let (owner, proxy) = pair(&stage).await;
    let mut told = stage.bus.subscribe("rt.up.main.>", None).await.unwrap();
    stage.bus.flush().await;
    let heard: Arc<parking_lot::Mutex<Vec<(String, Value)>>> = Arc::default();
    let (bus, list) = (stage.bus.clone(), Arc::clone(&heard));
    tokio::spawn(async move {
        while let Some(message) = told.next().await {
            let body: Value = serde_json::from_slice(&message.body).unwrap();
            let event = body["event"].as_str().unwrap().to_owned();
            if let Some(reply) = message.reply.filter(|_| event == "question") {
                let answer = body["data"].to_string().into();
                bus.publish(&reply, &Headers::new(), answer).await.unwrap();
            }
            list.lock().push((event, body));
        }
    });
    let client = client(&stage, &proxy, "42");
    client.answer("ask", json!(["here"])).await;
    let sid = client.connected().await.sid;
    let own = format!("session:{sid}");
    stage.publish(&own, "own", json!(0)).await;

    // Events of three rooms and signals, questions of both sides and events of the client, all through the move.
    let (mut users, mut owns, mut alls, mut signals) = (0, 1, 0, 0);
    let publish = async {
        while users < 50 || record(&stage, &sid).await.term == 1 {
            for _ in 0..10 {
                stage.publish("user:42", "user", json!(users)).await;
                stage.signal("user:42", "signal", json!(signals)).await;
                (users, signals) = (users + 1, signals + 1);
            }
            stage.publish("all", "all", json!(alls)).await;
            stage.publish(&own, "own", json!(owns)).await;
            (owns, alls) = (owns + 1, alls + 1);
        }
    };
    let emit = async {
        for n in 0..60 {
            client.emit("said", json!([n]));
            if n % 4 == 0 {
                assert_eq!(client.emit_ack("question", json!([n])).await, [json!(n)]);
            }
            if n % 8 == 0 {
                let answers = ask(&stage, &sid, "ask", 5000).await;
                assert_eq!(answers.answers[0].data.as_ref().unwrap().get(), "\"here\"");
            }
            if n == 40 {
                client.upgraded().await;
                moved(&stage, &sid).await;
            }
        }
    };
    tokio::join!(publish, emit);
    assert_eq!(client.state().await["sid"], *sid);

    owner.kill();
    for _ in 0..50 {
        stage.publish("user:42", "user", json!(users)).await;
        users += 1;
    }
    stage.publish(&own, "own", json!(owns)).await;
    let streams = [
        ("user", users),
        ("own", owns + 1),
        ("all", alls),
        ("signal", signals),
    ];
    every_number_once(&client, &streams).await;
    // Longer than it takes to notice that an edge is gone.
    let began = std::time::Instant::now();
    until_true("time has passed", PATIENCE, async || {
        assert_eq!(client.emit_ack("question", json!(["on"])).await, [json!("on")]);
        began.elapsed() > Duration::from_secs(3)
    })
    .await;
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    for event in ["user", "own", "all", "signal"] {
        client.assert_no_event(event);
    }
    client.assert_stayed_connected();

    // The session can still be recovered, by the ticket and the offset that the client has.
    proxy.plan(|_| Action::To(1));
    client.cut();
    let again = client.connected().await;
    assert_eq!((again.recovered, &again.sid), (true, &sid));
    stage.publish("user:42", "again", json!(0)).await;
    client.next_event("again").await;
    for event in ["user", "own", "all"] {
        client.assert_no_event(event);
    }

    let terms = |event: &str| -> Vec<Value> {
        let heard = heard.lock();
        let told = heard.iter().filter(|(known, _)| known == event);
        told.map(|(_, body)| body["term"].clone()).collect()
    };
    until_true("the reconnect is told", PATIENCE, async || {
        terms("$connect").len() == 2 && terms("$disconnect").len() == 1
    })
    .await;
    // A backend hears of a connect, and nothing of the move.
    assert_eq!(terms("$connect"), [1, 3]);
    assert_eq!(terms("$disconnect"), [2]);
    let heard = heard.lock();
    let said = heard.iter().filter(|(event, _)| event == "said");
    let said: Vec<&Value> = said.map(|(_, body)| &body["data"]).collect();
    assert_eq!(
        said,
        (0..60)
            .map(Value::from)
            .collect::<Vec<_>>()
            .iter()
            .collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_move_while_something_is_under_way() {
    let stage = Stage::start().await;
    let (_owner, proxy) = pair(&stage).await;
    let mut asked = stage.bus.subscribe("rt.up.main.question", None).await.unwrap();
    stage.bus.flush().await;
    let client = client(&stage, &proxy, "42");
    let sid = client.connected().await.sid;
    let answered = async {
        assert_eq!(client.emit_ack("question", json!([1])).await, [json!("answer")]);
    };
    let answer = async {
        let reply = asked.next().await.unwrap().reply.unwrap();
        client.upgraded().await;
        for n in 0..20 {
            stage.publish("user:42", "tick", json!(n)).await;
        }
        for n in 0..20 {
            assert_eq!(client.next_event("tick").await.data(), n);
        }
        let began = std::time::Instant::now();
        until_true("the owner was asked more than once", PATIENCE, async || {
            assert_eq!(record(&stage, &sid).await.term, 1);
            began.elapsed() > Duration::from_secs(2)
        })
        .await;
        let text = json!("answer").to_string().into();
        stage.bus.publish(&reply, &Headers::new(), text).await.unwrap();
    };
    tokio::join!(answered, answer);
    moved(&stage, &sid).await;
    stage.publish("user:42", "end", json!(1)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_the_move_are_refused_and_harm_nothing() {
    let stage = Stage::start().await;
    let (owner, proxy) = pair(&stage).await;
    let client = client(&stage, &proxy, "42");
    let sid = client.connected().await.sid;
    client.upgraded().await;
    moved(&stage, &sid).await;
    let engine = client.state().await["engineId"].as_str().unwrap().to_owned();
    let http = carillon_testkit::http::client();
    let refused = async |edge: usize, post: bool| {
        proxy.plan(move |_| Action::To(edge));
        let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={engine}", proxy.url());
        let request = if post {
            http.post(url).body("42[\"late\"]")
        } else {
            http.get(url)
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert_eq!(text, r#"{"code":1,"message":"Session ID unknown"}"#);
        let url = format!("/socket.io/?EIO=4&transport=websocket&sid={engine}");
        let socket = stage.driver.ws(proxy.ws_url(&url), WsOptions::new());
        tokio::select! {
            rejected = socket.rejected() => assert_eq!(rejected.status, 400),
            () = async {
                socket.opened().await;
                socket.send_text("2probe");
                assert_ne!(socket.closed().await.code, 1000);
            } => {}
        }
    };
    for edge in [0, 1] {
        refused(edge, false).await;
        refused(edge, true).await;
    }
    owner.kill();
    refused(1, false).await;
    stage.publish("user:42", "tick", json!(1)).await;
    client.next_event("tick").await;
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_no_place_at_the_other_edge_is_relayed() {
    let mut stage = Stage::start().await;
    let owner = stage.edge().await;
    stage.plan.edge.max_per_user = 1;
    let front = stage.edge().await;
    let only = stage.sio(&front, "42").await;
    let proxy = RoundRobin::start([owner.address, front.address]).await;
    proxy.plan(|seen| Action::To(usize::from(seen.upgrade)));
    let client = client(&stage, &proxy, "42");
    let sid = client.connected().await.sid;
    client.upgraded().await;
    let began = std::time::Instant::now();
    let mut n = 0;
    until_true("some attempts have failed", PATIENCE, async || {
        stage.publish("user:42", "tick", json!(n)).await;
        assert_eq!(client.next_event("tick").await.data(), n);
        n += 1;
        began.elapsed() > Duration::from_secs(1)
    })
    .await;
    assert_eq!(record(&stage, &sid).await.term, 1);
    assert_eq!(record(&stage, &sid).await.state, State::Live);
    client.assert_stayed_connected();
    only.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_in_the_midst_of_moves_costs_nothing() {
    const MEMBERS: usize = 20;
    let stage = Stage::start().await;
    // From before the first move to after the last one.
    for wait in [0, 150, 300, 600] {
        let (owner, proxy) = pair(&stage).await;
        let members = (0..MEMBERS).map(|n| Member::new(format!("m{n}"), tokens::dev(&format!("m{n}"))));
        let room = format!("user:m{}", MEMBERS - 1);
        let fleet = stage.driver.fleet(FleetPlan {
            kind: Kind::Sio,
            urls: vec![proxy.url()],
            options: SioOptions::new().transports(&["polling", "websocket"]),
            members: members.collect(),
        });
        let mut published = 0;
        fleet.all_connected(PATIENCE).await;
        let publish = async {
            loop {
                for room in ["all", &room] {
                    stage
                        .publish(room, "tick", json!({ "s": room, "n": published }))
                        .await;
                }
                published += 1;
            }
        };
        let killed = async {
            let upgraded = |status: &Status| status.upgrades == status.members;
            fleet.wait("has upgraded", PATIENCE, upgraded).await;
            let began = std::time::Instant::now();
            until_true("it is time", PATIENCE, async || {
                began.elapsed() >= Duration::from_millis(wait)
            })
            .await;
            proxy.plan(|_| Action::To(1));
            owner.kill();
            // Those that had not moved notice it, and come back.
            let after = std::time::Instant::now();
            until_true("everyone is there for a while", PATIENCE, async || {
                let status = fleet.status().await;
                status.connected == MEMBERS && after.elapsed() > Duration::from_secs(4)
            })
            .await;
        };
        tokio::select! {
            () = publish => {}
            () = killed => {}
        }
        // The last publish may have been broken off.
        for room in ["all", &room] {
            for n in published..published + 2 {
                stage
                    .publish(room, "end", json!({ "s": format!("{room}-end"), "n": n }))
                    .await;
            }
        }
        let last = i64::from(published) + 1;
        until_true("everyone has everything", PATIENCE, async || {
            let ends = |one: &Ledger| one.streams.get("all-end").map(|stream| stream.last);
            fleet.ledger().await.iter().all(|one| ends(one) == Some(last))
        })
        .await;
        let ledger = fleet.ledger().await;
        let mut lasts: Vec<i64> = Vec::new();
        for one in &ledger {
            for stream in one.streams.values() {
                let is_whole = stream.is_exactly(stream.first, stream.last);
                assert!(is_whole, "{wait} {}: {stream:?}", one.name);
            }
            assert_eq!(one.unrecovered, 0, "{wait} {}", one.name);
            lasts.push(one.streams["all"].last);
        }
        lasts.dedup();
        assert_eq!(lasts.len(), 1, "{wait}: {lasts:?}");
        fleet.close_all().await;
    }
}
