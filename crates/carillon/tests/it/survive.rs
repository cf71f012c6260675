use std::time::Duration;

use carillon_testkit::clients::{Driver, SioOptions};
use carillon_testkit::nats::Server;
use carillon_testkit::{http, tokens, wait};
use serde_json::{Value, json};

use crate::dev::{Dev, Edge};
use crate::{LIMIT, carillon, run};

/// What the contract gives presence after a crash.
const PRESENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_killed_edge_is_noticed_and_the_others_go_on() {
    let nats = Server::start().await;
    let dev = Dev::over(&nats).await;
    let edge = Edge::over(&nats).await;

    let driver = Driver::start().await;
    let connect = |address| {
        driver.sio(
            format!("http://{address}"),
            SioOptions::websocket(tokens::dev("42")),
        )
    };
    let (stays, dies) = (connect(dev.addresses("edge")[0]), connect(edge.listen));
    let sid = stays.connected().await.sid;
    dies.connected().await;
    let who = async || -> Value {
        let (ok, text) = run(carillon(["who", "user:42", "--nats"]).arg(nats.url())).await;
        assert!(ok, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let user = async || -> Value {
        let url = format!("http://{}/v1/users/42", dev.addresses("router")[0]);
        http::client()
            .get(url)
            .bearer_auth("dev-key")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    wait::until("both connections", LIMIT, async || {
        (who().await["count"] == 2).then_some(())
    })
    .await;
    assert_eq!(user().await["connections"].as_array().unwrap().len(), 2);

    edge.process.kill9();
    let members = wait::until("the end of one connection", PRESENCE, async || {
        let answer = who().await;
        (answer["count"] == 1).then(|| answer["members"].clone())
    });
    assert_eq!(members.await, json!([{ "userId": "42", "sid": sid }]));
    assert_eq!(user().await["connections"].as_array().unwrap().len(), 1);

    assert!(
        run(carillon(["publish", "user:42", "after", "1", "--nats"]).arg(nats.url()))
            .await
            .0
    );
    stays.next_event("after").await;
    stays.assert_stayed_connected();
}

#[tokio::test]
async fn a_client_stays_connected_while_nats_is_started_again() {
    let mut nats = Server::start().await;
    let dev = Dev::over(&nats).await;
    let driver = Driver::start().await;
    let url = format!("http://{}", dev.addresses("edge")[0]);
    let client = driver.sio(url, SioOptions::websocket(tokens::dev("42")));
    client.connected().await;
    for round in 0..2 {
        nats.stop().await;
        nats.restart().await;
        let publish = async || {
            let event = carillon(["publish", "user:42", "n"]).arg(round.to_string());
            run(event.arg("--nats").arg(nats.url())).await.0.then_some(())
        };
        wait::until("a stored event", LIMIT, publish).await;
        client.set_patience(LIMIT);
        assert_eq!(client.next_event("n").await.data(), &json!(round));
    }
    client.assert_stayed_connected();
}
