//! What Carillon's processes say to each other on `rt.edge.…`, and what teams ask of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::Sid;
use crate::names::{Namespace, Room};

/// `rt.edge.<edge>.takeover`: another edge owns the session from this term on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {
    pub sid: Sid,
    pub term: u64,
    /// The sequence that the client has.
    pub offset: u64,
}

/// The former owner's answer to a takeover.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct TakenOver {
    /// Sequences above none of which the client's offset can be trusted: it was sent them late, or not at all.
    #[serde(default)]
    pub late: Vec<u64>,
}

/// `rt.edge.<edge>.order`: a change of one session that was ordered from outside.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub order: OrderKind,
    pub sid: Sid,
    pub namespace: Namespace,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKind {
    Join,
    Leave,
    Disconnect,
}

/// Whether the order was carried out; not, where the session is not on that edge.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ordered {
    pub done: bool,
}

/// `rt.edge.<edge>.ask`: ask clients of this edge, and collect their answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub namespace: Namespace,
    pub room: Room,
    pub event: String,
    /// The argument, or the array of arguments where `args` is set.
    pub payload: Box<RawValue>,
    #[serde(default)]
    pub args: bool,
    pub sids: Vec<Sid>,
    #[serde(rename = "timeoutMs")]
    pub timeout_ms: u64,
}

/// The answers of one edge.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    pub answers: Vec<Answer>,
}

/// One client's answer, or that it gave none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub sid: Sid,
    #[serde(rename = "userId")]
    pub user: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `rt.edge.all.revoked`, and the value in the bucket REVOKED.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Milliseconds since 1970 at which it was revoked.
    pub at: u64,
}
