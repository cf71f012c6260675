//! What a client sends reaches the backend in its order, whether an acknowledgement is asked for or not.

use carillon_bus::Subscription;
use carillon_protocol::headers::Headers;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage};

/// Fewer than the events that a connection may send at once.
const EVENTS: u64 = 90;

/// Answers what is asked, and returns the numbers in the order in which they came.
async fn serve(stage: &Stage, said: &mut Subscription) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < EVENTS as usize {
        let message = tokio::time::timeout(PATIENCE, said.next())
            .await
            .unwrap()
            .unwrap();
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        numbers.push(body["data"].as_u64().unwrap());
        if let Some(reply) = message.reply {
            let answer = body["data"].to_string();
            stage
                .bus
                .publish(&reply, &Headers::new(), answer.into())
                .await
                .unwrap();
        }
    }
    numbers
}

async fn listen(stage: &Stage) -> Subscription {
    let said = stage.bus.subscribe("rt.up.main.said", None).await.unwrap();
    stage.bus.flush().await;
    said
}

/// Whether the client asks for an acknowledgement of its event: of two in a row, of none in a row, of every other.
fn asks(number: u64) -> bool {
    [true, true, false, true, false, false][number as usize % 6]
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_socket_io_client_reach_the_backend_in_their_order() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    for options in [SioOptions::websocket, SioOptions::polling] {
        let client = stage.driver.sio(edge.url(), options(tokens::dev("42")));
        client.connected().await;
        let mut said = listen(&stage).await;
        let emits = (0..EVENTS).map(async |number| {
            if asks(number) {
                let answer = client.emit_ack("said", json!([number])).await;
                assert_eq!(answer, [json!(number)]);
            } else {
                client.emit("said", json!([number]));
            }
        });
        let (numbers, _) = tokio::join!(serve(&stage, &mut said), futures_util::future::join_all(emits));
        assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_plain_client_reach_the_backend_in_their_order() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let mut said = listen(&stage).await;
    for number in 0..EVENTS {
        let mut emit = json!({ "type": "emit", "event": "said", "data": number });
        if asks(number) {
            emit["id"] = number.into();
        }
        client.send(&emit);
    }
    assert_eq!(serve(&stage, &mut said).await, (0..EVENTS).collect::<Vec<_>>());
    for number in (0..EVENTS).filter(|number| asks(*number)) {
        let is_answer = |message: &Value| message["id"] == number;
        assert_eq!(client.next_matching("an answer", is_answer).await["data"], number);
    }
}
