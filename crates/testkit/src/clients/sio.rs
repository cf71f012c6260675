use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Driver;
use super::inbox::{Inbox, Report};

/// Options of a `socket.io-client`, with short reconnection delays.
#[derive(Clone, Debug)]
pub struct SioOptions(Value);

impl Default for SioOptions {
    fn default() -> Self {
        Self(json!({ "reconnectionDelay": 50, "reconnectionDelayMax": 500 }))
    }
}

impl SioOptions {
    /// The client's own defaults: polling first, then an upgrade.
    pub fn new() -> Self {
        Self::default()
    }

    /// WebSocket alone, with this token as `auth.token`.
    pub fn websocket(token: impl Into<String>) -> Self {
        Self::new().token(token).transports(&["websocket"])
    }

    /// Polling alone, with this token as `auth.token`.
    pub fn polling(token: impl Into<String>) -> Self {
        Self::new().token(token).transports(&["polling"])
    }

    /// Sets `auth.token`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.0["auth"]["token"] = token.into().into();
        self
    }

    /// Sets the transports, in the order in which they are tried.
    pub fn transports(self, transports: &[&str]) -> Self {
        self.with("transports", json!(transports))
    }

    /// Sets any option by its name: `auth`, `path`, `query`, `extraHeaders`, `reconnection` and so on.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0[name] = value;
        self
    }

    pub(super) fn into_json(self) -> Value {
        self.0
    }
}

/// A `connect` of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    /// `socket.id`.
    pub sid: String,
    /// `socket.recovered`.
    pub recovered: bool,
    /// `polling` or `websocket`.
    pub transport: String,
}

/// A `connect_error` of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// `error.message`.
    pub message: String,
    /// `error.data`, null where there is none.
    pub data: Value,
    /// Whether the client goes on trying by itself.
    pub active: bool,
    /// The HTTP status, where the transport failed with one.
    pub status: Option<u64>,
}

/// An event that came to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// All arguments, bytes as `{"$binary": base64}`. The last one may be the offset.
    pub args: Vec<Value>,
    /// Whether the server wants an acknowledgement.
    pub asks: bool,
}

impl Event {
    /// The first argument, null where there is none.
    pub fn data(&self) -> &Value {
        self.args.first().unwrap_or(&Value::Null)
    }

    /// The last argument, if it is a string: what the client keeps as its offset.
    pub fn offset(&self) -> Option<&str> {
        self.args.last()?.as_str()
    }

    fn of(report: &Report) -> Self {
        Self {
            name: report.text("name"),
            args: report.array("args"),
            asks: report.field("asks") == true,
        }
    }
}

/// An unmodified `socket.io-client`.
pub struct SioClient {
    driver: Driver,
    inbox: Arc<Inbox>,
    next_ack: AtomicU64,
}

impl SioClient {
    pub(super) fn new(driver: Driver, inbox: Arc<Inbox>) -> Self {
        Self {
            driver,
            inbox,
            next_ack: AtomicU64::new(1),
        }
    }

    /// How long it waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.inbox.set_patience(patience);
    }

    /// The next `connect` that was not asked for yet.
    pub async fn connected(&self) -> Connected {
        let pick = |report: &Report| {
            (report.kind() == "connect").then(|| Connected {
                sid: report.text("sid"),
                recovered: report.field("recovered") == true,
                transport: report.text("transport"),
            })
        };
        self.inbox.take("connect", pick).await
    }

    /// The next `connect_error`.
    pub async fn refused(&self) -> Refused {
        let pick = |report: &Report| {
            (report.kind() == "connect_error").then(|| Refused {
                message: report.text("message"),
                data: report.field("data").clone(),
                active: report.field("active") == true,
                status: report.field("status").as_u64(),
            })
        };
        self.inbox.take("connect_error", pick).await
    }

    /// The reason of the next `disconnect`.
    pub async fn disconnected(&self) -> String {
        let pick = |report: &Report| (report.kind() == "disconnect").then(|| report.text("reason"));
        self.inbox.take("disconnect", pick).await
    }

    /// The transport of the next upgrade.
    pub async fn upgraded(&self) -> String {
        let pick = |report: &Report| (report.kind() == "upgrade").then(|| report.text("transport"));
        self.inbox.take("upgrade", pick).await
    }

    /// The next event with this name; others stay for later.
    pub async fn next_event(&self, name: &str) -> Event {
        self.next_matching(name, |event| event.name == name).await
    }

    /// The next event, whatever its name.
    pub async fn next_any_event(&self) -> Event {
        self.next_matching("any event", |_| true).await
    }

    /// The next event that `wanted` accepts; others stay for later.
    pub async fn next_matching(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let pick = |report: &Report| {
            let event = (report.kind() == "event").then(|| Event::of(report))?;
            wanted(&event).then_some(event)
        };
        self.inbox.take(&format!("event {what}"), pick).await
    }

    /// How many events with this name wait to be taken.
    pub fn waiting(&self, name: &str) -> usize {
        self.inbox
            .count(|report| report.kind() == "event" && report.text("name") == name)
    }

    /// Panics if an event with this name is waiting. To prove silence, first take a later event that
    /// comes the same way.
    pub fn assert_no_event(&self, name: &str) {
        let unwanted = |report: &Report| report.kind() == "event" && report.text("name") == name;
        self.inbox
            .assert_none(&format!("no event {name} was to come"), unwanted);
    }

    /// Awaits `condition` and panics if any event that was not taken is here then.
    pub async fn expect_silence_until<T>(&self, condition: impl Future<Output = T>) -> T {
        let value = condition.await;
        self.inbox
            .assert_none("silence was to be kept", |report| report.kind() == "event");
        value
    }

    /// Panics if the client was disconnected and the test has not taken it.
    pub fn assert_stayed_connected(&self) {
        self.inbox
            .assert_none("the client was to stay connected", |report| {
                report.kind() == "disconnect"
            });
    }

    /// Emits an event; bytes are `{"$binary": base64}`.
    pub fn emit(&self, event: &str, args: Value) {
        self.tell("emit", json!({ "event": event, "args": arguments(args) }));
    }

    /// Emits an event that is dropped when the client is not connected.
    pub fn volatile(&self, event: &str, args: Value) {
        self.tell("volatile", json!({ "event": event, "args": arguments(args) }));
    }

    /// Emits an event and returns the arguments of its acknowledgement.
    pub async fn emit_ack(&self, event: &str, args: Value) -> Vec<Value> {
        let answer = self.try_emit_ack(event, args).await;
        answer.unwrap_or_else(|e| panic!("{}: no acknowledgement of {event}: {e}", self.inbox.id()))
    }

    /// Emits an event and returns its acknowledgement, or the client's error when none came in time.
    pub async fn try_emit_ack(&self, event: &str, args: Value) -> Result<Vec<Value>, String> {
        let ack = self.next_ack.fetch_add(1, Ordering::Relaxed);
        // The client itself is to lose patience first, so that its own error is seen.
        let timeout = self.inbox.patience().mul_f32(0.9).as_millis() as u64;
        let fields = json!({ "event": event, "args": arguments(args), "ack": ack, "timeout": timeout });
        self.tell("emit", fields);
        let pick = |report: &Report| {
            (report.kind() == "ack" && report.field("ack") == ack).then(|| match report.field("error") {
                Value::String(error) => Err(error.clone()),
                _ => Ok(report.array("args")),
            })
        };
        self.inbox
            .take(&format!("acknowledgement of {event}"), pick)
            .await
    }

    /// Answers every event of this name that asks for an acknowledgement with these arguments.
    pub async fn answer(&self, event: &str, args: Value) {
        self.ask("ackOn", json!({ "event": event, "args": arguments(args) }))
            .await;
    }

    /// Disconnects for good.
    pub fn disconnect(&self) {
        self.tell("disconnect", json!({}));
    }

    /// Connects again after a disconnect.
    pub fn connect(&self) {
        self.tell("connect", json!({}));
    }

    /// Closes the transport in an orderly way; the client reconnects by itself.
    pub fn kill_transport(&self) {
        self.tell("killTransport", json!({}));
    }

    /// Cuts the WebSocket's connection without a closing frame; the client reconnects by itself.
    pub fn cut(&self) {
        self.tell("cut", json!({}));
    }

    /// The handshake data from the next connect on.
    pub async fn set_auth(&self, auth: Value) {
        self.ask("setAuth", json!({ "auth": auth })).await;
    }

    /// The server from the next connect on, without the namespace.
    pub async fn set_url(&self, url: &str) {
        self.ask("setUrl", json!({ "url": url })).await;
    }

    /// `connected`, `sid`, `recovered`, `transport` and `engineId` as they are now.
    pub async fn state(&self) -> Value {
        self.ask("state", json!({})).await
    }

    fn tell(&self, op: &str, fields: Value) {
        self.driver.tell(self.inbox.id(), op, fields);
    }

    async fn ask(&self, op: &str, fields: Value) -> Value {
        self.driver
            .ask(self.inbox.id(), op, fields, self.inbox.patience())
            .await
    }
}

/// An array is the list of arguments, anything else the only one.
fn arguments(args: Value) -> Value {
    if args.is_array() { args } else { json!([args]) }
}
