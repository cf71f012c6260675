use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inbox::Inbox;
use super::{Driver, SioOptions};
use crate::wait;

const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The client that a fleet is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `socket.io-client`.
    Sio,
    /// The JSON protocol at `/ws`, resumed from the last offset.
    Ws,
}

/// One client of a fleet.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its name in the ledger.
    pub name: String,
    /// Its token.
    pub token: String,
    /// Socket.IO: `{"event", "args"}` emitted with an acknowledgement after a connect that recovered
    /// nothing.
    pub joins: Vec<Value>,
    /// `/ws`: topics to subscribe to.
    pub topics: Vec<String>,
}

impl Member {
    /// A member that joins nothing.
    pub fn new(name: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            token: token.into(),
            joins: Vec::new(),
            topics: Vec::new(),
        }
    }

    /// Emits this event after connecting and waits for its acknowledgement.
    pub fn join(mut self, event: &str, args: Value) -> Self {
        self.joins.push(json!({ "event": event, "args": args }));
        self
    }

    /// Subscribes to this topic.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }
}

/// What a fleet is made of. Members take the addresses in turn, and the next one at each reconnect.
pub struct FleetPlan {
    /// The clients' kind.
    pub kind: Kind,
    /// The addresses: of namespaces for Socket.IO, of `/ws` otherwise.
    pub urls: Vec<String>,
    /// Options of every Socket.IO client; the time that a connect may take, `timeout`, is for both kinds.
    pub options: SioOptions,
    /// The clients.
    pub members: Vec<Member>,
}

impl FleetPlan {
    pub(super) fn into_json(self) -> Value {
        let Self {
            kind,
            urls,
            options,
            members,
        } = self;
        json!({ "kind": kind, "urls": urls, "opts": options.into_json(), "members": members })
    }
}

/// A fleet at one moment.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// How many members it has.
    pub members: usize,
    /// How many are connected and in all their rooms.
    pub connected: usize,
    /// The connected ones by transport.
    pub transports: BTreeMap<String, usize>,
    /// Connects so far, first ones and later ones.
    pub connects: usize,
    /// Connects that recovered their session.
    pub recovered: usize,
    /// Connects after the first that recovered nothing.
    pub unrecovered: usize,
    /// Upgrades from polling to WebSocket.
    pub upgrades: usize,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, usize>,
    /// The acknowledgements of [`Fleet::emit_all`].
    pub acks: Acks,
}

/// Acknowledgements that a fleet asked for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Acks {
    /// How many were asked for.
    pub asked: usize,
    /// How many came.
    pub answered: usize,
    /// How many did not.
    pub failed: usize,
    /// Why not, and how often.
    pub errors: BTreeMap<String, usize>,
}

/// What one member got.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The member's name.
    pub name: String,
    /// The longest time between two numbered events, in milliseconds.
    pub longest_silence_ms: u64,
    /// Events without a number in their data.
    pub unnumbered: u64,
    /// Connects so far.
    pub connects: u64,
    /// Connects that recovered their session.
    pub recovered: u64,
    /// Connects after the first that recovered nothing.
    pub unrecovered: u64,
    /// Events read again because a resume was interrupted and asked for a second time (`/ws`).
    #[serde(default)]
    pub reread: u64,
    /// The first gaps, duplicates and disorders, as they were seen.
    pub trouble: Vec<Trouble>,
    /// The numbered events by their stream key, `data.s`.
    pub streams: BTreeMap<String, StreamLedger>,
}

/// A number that was not the next one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Trouble {
    /// When it came, in milliseconds since 1970.
    pub at: u64,
    /// What came, and after what.
    pub text: String,
}

/// The sums over all members of a fleet, so far.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// The longest time that a member heard nothing numbered, since the last watch.
    pub silence_ms: u64,
    /// That member.
    pub quietest: String,
    /// Numbered events that came.
    pub received: u64,
    /// Numbers that were passed over and have not come yet.
    pub missing: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Numbers that came after a higher one.
    pub disordered: u64,
}

/// What one member got of one stream of numbers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct StreamLedger {
    /// The first number that came.
    pub first: i64,
    /// The highest number that came.
    pub last: i64,
    /// How many different numbers came.
    pub count: u64,
    /// Ranges between first and last that never came.
    pub missing: Vec<(i64, i64)>,
    /// How many came again.
    pub duplicates: u64,
    /// How many came after a higher one.
    pub disordered: u64,
    /// Some of the duplicates and disorders in words.
    pub examples: Vec<String>,
}

impl StreamLedger {
    /// Whether exactly the numbers from `first` to `last` came, each once and in order.
    pub fn is_exactly(&self, first: i64, last: i64) -> bool {
        self.first == first
            && self.last == last
            && self.missing.is_empty()
            && self.duplicates == 0
            && self.disordered == 0
    }
}

/// Many clients that count what they get.
pub struct Fleet {
    driver: Driver,
    inbox: Arc<Inbox>,
}

impl Fleet {
    pub(super) fn new(driver: Driver, inbox: Arc<Inbox>) -> Self {
        Self { driver, inbox }
    }

    /// The fleet as it is now.
    pub async fn status(&self) -> Status {
        from(self.ask("status", json!({})).await)
    }

    /// Waits until the status satisfies `condition`, and panics with the last one seen.
    pub async fn wait(&self, what: &str, limit: Duration, condition: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let found = wait::within(limit, async || {
            let status = self.status().await;
            let fits = condition(&status);
            last = Some(status.clone());
            fits.then_some(status)
        });
        match found.await {
            Some(status) => status,
            None => panic!("waited {limit:?} in vain for a fleet that {what}: {last:#?}"),
        }
    }

    /// Waits until every member is connected and in all its rooms.
    pub async fn all_connected(&self, limit: Duration) -> Status {
        self.wait("is connected", limit, |status| status.connected == status.members)
            .await
    }

    /// What each member got so far.
    pub async fn ledger(&self) -> Vec<Ledger> {
        from(self.ask("ledger", json!({})).await)
    }

    /// What all members got so far, and the longest silence since the last call.
    pub async fn watch(&self) -> Watch {
        from(self.ask("watch", json!({})).await)
    }

    /// Lets every member emit this event and ask for an acknowledgement; [`Status::acks`] counts them.
    pub async fn emit_all(&self, event: &str, args: Value, timeout: Duration) {
        let timeout = timeout.as_millis() as u64;
        self.ask(
            "emitAll",
            json!({ "event": event, "args": args, "timeout": timeout }),
        )
        .await;
    }

    /// Counts acknowledgements anew.
    pub async fn reset_acks(&self) {
        self.ask("resetAcks", json!({})).await;
    }

    /// Closes every member for good.
    pub async fn close_all(&self) {
        self.ask("closeAll", json!({})).await;
    }

    async fn ask(&self, op: &str, fields: Value) -> Value {
        self.driver.ask(self.inbox.id(), op, fields, ANSWER_LIMIT).await
    }
}

fn from<T: serde::de::DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer.clone()).unwrap_or_else(|e| panic!("the driver answered {answer}: {e}"))
}
