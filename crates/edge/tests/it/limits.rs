//! What is over a limit is refused with a code, and harms nothing else.

use carillon_service::settings;
use carillon_testkit::clients::{SioClient, WsClient, WsOptions};
use carillon_testkit::tokens;
use carillon_testkit::wait::until_true;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Plan, Stage};

async fn refused(client: &SioClient, event: &str, args: Value) -> String {
    let answer = client.emit_ack(event, args).await;
    let told = client.next_event("error").await;
    assert_eq!(told.data()["code"], answer[0]["error"]["code"]);
    assert_eq!(told.data()["event"], event);
    answer[0]["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_deep_or_has_too_many_attachments_is_refused_and_the_client_stays() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    let deep = (0..105).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(refused(&client, "deep", json!([deep])).await, "too_deep");
    let buffers = vec![json!({ "$binary": "AQID" }); 65];
    assert_eq!(
        refused(&client, "buffers", json!([{ "list": buffers }])).await,
        "too_large"
    );
    stage.signal("user:42", "later", json!(1)).await;
    client.next_event("later").await;
    client.assert_stayed_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_over_a_limit_count_as_others_do() {
    let namespace = settings::Namespace {
        rate: settings::Rate {
            events: 2,
            per: std::time::Duration::from_secs(3600),
            ..settings::Rate::default()
        },
        ..settings::Namespace::open()
    };
    let stage = Stage::with(Plan {
        namespaces: [("/".to_owned(), namespace)].into(),
        ..Plan::default()
    })
    .await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    let deep = (0..105).fold(json!(1), |inner, _| json!([inner]));
    for code in ["too_deep", "too_deep", "rate_limited"] {
        assert_eq!(refused(&client, "deep", json!([deep])).await, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_too_large_for_an_event_is_refused_before_its_rule_does_anything() {
    let mut plan = Plan::default();
    plan.events.max_bytes = 1000;
    let steps = |durable| {
        json!([
            { "join": "team:1" },
            { "relay": { "to": "room", "room": "user:43", "durable": durable, "members_only": false } },
        ])
    };
    let namespace = serde_json::from_value(json!({
        "rooms": [{ "pattern": "team:{id}", "join": "true" }],
        "on": [
            { "event": "signal", "do": steps(false) },
            { "event": "stored", "do": steps(true) },
            { "event": "small", "do": [{ "relay": { "to": "room", "room": "user:43", "members_only": false } }] },
        ],
    }));
    plan.namespaces = [("/".to_owned(), namespace.unwrap())].into();
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let (sender, member) = (stage.sio(&edge, "42").await, stage.sio(&edge, "43").await);
    for event in ["signal", "stored"] {
        let code = refused(&sender, event, json!(["x".repeat(1000)])).await;
        assert_eq!(code, "too_large", "{event}");
    }
    // The names, quotes and braces of the body count too: 27 bytes around the text.
    sender.emit("small", json!(["x".repeat(1000 - 27)]));
    member.next_event("small").await;
    member.assert_no_event("signal");
    let code = refused(&sender, "small", json!(["x".repeat(1000 - 26)])).await;
    assert_eq!(code, "too_large");
    stage.signal("team:1", "inside", json!(1)).await;
    stage.signal("user:42", "outside", json!(1)).await;
    sender.next_event("outside").await;
    sender.assert_no_event("inside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_counts_once_for_its_user_in_however_many_namespaces() {
    let mut plan = Plan::default();
    plan.edge.max_per_user = 1;
    plan.namespaces
        .insert("/chat".to_owned(), settings::Namespace::open());
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", edge.address);
    let auth = json!({ "token": tokens::dev("42") });
    let connect = async || {
        let client = stage.driver.ws(&url, WsOptions::new());
        client.opened().await;
        client.send_text(&format!("40{auth}"));
        client.send_text(&format!("40/chat,{auth}"));
        client
    };
    let entered = async |client: &WsClient| {
        for packet in ["40{", "40/chat,{"] {
            let is_in = |message: &Value| message.as_str().is_some_and(|text| text.starts_with(packet));
            client.next_matching(packet, is_in).await;
        }
    };
    let first = connect().await;
    entered(&first).await;
    let second = connect().await;
    assert_eq!(second.closed().await.code, 1013);
    // The place is free again when the connection is gone.
    first.cut();
    until_true("there is a place", PATIENCE, async || {
        let again = connect().await;
        tokio::select! {
            () = entered(&again) => true,
            _ = again.closed() => false,
        }
    })
    .await;
}
