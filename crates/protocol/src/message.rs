//! What Carillon's processes say to each other on `rt.edge.…`, and what teams ask of them.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::doubt::Lack;
use crate::ids::{EdgeId, EngineId, Sid};
use crate::names::{Namespace, Room};

/// `rt.edge.<edge>.takeover`: another edge owns the session from this term on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {
    pub sid: Sid,
    pub term: u64,
}

/// The former owner's answer to a takeover.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct TakenOver {
    /// As [`Record::late`](crate::session::Record::late).
    #[serde(default)]
    pub late: Vec<Lack>,
    /// It was still looking at a doubt about one of the session's rooms.
    #[serde(default)]
    pub unsure: bool,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// The error in place of an answer that does not fit into a message with the others.
const TOO_LARGE: &str = "answer_too_large";

/// Leaves out what the largest answers say, until all fit into so many bytes of JSON; the error tells it.
pub fn fit(answers: &mut [Answer], most: usize) {
    // With the comma; the brackets take the place of the last one, and one byte.
    let size = |answer: &Answer| serde_json::to_vec(answer).map_or(0, |json| json.len() + 1);
    let mut sized: Vec<(usize, &mut Answer)> =
        answers.iter_mut().map(|answer| (size(answer), answer)).collect();
    let mut total = 1 + sized.iter().map(|(size, _)| size).sum::<usize>();
    sized.sort_unstable_by_key(|(size, _)| Reverse(*size));
    for (before, answer) in sized {
        if total <= most {
            return;
        }
        if answer.data.take().is_some() {
            answer.error = Some(TOO_LARGE.to_owned());
            total = total - before + size(answer);
        }
    }
}

/// `rt.edge.all.revoked`, `rt.edge.<edge>.revoked`, and the value in the bucket REVOKED.
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

/// The answer to a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How many connections it has ended at this edge.
    pub connections: usize,
}

/// `rt.edge.<edge>.engine`, in the header `Carillon-Engine`: a request of a long-polling client that came in at
/// another edge than its session's. The body is the request's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Engine {
    /// Is the edge there?
    Alive,
    /// What waits for the client; answered when there is something.
    Poll {
        sid: EngineId,
        /// Tells polls apart: the same one gets the same bytes again.
        t: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<Relay>,
        /// The edge that has the client's request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        front: Option<EdgeId>,
    },
    /// Packets from the client.
    Post {
        sid: EngineId,
        t: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<Relay>,
    },
    /// A WebSocket is about to replace polling.
    Probe { sid: EngineId },
    /// The client has changed to the WebSocket of the relay.
    Upgrade { sid: EngineId, relay: Relay },
    /// Hold the session, if nothing is under way, and say how it goes on at the relay's edge.
    Freeze { sid: EngineId, relay: Relay },
    /// The session stays where it is.
    Thaw { sid: EngineId, relay: Relay },
    /// The relay's edge owns the session; the answer is what still waited for the client.
    Leave { sid: EngineId, relay: Relay },
}

/// A WebSocket at one edge that belongs to a session of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    pub edge: EdgeId,
    pub number: u64,
}

/// How a request of a long-polling client ended, in the header `Carillon-Engine` of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engaged {
    Done,
    /// The body is the last that the client gets.
    Last,
    /// There is no such session.
    Unknown,
    /// The request means nothing in the state that the session is in.
    Bad,
}
