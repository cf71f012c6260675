//! Events that take long: their client is not given up meanwhile.

use std::time::Duration;

use carillon_service::settings;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_nobody_decides_do_not_stop_the_pings() {
    let mut plan = Plan::default();
    plan.edge.ping_interval = Duration::from_secs(1);
    plan.edge.ping_timeout = Duration::from_secs(3);
    let namespace: settings::Namespace = serde_json::from_value(json!({
        "rooms": [{ "pattern": "{room}", "join": "nats" }],
        "on": [{ "event": "join", "do": [{ "join": "{data}" }] }],
        "authz_timeout": "1s",
    }))
    .unwrap();
    plan.namespaces.insert("/".to_owned(), namespace);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let _silent = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
    stage.bus.flush().await;
    let check = async |options: SioOptions| {
        let client = stage.driver.sio(edge.url(), options);
        client.set_patience(PATIENCE);
        client.connected().await;
        let joins = (0..7).map(|number| client.emit_ack("join", json!([format!("room{number}")])));
        // Longer than the client waits for a ping, and the edge for a pong.
        let answers: Vec<Vec<Value>> = futures_util::future::join_all(joins).await;
        for answer in answers {
            assert_eq!(answer[0]["error"]["code"], "forbidden");
        }
        client.assert_stayed_connected();
        // It is asked for pongs again, and answers.
        for _ in 0..4 {
            client.emit_ack("join", json!(["room"])).await;
        }
        client.assert_stayed_connected();
    };
    tokio::join!(
        check(SioOptions::websocket(tokens::dev("42"))),
        check(SioOptions::polling(tokens::dev("43"))),
    );
}
