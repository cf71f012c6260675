//! What comes in which order while a history is sent.

use std::time::Duration;

use carillon_bus::Subscription;
use carillon_protocol::headers::Headers;
use carillon_service::settings::{JoinPolicy, RoomRule};
use carillon_testkit::clients::WsClient;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Plan, Stage};

/// Rooms `asked:` are decided by the test, which can let things happen meanwhile.
struct Backend {
    requests: Subscription,
}

impl Backend {
    fn plan() -> Plan {
        let mut plan = Plan::default();
        let namespace = plan.namespaces.get_mut("/").unwrap();
        namespace.authz_timeout = PATIENCE;
        namespace.authz_cache = Duration::ZERO;
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
