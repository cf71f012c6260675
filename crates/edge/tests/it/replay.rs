//! What comes in which order while a history is sent.

use carillon_bus::Subscription;
use carillon_protocol::headers::Headers;
use carillon_service::settings::{JoinPolicy, RoomRule};
use carillon_testkit::clients::WsClient;
use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::stage::{Edge, PATIENCE, Plan, Stage};

/// Rooms `asked:` are decided by the test, which can let things happen meanwhile.
struct Backend {
    requests: Subscription,
}

impl Backend {
    fn plan() -> Plan {
        let mut plan = Plan::default();
        let namespace = plan.namespaces.get_mut("/").unwrap();
        namespace.authz_timeout = PATIENCE;
        let asked = RoomRule {
            join: Some(JoinPolicy::Ask),
            ..RoomRule::open("asked:{id}")
        };
        namespace.rooms.insert(0, asked);
        plan
    }

    async fn start(stage: &Stage) -> Self {
        let requests = stage.bus.subscribe("rt.authz.main", None).await.unwrap();
        stage.bus.flush().await;
        Self { requests }
    }

    /// Lets the next client in, once something else has happened.
    async fn allow_after(&mut self, stage: &Stage, meanwhile: impl Future<Output = ()>) {
        let request = self.requests.next().await.unwrap();
        meanwhile.await;
        let to = request.reply.unwrap();
        let yes = json!({ "allow": true }).to_string();
        stage.bus.publish(&to, &Headers::new(), yes.into()).await.unwrap();
    }
}

/// A client that hears all signals for everybody, and so tells that those before have come to its edge.
struct Witness(WsClient);

impl Witness {
    async fn at(stage: &Stage, edge: &Edge) -> Self {
        Self(stage.ws(edge, "witness").await.0)
    }

    async fn has_seen(&self, stage: &Stage, event: &str) {
        stage.signal("all", event, json!({})).await;
        self.0.next_event(event).await;
    }
}

async fn offset_of(client: &WsClient) -> String {
    client.send(&json!({ "type": "ping" }));
    let pong = client.next_of_type("pong").await;
    pong["offset"].as_str().unwrap().to_owned()
}

fn sequence(message: &Value) -> u64 {
    u64::from_str_radix(&message["offset"].as_str().unwrap()[8..], 16).unwrap()
}

/// Takes the types or events of messages as they come, up to one.
async fn up_to(client: &WsClient, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| seen != last) {
        let message = client.next_message().await;
        let name = message["type"].as_str().or(message["event"].as_str());
        seen.push(name.unwrap().to_owned());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_from_the_middle_of_a_replay_goes_on_there() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    let mut stored = Vec::new();
    for n in 1..=5 {
        stored.push(stage.publish("lobby", "tick", json!({ "n": n })).await);
    }
    let later = stage.publish("user:42", "later", json!(0)).await;
    client.next_event("later").await;
    let subscribed = client.subscribe("lobby", Some(&offset)).await;
    assert_eq!(subscribed["offset"], offset);
    let mut ticks = Vec::new();
    for _ in 1..=5 {
        ticks.push(client.next_event("tick").await);
    }
    let told: Vec<u64> = ticks.iter().map(sequence).collect();
    assert_eq!(told[..4], stored[..4]);
    // With the last one the client has everything that it had before.
    assert_eq!(told[4], later);
    let (again, _) = stage.ws(&edge, "43").await;
    let since = ticks[2]["offset"].as_str().unwrap();
    assert_eq!(again.subscribe("lobby", Some(since)).await["offset"], since);
    for n in 4..=5 {
        assert_eq!(again.next_event("tick").await["payload"]["n"], n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_not_overtake_what_came_before_it_to_another_room() {
    let stage = Stage::with(Backend::plan()).await;
    let mut backend = Backend::start(&stage).await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    stage.publish("asked:1", "first", json!(1)).await;
    client.send(&json!({ "type": "sub", "topic": "asked:1", "since": offset }));
    let meanwhile = async {
        stage.publish("user:42", "mine", json!(2)).await;
        stage.publish("asked:1", "second", json!(3)).await;
    };
    backend.allow_after(&stage, meanwhile).await;
    let seen = up_to(&client, "second").await;
    assert_eq!(seen, ["subscribed", "first", "mine", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_a_topic_come_behind_its_history() {
    let stage = Stage::with(Backend::plan()).await;
    let mut backend = Backend::start(&stage).await;
    let edge = stage.edge().await;
    let witness = Witness::at(&stage, &edge).await;
    let (client, _) = stage.ws(&edge, "42").await;
    let offset = offset_of(&client).await;
    for _ in 0..2 {
        stage.publish("asked:1", "tick", json!(1)).await;
    }
    client.send(&json!({ "type": "sub", "topic": "asked:1" }));
    backend.allow_after(&stage, async {}).await;
    client.next_of_type("subscribed").await;
    client.send(&json!({ "type": "sub", "topic": "asked:1", "since": offset }));
    let meanwhile = async {
        // Nobody waits for what has nothing to do with the topic.
        witness.has_seen(&stage, "before").await;
        client.next_event("before").await;
        stage.signal("asked:1", "typing", json!({})).await;
        witness.has_seen(&stage, "behind").await;
    };
    backend.allow_after(&stage, meanwhile).await;
    let seen = up_to(&client, "behind").await;
    assert_eq!(seen, ["subscribed", "tick", "tick", "typing", "behind"]);
    witness.has_seen(&stage, "live").await;
    client.next_event("live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_welcome_whatever_comes_before() {
    let stage = Stage::with(Backend::plan()).await;
    let mut backend = Backend::start(&stage).await;
    let edge = stage.edge().await;
    let witness = Witness::at(&stage, &edge).await;
    let url = format!(
        "http://{}/sse?token={}&topic=asked:1&since=x",
        edge.address,
        tokens::dev("42")
    );
    let stream = stage.driver.sse(url, &[]);
    let meanwhile = async {
        stage.signal("user:42", "early", json!({})).await;
        witness.has_seen(&stage, "early").await;
    };
    backend.allow_after(&stage, meanwhile).await;
    assert_eq!(stream.next_message().await.json["type"], "welcome");
    stage.signal("user:42", "typing", json!({})).await;
    let is_event = |message: &carillon_testkit::clients::SseMessage| message.json["type"].is_null();
    let first = stream.next_matching("the first event", is_event).await;
    assert_eq!(first.json["event"], "typing");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_come_behind_a_history_that_leaves_slowly() {
    const EVENTS: usize = 300;
    let mut plan = Plan::default();
    plan.edge.queue = 128 * 1024;
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let witness = Witness::at(&stage, &edge).await;
    let offset = offset_of(&witness.0).await;
    let text = "x".repeat(40_000);
    for _ in 0..EVENTS {
        stage.publish("user:42", "tick", json!(text)).await;
    }
    let url = format!(
        "http://{}/sse?token={}&since={offset}",
        edge.address,
        tokens::dev("42")
    );
    // Nothing is read yet, and this is more than the sockets' buffers take.
    let mut response = http::client().get(url).send().await.unwrap();
    stage.signal("user:42", "typing", json!({})).await;
    witness.has_seen(&stage, "sent").await;
    let mut body = Vec::new();
    let is_read = |body: &[u8]| body.windows(14).any(|part| part == b"\"event\":\"sent\"");
    while !is_read(&body[body.len().saturating_sub(200_000)..]) {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap();
        body.extend_from_slice(&chunk.unwrap().unwrap());
    }
    let seen: Vec<String> = String::from_utf8(body)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|message| Some(message["event"].as_str()?.to_owned()))
        .collect();
    let mut expected = vec!["tick"; EVENTS];
    expected.extend(["typing", "sent"]);
    assert_eq!(seen, expected);
}
