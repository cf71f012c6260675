//! Clients that enter and leave namespaces, also before they are in.

use std::time::Duration;

use carillon_bus::Bucket;
use carillon_protocol::headers::Headers;
use carillon_protocol::message::Revoked;
use carillon_service::settings;
use carillon_testkit::clients::{WsClient, WsOptions};
use carillon_testkit::tokens;
use serde_json::{Value, json};

use crate::stage::{Edge, Plan, Stage};

/// A Socket.IO connection of which packets are sent as they stand.
struct Raw(WsClient);

impl Raw {
    async fn open(stage: &Stage, edge: &Edge) -> Self {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", edge.address);
        let raw = Self(stage.driver.ws(url, WsOptions::new()));
        raw.next("0{").await;
        raw
    }

    fn send(&self, packet: impl AsRef<str>) {
        self.0.send_text(packet.as_ref());
    }

    /// Enters a namespace and returns the sid there.
    async fn enter(&self, namespace: &str, token: &str) -> String {
        self.send(format!("40{namespace}{}", json!({ "token": token })));
        self.entered(namespace).await
    }

    async fn entered(&self, namespace: &str) -> String {
        let prefix = format!("40{namespace}");
        let packet = self.next(&format!("{prefix}{{\"sid\"")).await;
        let body: Value = serde_json::from_str(&packet[prefix.len()..]).unwrap();
        body["sid"].as_str().unwrap().to_owned()
    }

    /// The next packet that begins so.
    async fn next(&self, prefix: &str) -> String {
        let begins = |message: &Value| message.as_str().is_some_and(|text| text.starts_with(prefix));
        let message = self.0.next_matching(prefix, begins).await;
        message.as_str().unwrap().to_owned()
    }

    /// Returns once everything that was sent before has been taken.
    async fn taken(&self) {
        self.send("40/nowhere,");
        self.next("44/nowhere,").await;
    }
}

/// Namespaces that anybody enters, and that tell who does.
fn plan(names: &[&str]) -> Plan {
    let mut plan = Plan::default();
    for name in names {
        let namespace = settings::Namespace {
            anonymous: true,
            lifecycle: true,
            ..settings::Namespace::open()
        };
        plan.namespaces.insert((*name).to_owned(), namespace);
    }
    plan
}

async fn revoke(stage: &Stage, jti: &str) {
    let revoked = Revoked {
        user: None,
        jti: Some(jti.to_owned()),
        at: carillon_bus::history::now(),
    };
    let body = serde_json::to_vec(&revoked).unwrap().into();
    let table = stage.bus.table(Bucket::Revoked);
    table.put(&format!("jti.{jti}"), body, None).await.unwrap();
}

fn token(user: &str, jti: &str) -> String {
    tokens::hs256("dev-secret", &json!({ "sub": user, "jti": jti }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_and_enters_before_it_is_in_has_one_attempt_under_way() {
    let mut plan = plan(&["/asked"]);
    let connect = &mut plan.namespaces.get_mut("/asked").unwrap().connect;
    connect.ask = true;
    connect.timeout = Duration::from_secs(20);
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut told = stage.bus.subscribe("rt.up.asked.>", None).await.unwrap();
    stage.bus.flush().await;
    let raw = Raw::open(&stage, &edge).await;
    for attempt in 0..20 {
        raw.send(format!("40/asked,{{\"attempt\":{attempt}}}"));
        raw.send("41/asked,");
    }
    raw.send("40/asked,{\"attempt\":20}");
    raw.taken().await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = told.next().await.unwrap();
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        if let Some(reply) = message.reply {
            let allow = json!({ "allow": true }).to_string().into();
            stage.bus.publish(&reply, &Headers::new(), allow).await.unwrap();
            if body["auth"]["attempt"] == 20 {
                assert_eq!(raw.entered("/asked,").await, body["sid"]);
                raw.send("41/asked,");
            }
        }
        seen.push((
            body["event"].clone(),
            body["auth"]["attempt"].clone(),
            body["sid"].clone(),
        ));
    }
    let attempts: Vec<&Value> = seen.iter().map(|(_, attempt, _)| attempt).collect();
    let asked: Vec<&Value> = attempts
        .into_iter()
        .filter(|attempt| !attempt.is_null())
        .collect();
    assert_eq!(asked, [&json!(0), &json!(20)]);
    // The backend was asked about both, and learns of both ends.
    for (event, _, sid) in &seen {
        let of_session = seen.iter().filter(|(_, _, other)| other == sid).count();
        assert_eq!(of_session, 2, "{event} of {sid} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_told_of_the_end_of_those_only_who_were_in() {
    let stage = Stage::with(plan(&["/anon"])).await;
    let edge = stage.edge().await;
    let mut told = stage.bus.subscribe("rt.up.anon.>", None).await.unwrap();
    stage.bus.flush().await;
    let raw = Raw::open(&stage, &edge).await;
    stage.nats.pause();
    raw.send("40/anon,");
    raw.send("41/anon,");
    raw.send("40/anon,");
    raw.taken().await;
    stage.nats.resume();
    let sid = raw.entered("/anon,").await;
    raw.send("41/anon,");
    for expected in ["$connect", "$disconnect"] {
        let body: Value = serde_json::from_slice(&told.next().await.unwrap().body).unwrap();
        assert_eq!((&body["event"], &body["sid"]), (&json!(expected), &json!(sid)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_with_a_better_token_is_answered() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let raw = Raw::open(&stage, &edge).await;
    for _ in 0..20 {
        raw.send("40{\"token\":\"bad\"}");
        raw.send("41");
        raw.enter("", &tokens::dev("42")).await;
        raw.send("41");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_enters_namespaces_without_end_is_closed() {
    let stage = Stage::with(plan(&["/anon"])).await;
    let edge = stage.edge().await;
    let raw = Raw::open(&stage, &edge).await;
    for _ in 0..101 {
        raw.send("40/anon,");
        raw.send("41/anon,");
    }
    let closed = raw.0.closed().await;
    assert_eq!(
        (closed.code, closed.reason.split(':').next()),
        (1008, Some("rate_limited"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_that_a_client_was_taken_out_of_do_not_count() {
    let mut plan = plan(&["/a", "/b", "/c"]);
    plan.edge.max_namespaces = 2;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let raw = Raw::open(&stage, &edge).await;
    raw.enter("/a,", &token("42", "one")).await;
    raw.enter("/b,", &token("42", "two")).await;
    for jti in ["one", "two"] {
        revoke(&stage, jti).await;
        raw.next("41/").await;
    }
    raw.enter("/a,", &tokens::dev("42")).await;
    raw.enter("/c,", &tokens::dev("42")).await;
    raw.send("40/b,");
    assert_eq!(raw.0.closed().await.reason, "too_many_namespaces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_a_bad_one_which_is_no_hindrance_where_nobody_needs_one() {
    let stage = Stage::with(plan(&["/anon"])).await;
    let edge = stage.edge().await;
    let mut told = stage.bus.subscribe("rt.up.anon.$connect", None).await.unwrap();
    stage.bus.flush().await;
    let token = token("42", "one");
    let raw = Raw::open(&stage, &edge).await;
    raw.enter("/anon,", &token).await;
    let body: Value = serde_json::from_slice(&told.next().await.unwrap().body).unwrap();
    assert_eq!(body["user"]["id"], "42");
    revoke(&stage, "one").await;
    raw.next("41/anon,").await;
    raw.enter("/anon,", &token).await;
    let body: Value = serde_json::from_slice(&told.next().await.unwrap().body).unwrap();
    assert_eq!(body["user"], json!({ "id": null, "claims": {} }));
    assert_eq!(body["auth"], json!({ "token": token }), "as it was sent");
    raw.send(format!("40{}", json!({ "token": token })));
    assert!(raw.next("44{").await.contains("Invalid token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshake_data_that_no_tree_of_values_holds_is_passed_on_as_it_was_sent() {
    let mut plan = plan(&["/told", "/asked"]);
    plan.namespaces.get_mut("/asked").unwrap().connect.ask = true;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let mut told = stage.bus.subscribe("rt.up.*.$connect", None).await.unwrap();
    stage.bus.flush().await;
    let raw = Raw::open(&stage, &edge).await;
    let token = tokens::dev("42");
    for namespace in ["/told,", "/asked,"] {
        raw.send(format!(
            "40{namespace}{{\"token\":\"{token}\",\"n\":12345678901234567890123,\"x\":[\"\\ud800\",1e400]}}"
        ));
        let message = told.next().await.unwrap();
        if let Some(reply) = message.reply {
            let allow = json!({ "allow": true }).to_string().into();
            stage.bus.publish(&reply, &Headers::new(), allow).await.unwrap();
        }
        raw.entered(namespace).await;
        let body = std::str::from_utf8(&message.body).unwrap();
        assert!(body.contains("\"id\":\"42\""), "{body}");
        let auth = "\"auth\":{\"n\":12345678901234567890123,\"x\":[\"\\ud800\",1e400]}";
        assert!(body.contains(auth), "{body}");
    }
    // Who does not even name what it shows keeps to no protocol.
    raw.send("40/told,{\"\\ud800\":1}");
    let closed = raw.0.closed().await;
    assert_eq!(
        (closed.code, closed.reason.split(':').next()),
        (1002, Some("bad_packet"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_enters_again_goes_on_with_the_limits_of_the_connection() {
    let mut plan = plan(&["/a"]);
    plan.namespaces.get_mut("/a").unwrap().rate = settings::Rate {
        events: 1,
        per: Duration::from_secs(3600),
        ..settings::Rate::default()
    };
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let raw = Raw::open(&stage, &edge).await;
    for (id, code) in [(1, "no_handler"), (2, "rate_limited"), (3, "rate_limited")] {
        raw.enter("/a,", &tokens::dev("42")).await;
        raw.send(format!(r#"42/a,{id}["event"]"#));
        let answer = raw.next(&format!("43/a,{id}[")).await;
        assert!(answer.contains(code), "{answer}");
        raw.send("41/a,");
    }
}
