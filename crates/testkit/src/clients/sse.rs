use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Driver;
use super::inbox::{Inbox, Report};

/// A message of an event stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SseMessage {
    /// Its data as JSON, null where it is none.
    pub json: Value,
    /// Its data as it stands.
    pub text: String,
    /// `event.lastEventId`.
    pub last_event_id: String,
}

/// A stock `EventSource`, which reconnects by itself.
pub struct SseClient {
    driver: Driver,
    inbox: Arc<Inbox>,
}

impl SseClient {
    pub(super) fn new(driver: Driver, inbox: Arc<Inbox>) -> Self {
        Self { driver, inbox }
    }

    /// How long it waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.inbox.set_patience(patience);
    }

    /// Waits for the next `open`.
    pub async fn opened(&self) {
        self.inbox
            .take("open", |report| (report.kind() == "open").then_some(()))
            .await;
    }

    /// The next message.
    pub async fn next_message(&self) -> SseMessage {
        self.next_matching("any message", |_| true).await
    }

    /// The next message that `wanted` accepts; others stay for later.
    pub async fn next_matching(&self, what: &str, wanted: impl Fn(&SseMessage) -> bool) -> SseMessage {
        let pick = |report: &Report| {
            let message = (report.kind() == "message").then(|| SseMessage {
                json: report.field("json").clone(),
                text: report.text("text"),
                last_event_id: report.text("lastEventId"),
            })?;
            wanted(&message).then_some(message)
        };
        self.inbox.take(&format!("message {what}"), pick).await
    }

    /// Waits for an error that the client does not retry after, and returns the HTTP status.
    pub async fn refused(&self) -> Option<u64> {
        let pick = |report: &Report| {
            (report.kind() == "error" && report.field("final") == true)
                .then(|| report.field("status").as_u64())
        };
        self.inbox.take("a final error", pick).await
    }

    /// Waits for an error that the client retries after.
    pub async fn interrupted(&self) {
        let pick =
            |report: &Report| (report.kind() == "error" && report.field("final") == false).then_some(());
        self.inbox.take("an interruption", pick).await;
    }

    /// The address from the next connection on, as a balancer would choose it.
    pub async fn set_url(&self, url: &str) {
        self.driver
            .ask(
                self.inbox.id(),
                "setUrl",
                json!({ "url": url }),
                self.inbox.patience(),
            )
            .await;
    }

    /// Closes the stream for good.
    pub fn close(&self) {
        self.driver.tell(self.inbox.id(), "close", json!({}));
    }
}
