//! Questions to clients.

use carillon_bus::Bucket;
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::message::{Answer, Answers, Ask};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::Record;
use carillon_service::settings;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Plan, Stage};

impl Stage {
    /// Asks the edge of the first of some sessions, with an array of arguments.
    async fn ask(&self, sids: &[Sid], event: &str, args: Value, timeout_ms: u64) -> Vec<Answer> {
        let record = self.bus.table(Bucket::Sessions).get(sids[0].as_str()).await;
        let record: Record = serde_json::from_slice(&record.unwrap().unwrap().value).unwrap();
        let ask = Ask {
            namespace: Namespace::main(),
            room: Room::all(),
            event: event.to_owned(),
            payload: to_raw_value(&args).unwrap(),
            args: true,
            sids: sids.to_vec(),
            timeout_ms,
        };
        let subject = format!("{}.ask", self.bus.subjects().edge(record.owner));
        let body = serde_json::to_vec(&ask).unwrap().into();
        let reply = self.bus.request(&subject, &Headers::new(), body, PATIENCE).await;
        let Answers { answers } = serde_json::from_slice(&reply.unwrap().body).unwrap();
        answers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_its_arguments_and_the_callback_and_nothing_more() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("42")));
    let sid = client.connected().await.sid.parse().unwrap();
    client.answer("who", json!(["me"])).await;
    for args in [json!([]), json!(["text"]), json!([{}, "text"])] {
        let answers = stage.ask(&[sid], "who", args.clone(), 5000).await;
        assert_eq!(answers[0].data.as_ref().unwrap().get(), "\"me\"");
        assert_eq!(client.next_event("who").await.args, *args.as_array().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_still_coming_back_does_not_cost_the_others() {
    let mut plan = Plan::default();
    let namespace: settings::Namespace = serde_json::from_value(json!({
        "rooms": [{ "pattern": "{room}", "join": "nats" }],
        "on": [{ "event": "join", "do": [{ "join": "{data}" }] }],
        "authz_timeout": "10s",
    }))
    .unwrap();
    plan.namespaces.insert("/".to_owned(), namespace);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut asked = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
    stage.bus.flush().await;
    let client = |user| {
        stage
            .driver
            .sio(edge.url(), SioOptions::websocket(tokens::dev(user)))
    };
    let (returning, other) = (client("1"), client("2"));
    let sids: Vec<Sid> = [returning.connected().await.sid, other.connected().await.sid]
        .map(|sid| sid.parse().unwrap())
        .into();
    other.answer("who", json!(["me"])).await;
    let allow = async {
        let request = asked.next().await.unwrap();
        let reply = request.reply.unwrap();
        let yes = json!({ "allow": true }).to_string().into();
        stage.bus.publish(&reply, &Headers::new(), yes).await.unwrap();
    };
    tokio::join!(returning.emit_ack("join", json!(["room"])), allow);
    // It is asked again when the session comes back, and gets no answer.
    returning.cut();
    asked.next().await.unwrap();
    let answers = stage.ask(&sids, "who", json!([]), 500).await;
    let answered: Vec<Sid> = answers.iter().map(|answer| answer.sid).collect();
    assert_eq!(answered, [sids[1]]);
    assert!(answers[0].data.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_fit_into_a_message_do_not_cost_the_others() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (mut clients, mut sids): (Vec<_>, Vec<Sid>) = (Vec::new(), Vec::new());
    // Nine of ten fit into a message of 8 MiB.
    for size in [950_000; 8].into_iter().chain([990_000, 10]) {
        let options = SioOptions::websocket(tokens::dev("42"));
        let client = stage.driver.sio(edge.url(), options);
        sids.push(client.connected().await.sid.parse().unwrap());
        client.answer("vote", json!(["x".repeat(size)])).await;
        clients.push(client);
    }
    let answers = stage.ask(&sids, "vote", json!([]), 5000).await;
    let outcomes: Vec<(bool, Option<&str>)> = sids
        .iter()
        .filter_map(|sid| answers.iter().find(|answer| answer.sid == *sid))
        .map(|answer| (answer.data.is_some(), answer.error.as_deref()))
        .collect();
    let mut expected = [(true, None); 10];
    expected[8] = (false, Some("answer_too_large"));
    assert_eq!(outcomes, expected);
}
