use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Driver;
use super::inbox::{Inbox, Report};

/// Options of a WebSocket client.
#[derive(Clone, Debug, Default)]
pub struct WsOptions {
    protocols: Vec<String>,
    headers: HashMap<String, String>,
}

impl WsOptions {
    /// No protocols and no extra headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a subprotocol.
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocols.push(protocol.into());
        self
    }

    /// Sends a header with the handshake.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    pub(super) fn into_json(self) -> Value {
        json!({ "protocols": self.protocols, "headers": self.headers })
    }
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code, 1006 where no closing frame came.
    pub code: u64,
    /// The reason in the closing frame.
    pub reason: String,
}

/// An answer to a handshake that is no upgrade.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The HTTP status.
    pub status: u64,
    /// Its headers, by lower-case names.
    pub headers: Value,
    /// Its body.
    pub body: String,
}

/// A plain WebSocket client.
pub struct WsClient {
    driver: Driver,
    inbox: Arc<Inbox>,
}

impl WsClient {
    pub(super) fn new(driver: Driver, inbox: Arc<Inbox>) -> Self {
        Self { driver, inbox }
    }

    /// How long it waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.inbox.set_patience(patience);
    }

    /// Waits for the upgrade and returns the subprotocol.
    pub async fn opened(&self) -> String {
        let pick = |report: &Report| (report.kind() == "open").then(|| report.text("protocol"));
        self.inbox.take("the upgrade", pick).await
    }

    /// Waits for an answer that is no upgrade.
    pub async fn rejected(&self) -> Rejected {
        let pick = |report: &Report| {
            (report.kind() == "refused").then(|| Rejected {
                status: report.field("status").as_u64().unwrap_or_default(),
                headers: report.field("headers").clone(),
                body: report.text("body"),
            })
        };
        self.inbox.take("a refused upgrade", pick).await
    }

    /// The next message: parsed JSON, a string that is no JSON, or `{"$binary": base64}`.
    pub async fn next_message(&self) -> Value {
        self.next_matching("any message", |_| true).await
    }

    /// The next message of this `type`; others stay for later.
    pub async fn next_of_type(&self, kind: &str) -> Value {
        self.next_matching(kind, |message| message["type"] == kind).await
    }

    /// The next event of this name; others stay for later.
    pub async fn next_event(&self, event: &str) -> Value {
        self.next_matching(event, |message| {
            message["event"] == event && message["type"].is_null()
        })
        .await
    }

    /// The next event of this name, if one is here already.
    pub fn event_now(&self, event: &str) -> Option<Value> {
        self.inbox.take_now(&mut |report: &Report| {
            message(report).filter(|message| message["event"] == event && message["type"].is_null())
        })
    }

    /// The next message that `wanted` accepts; others stay for later.
    pub async fn next_matching(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let pick = |report: &Report| message(report).filter(|message| wanted(message));
        self.inbox.take(&format!("message {what}"), pick).await
    }

    /// Panics if a message that `unwanted` accepts is waiting. To prove silence, first take a later
    /// message that comes the same way.
    pub fn assert_no_message(&self, what: &str, unwanted: impl Fn(&Value) -> bool) {
        let unwanted = |report: &Report| message(report).is_some_and(|message| unwanted(&message));
        self.inbox
            .assert_none(&format!("no {what} was to come"), unwanted);
    }

    /// Awaits `condition` and panics if any event that was not taken is here then.
    pub async fn expect_silence_until<T>(&self, condition: impl Future<Output = T>) -> T {
        let value = condition.await;
        self.assert_no_message("event", |message| {
            message.get("topic").is_some() && message["type"].is_null()
        });
        value
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> Closed {
        let pick = |report: &Report| {
            (report.kind() == "close").then(|| Closed {
                code: report.field("code").as_u64().unwrap_or_default(),
                reason: report.text("reason"),
            })
        };
        self.inbox.take("close", pick).await
    }

    /// Waits for a ping frame of the server, which the client answers by itself.
    pub async fn pinged(&self) {
        self.inbox
            .take("a ping frame", |report| (report.kind() == "ping").then_some(()))
            .await;
    }

    /// Sends a JSON text frame.
    pub fn send(&self, message: &Value) {
        self.tell("send", json!({ "json": message }));
    }

    /// Sends a text frame as it stands.
    pub fn send_text(&self, text: &str) {
        self.tell("send", json!({ "text": text }));
    }

    /// Sends a binary frame, given in base64.
    pub fn send_binary(&self, base64: &str) {
        self.tell("send", json!({ "data": { "$binary": base64 } }));
    }

    /// Sends a JSON message and takes the next one that has its `id`.
    pub async fn request(&self, message: &Value) -> Value {
        self.send(message);
        let id = &message["id"];
        self.next_matching(&format!("with id {id}"), |answer| {
            answer["id"] == *id && !answer["type"].is_null()
        })
        .await
    }

    /// Subscribes to a topic and returns the server's answer, which may be an error.
    pub async fn subscribe(&self, topic: &str, since: Option<&str>) -> Value {
        let mut message = json!({ "type": "sub", "topic": topic });
        if let Some(since) = since {
            message["since"] = since.into();
        }
        self.send(&message);
        self.next_matching(&format!("that answers the sub of {topic}"), |answer| {
            answer["topic"] == topic && (answer["type"] == "subscribed" || answer["type"] == "error")
        })
        .await
    }

    /// Stops reading, so that the server's queue fills.
    pub async fn pause(&self) {
        self.ask("pause").await;
    }

    /// Reads on.
    pub async fn resume(&self) {
        self.ask("resume").await;
    }

    /// Closes with a code.
    pub fn close(&self, code: u16, reason: &str) {
        self.tell("close", json!({ "code": code, "reason": reason }));
    }

    /// Cuts the connection without a closing frame.
    pub fn cut(&self) {
        self.tell("cut", json!({}));
    }

    fn tell(&self, op: &str, fields: Value) {
        self.driver.tell(self.inbox.id(), op, fields);
    }

    async fn ask(&self, op: &str) -> Value {
        self.driver
            .ask(self.inbox.id(), op, json!({}), self.inbox.patience())
            .await
    }
}

fn message(report: &Report) -> Option<Value> {
    if report.kind() != "message" {
        return None;
    }
    let body = ["json", "text", "data"]
        .into_iter()
        .map(|name| report.field(name));
    body.into_iter().find(|value| !value.is_null()).cloned()
}
