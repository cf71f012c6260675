//! A backend that decides who may connect.

use carillon_protocol::headers::Headers;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_asked_once_and_its_answer_decides() {
    let mut plan = Plan::default();
    plan.namespaces.get_mut("/").unwrap().connect.ask = true;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut requests = stage.bus.subscribe("rt.up.main.>", None).await.unwrap();
    stage.bus.flush().await;
    let connect = |user: &str| {
        let token = tokens::dev(user);
        let auth = json!({ "token": token, "device": "phone" });
        stage
            .driver
            .sio(edge.url(), SioOptions::websocket(token).with("auth", auth))
    };
    let mut answer = async |answer: Value| {
        let request = requests.next().await.unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        if let Some(reply) = request.reply {
            let answer = answer.to_string().into();
            stage.bus.publish(&reply, &Headers::new(), answer).await.unwrap();
        }
        body
    };

    let client = connect("42");
    let asked = answer(json!({
        "allow": true,
        "rooms": ["news", "user:43"],
        "emit": [{ "event": "disconnect", "data": 1 }, { "event": "hello", "data": null }],
    }))
    .await;
    assert_eq!(
        (&asked["event"], &asked["auth"], &asked["user"]["id"]),
        (&json!("$connect"), &json!({ "device": "phone" }), &json!("42"))
    );
    assert_eq!((&asked["term"], &asked["recovered"]), (&json!(1), &json!(false)));
    let sid = client.connected().await.sid;
    assert_eq!(asked["sid"], sid);
    // An event of a reserved name would make the client close its transport.
    let hello = client.next_any_event().await;
    assert_eq!((hello.name.as_str(), hello.args), ("hello", vec![Value::Null]));
    stage.publish("user:43", "note", json!(1)).await;
    stage.publish("news", "note", json!(2)).await;
    assert_eq!(client.next_event("note").await.args[0], 2);
    client.disconnect();
    let told = answer(Value::Null).await;
    assert_eq!(
        (&told["event"], &told["sid"]),
        (&json!("$disconnect"), &json!(sid)),
        "{told}"
    );

    let client = connect("43");
    answer(json!({ "allow": false, "code": "CLOSED", "message": "Come back later" })).await;
    let refused = client.refused().await;
    assert_eq!(
        (refused.message.as_str(), &refused.data["code"]),
        ("Come back later", &json!("CLOSED"))
    );
    let client = connect("44");
    answer(json!({ "allow": "yes" })).await;
    assert_eq!(client.refused().await.data["code"], "forbidden");
}
