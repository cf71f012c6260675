use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::message::{Ask, Order, OrderKind};
use carillon_protocol::names::{Namespace, Room};
use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::tokens;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::moves::record;
use crate::stage::{PATIENCE, Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_recovered_at_another_edge_more_than_once() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    let sid = client.connected().await.sid;
    stage.publish("user:42", "tick", json!({ "n": 0 })).await;
    client.next_event("tick").await;
    let mut n = 1;
    for edge in [&second, &first, &first, &second] {
        client.set_url(&edge.url()).await;
        client.cut();
        for _ in 0..3 {
            stage.publish("user:42", "tick", json!({ "n": n })).await;
            n += 1;
        }
        let connected = client.connected().await;
        assert!(connected.recovered);
        assert_eq!(connected.sid, sid);
    }
    for expected in 1..n {
        assert_eq!(client.next_event("tick").await.data()["n"], expected);
    }
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_session_does_not_get_the_events_of_its_own_room_again() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    let room = format!("session:{}", client.connected().await.sid);
    for n in 0..3 {
        stage.publish(&room, "tick", json!(n)).await;
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    client.set_url(&second.url()).await;
    client.cut();
    assert!(client.connected().await.recovered);
    for n in 3..6 {
        stage.publish(&room, "tick", json!(n)).await;
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_session_is_recovered_too_and_another_user_recovers_nothing() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("42")));
    let sid = client.connected().await.sid;
    client.cut();
    let again = client.connected().await;
    assert_eq!((again.recovered, &again.sid), (true, &sid));
    client.set_auth(json!({ "token": tokens::dev("43") })).await;
    client.cut();
    let other = client.connected().await;
    assert!(!other.recovered);
    assert_ne!(other.sid, sid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_resumes_its_automatic_rooms() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let (client, _) = stage.ws(&first, "42").await;
    stage.publish("user:42", "tick", json!(0)).await;
    let offset = client.next_event("tick").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    for n in 1..=3 {
        stage.publish("user:42", "tick", json!(n)).await;
    }
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        second.address,
        tokens::dev("42")
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(resumed.next_of_type("welcome").await["recovered"], true);
    for n in 1..=3 {
        assert_eq!(resumed.next_event("tick").await["payload"], n);
    }
    let url = format!(
        "ws://{}/ws?token={}&since=nonsense",
        second.address,
        tokens::dev("42")
    );
    let lost = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(lost.next_of_type("welcome").await["recovered"], false);
    assert_eq!(lost.next_of_type("error").await["code"], "history_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_inside_a_list_skips_the_other_copies() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage
        .store("user:42", "both", json!(1), crate::stage::copy_of_list(0, 2))
        .await;
    stage
        .store("all", "both", json!(1), crate::stage::copy_of_list(1, 2))
        .await;
    let offset = client.next_event("both").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    stage.publish("all", "end", json!(2)).await;
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        edge.address,
        tokens::dev("42")
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    resumed.next_event("end").await;
    resumed.assert_no_message("second copy", |message| message["event"] == "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_drains_lets_its_clients_recover_elsewhere() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    client.connected().await;
    client.set_url(&second.url()).await;
    first.stop().await;
    stage.publish("user:42", "tick", json!(1)).await;
    assert!(client.connected().await.recovered);
    client.next_event("tick").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_no_more_takes_away_only_what_it_decides() {
    // One after the other they would take longer than a recovery may.
    const ASKED: usize = 20;
    let mut plan = Plan::default();
    let namespace = json!({
        "rooms": [{ "pattern": "asked:{n}", "join": "nats" }, { "pattern": "open", "join": "true" }],
        "on": [{ "event": "join", "do": [{ "join": "{data}" }] }],
    });
    let namespace = serde_json::from_value(namespace).unwrap();
    plan.namespaces.insert("/".to_owned(), namespace);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut asked = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
    stage.bus.flush().await;
    let bus = stage.bus.clone();
    let backend = tokio::spawn(async move {
        for _ in 0..ASKED {
            let reply = asked.next().await.unwrap().reply.unwrap();
            let answer = json!({ "allow": true }).to_string().into();
            bus.publish(&reply, &Headers::new(), answer).await.unwrap();
        }
        // From now on it hears and says nothing.
        asked
    });
    let client = stage.sio(&edge, "42").await;
    client.emit_ack("join", json!(["open"])).await;
    for n in 0..ASKED {
        client.emit_ack("join", json!([format!("asked:{n}")])).await;
    }
    client.cut();
    stage.publish("open", "missed", json!(1)).await;
    assert!(client.connected().await.recovered);
    client.next_event("missed").await;
    stage.publish("asked:0", "forbidden", json!(1)).await;
    stage.publish("open", "end", json!(1)).await;
    client.next_event("end").await;
    client.assert_no_event("forbidden");
    drop(backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_an_earlier_session_does_not_reach_behind_the_present_one() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    stage.publish("user:42", "first", json!(1)).await;
    client.next_event("first").await;
    // A stock client keeps its offset when it becomes somebody else.
    client.set_auth(json!({ "token": tokens::dev("43") })).await;
    stage.publish("all", "before", json!(2)).await;
    client.next_event("before").await;
    client.disconnect();
    stage.publish("user:43", "before", json!(3)).await;
    client.connect();
    assert!(!client.connected().await.recovered);
    client.cut();
    assert!(client.connected().await.recovered);
    stage.publish("all", "end", json!(4)).await;
    client.next_event("end").await;
    client.assert_no_event("before");
}

/// While a backend decides about a room, the client is not back yet: what it is asked and told comes behind its greeting.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_its_way_back_is_asked_and_disconnected_behind_its_greeting() {
    let mut plan = Plan::default();
    let namespace = json!({
        "authz_timeout": "20s",
        "rooms": [{ "pattern": "asked", "join": "nats" }],
        "on": [{ "event": "join", "do": [{ "join": "{data}" }] }],
    });
    let namespace = serde_json::from_value(namespace).unwrap();
    plan.namespaces.insert("/".to_owned(), namespace);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut backend = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
    stage.bus.flush().await;
    let allow = async |to: &str| {
        let yes = json!({ "allow": true }).to_string();
        stage.bus.publish(to, &Headers::new(), yes.into()).await.unwrap();
    };
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("42")));
    let sid: Sid = client.connected().await.sid.parse().unwrap();
    client.answer("question", json!(["answer"])).await;
    let joined = client.emit_ack("join", json!(["asked"]));
    let asked = async { allow(&backend.next().await.unwrap().reply.unwrap()).await };
    tokio::join!(joined, asked);

    let owner = record(&stage, sid.as_str()).await.owner;
    let to_edge = stage.bus.subjects().edge(owner);
    let ask = Ask {
        namespace: Namespace::main(),
        room: Room::of_session(sid),
        event: "question".to_owned(),
        payload: to_raw_value(&json!([])).unwrap(),
        args: true,
        sids: vec![sid],
        timeout_ms: 20_000,
    };
    let order = Order {
        order: OrderKind::Disconnect,
        sid,
        namespace: Namespace::main(),
        room: None,
        reason: None,
    };
    let ask = serde_json::to_vec(&ask).unwrap();
    let order = serde_json::to_vec(&order).unwrap();
    for (verb, body) in [("ask", ask), ("order", order)] {
        client.cut();
        assert_eq!(client.disconnected().await, "transport close");
        let decide = backend.next().await.unwrap().reply.unwrap();
        let subject = format!("{to_edge}.{verb}");
        let headers = Headers::new();
        let request = stage.bus.request(&subject, &headers, body.into(), PATIENCE);
        let back = async {
            stage.bus.flush().await;
            allow(&decide).await;
            assert!(client.connected().await.recovered);
        };
        let (reply, ()) = tokio::join!(request, back);
        let reply: Value = serde_json::from_slice(&reply.unwrap().body).unwrap();
        match verb {
            "ask" => assert_eq!(reply["answers"][0]["data"], "answer"),
            _ => assert_eq!(reply["done"], true),
        }
    }
    assert_eq!(client.disconnected().await, "io server disconnect");
}
