//! Questions to clients.

use carillon_bus::Bucket;
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::message::{Answers, Ask};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::Record;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::stage::{PATIENCE, Stage};

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
    let record = stage.bus.table(Bucket::Sessions).get(sids[0].as_str()).await;
    let record: Record = serde_json::from_slice(&record.unwrap().unwrap().value).unwrap();
    let ask = Ask {
        namespace: Namespace::main(),
        room: Room::all(),
        event: "vote".to_owned(),
        payload: to_raw_value(&json!([])).unwrap(),
        args: true,
        sids: sids.clone(),
        timeout_ms: 5000,
    };
    let subject = format!("{}.ask", stage.bus.subjects().edge(record.owner));
    let body = serde_json::to_vec(&ask).unwrap().into();
    let reply = stage.bus.request(&subject, &Headers::new(), body, PATIENCE).await;
    let Answers { answers } = serde_json::from_slice(&reply.unwrap().body).unwrap();
    let outcomes: Vec<(bool, Option<&str>)> = sids
        .iter()
        .filter_map(|sid| answers.iter().find(|answer| answer.sid == *sid))
        .map(|answer| (answer.data.is_some(), answer.error.as_deref()))
        .collect();
    let mut expected = [(true, None); 10];
    expected[8] = (false, Some("answer_too_large"));
    assert_eq!(outcomes, expected);
}
