//! Joins, leaves and disconnects that teams order.
//!
//! The edge that owns a live session carries the order out and writes the record. A session that is away has no
//! edge that would: its record is changed here, so that the client finds the order done when it returns.

use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{RequestError, TableError};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{Order, OrderKind, Ordered};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State};
use futures_util::StreamExt;

use crate::expiry;
use crate::refusal::Refusal;
use crate::router::Router;
use crate::target::Target;

/// Orders of one request that are out at once.
const AT_ONCE: usize = 64;
/// How long an edge may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a session is looked for that moves from edge to edge meanwhile.
const ATTEMPTS: usize = 10;
/// Longest text of a reason.
const MAX_REASON: usize = 256;

/// What is to be done, to whom.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    kind: OrderKind,
    namespace: Namespace,
    room: Option<Room>,
    reason: Option<String>,
}

impl Command {
    /// Checks what an order needs.
    pub(crate) fn new(
        kind: OrderKind,
        namespace: Namespace,
        room: Option<Room>,
        reason: Option<String>,
    ) -> Result<Self, Refusal> {
        let room = match (kind, room) {
            (OrderKind::Disconnect, _) => None,
            (_, None) => return Err(Refusal::wrong("no_room", "expected \"room\"")),
            (_, room) => room,
        };
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            return Err(Refusal::wrong(
                "bad_reason",
                format!("a reason has at most {MAX_REASON} bytes"),
            ));
        }
        Ok(Self {
            kind,
            namespace,
            room,
            reason,
        })
    }

    fn order(&self, sid: Sid) -> Bytes {
        let order = Order {
            order: self.kind,
            sid,
            namespace: self.namespace.clone(),
            room: self.room.clone(),
            reason: self.reason.clone(),
        };
        serde_json::to_vec(&order).expect("an order is JSON").into()
    }
}

/// Carries an order out wherever the target is connected, and returns how many live connections it reached.
pub(crate) async fn carry_out(
    router: &Router,
    target: Option<Target>,
    command: &Command,
) -> Result<usize, Refusal> {
    router.check(&command.namespace)?;
    router.view.catch_up().await?;
    let sids: Vec<Sid> = match target {
        None => Vec::new(),
        Some(Target::User(user)) => {
            let table = router.view.table();
            table
                .of_user(&command.namespace, &user)
                .map(|(sid, _)| sid)
                .collect()
        }
        Some(Target::Session(sid)) => vec![sid],
    };
    let is_own = |sid: &Sid| command.room == Some(Room::of_session(*sid));
    if command.kind == OrderKind::Leave && sids.iter().any(is_own) {
        return Err(Refusal::wrong(
            "reserved_room",
            "a connection cannot leave its own session room",
        ));
    }
    let mut orders = futures_util::stream::iter(sids)
        .map(|sid| one(router, sid, command))
        .buffer_unordered(AT_ONCE);
    let (mut reached, mut failed) = (0, None);
    while let Some(outcome) = orders.next().await {
        match outcome {
            Ok(live) => reached += usize::from(live),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(reached), Err)
}

/// Carries an order out on one session; returns whether that was live.
async fn one(router: &Router, sid: Sid, command: &Command) -> Result<bool, Refusal> {
    let mut unreachable = None;
    for attempt in 0..ATTEMPTS {
        let Some(entry) = router.records.get(sid.as_str()).await? else {
            return Ok(false);
        };
        let record: Record =
            serde_json::from_slice(&entry.value).map_err(|error| Refusal::failed(error.to_string()))?;
        if record.namespace != command.namespace || record.state == State::Ended {
            return Ok(false);
        }
        if let Some(room) = &command.room
            && command.kind == OrderKind::Leave
            && !record.heard(sid).any(|heard| heard == *room)
        {
            return Ok(false);
        }
        let is_live = record.state == State::Live && unreachable != Some((record.owner, record.term));
        if is_live {
            match deliver(router, record.owner, sid, command).await? {
                Delivery::Done => return Ok(true),
                // Nobody listens there, and not for a moment only: the session is away, though not marked yet.
                Delivery::NoEdge if attempt >= ATTEMPTS / 2 => {
                    unreachable = Some((record.owner, record.term))
                }
                // The record says more in a moment: the session has just moved, gone, or come.
                Delivery::NoEdge | Delivery::NotThere => {
                    tokio::time::sleep(Duration::from_millis(20 << attempt.min(5))).await;
                }
            }
            continue;
        }
        match change(router, sid, record, entry.revision, command).await {
            Ok(()) => return Ok(false),
            Err(TableError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::away(format!(
        "the edge of session {sid} does not carry the order out"
    )))
}

enum Delivery {
    Done,
    NotThere,
    NoEdge,
}

async fn deliver(router: &Router, edge: EdgeId, sid: Sid, command: &Command) -> Result<Delivery, Refusal> {
    let subject = format!("{}.order", router.bus.subjects().edge(edge));
    match router
        .bus
        .request(&subject, &Headers::new(), command.order(sid), PATIENCE)
        .await
    {
        Ok(answer) => match serde_json::from_slice::<Ordered>(&answer.body) {
            Ok(Ordered { done: true }) => Ok(Delivery::Done),
            Ok(Ordered { done: false }) => Ok(Delivery::NotThere),
            Err(error) => Err(Refusal::failed(format!(
                "unreadable answer of edge {edge}: {error}"
            ))),
        },
        Err(RequestError::NoResponders) => Ok(Delivery::NoEdge),
        Err(RequestError::Timeout) => Err(Refusal::away(format!("edge {edge} does not answer"))),
        Err(RequestError::Away) => Err(Refusal::away("NATS is away")),
    }
}

/// Changes the record of a session without an edge.
async fn change(
    router: &Router,
    sid: Sid,
    mut record: Record,
    revision: u64,
    command: &Command,
) -> Result<(), TableError> {
    let Some(room) = &command.room else {
        return expiry::end(router, sid, record, revision).await;
    };
    let before = record.clone();
    match command.kind {
        OrderKind::Join => join(&mut record, sid, room),
        OrderKind::Leave => record.leave(room),
        OrderKind::Disconnect => {}
    }
    if record == before {
        return Ok(());
    }
    record.note_moves(&before, sid);
    let value = serde_json::to_vec(&record).expect("a record is JSON");
    router
        .records
        .update(sid.as_str(), value.into(), revision, None)
        .await
        .map(|_| ())
}

fn is_automatic(record: &Record, sid: Sid, room: &Room) -> bool {
    let personal = record
        .user
        .as_deref()
        .is_some_and(|user| room.user() == Some(user));
    personal || *room == Room::all() || *room == Room::of_session(sid) || record.automatic.contains(room)
}

fn join(record: &mut Record, sid: Sid, room: &Room) {
    record.left.retain(|left| left != room);
    if is_automatic(record, sid, room) {
        return;
    }
    // Joined at 0: the client hears what came to the room since its own offset.
    record.rooms.entry(room.clone()).or_insert(0);
    if !record.ordered.contains(room) {
        record.ordered.push(room.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use carillon_protocol::session::Transport;

    use super::*;

    #[test]
    fn leaving_and_joining_again_leaves_no_trace() {
        let sid = Sid::from_random([1; 20]);
        let record = Record {
            owner: EdgeId::from_random([2; 10]),
            term: 1,
            state: State::Away,
            user: Some("42".into()),
            namespace: Namespace::main(),
            transport: Transport::Ws,
            rooms: BTreeMap::new(),
            ordered: Vec::new(),
            automatic: vec![Room::new("team").unwrap()],
            left: Vec::new(),
            stays: None,
            epoch: 1,
            start: 1,
            since: 1,
            gone: Some(2),
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: false,
        };
        for name in ["all", "user:42", "team", "chat"] {
            let room = Room::new(name).unwrap();
            let mut changed = record.clone();
            join(&mut changed, sid, &room);
            assert!(changed.heard(sid).any(|heard| heard == room), "{name}");
            changed.leave(&room);
            assert!(!changed.heard(sid).any(|heard| heard == room), "{name}");
            join(&mut changed, sid, &room);
            changed.leave(&room);
            join(&mut changed, sid, &room);
            assert_eq!(changed.left, record.left, "{name}");
            assert!(changed.ordered.iter().eq(changed.rooms.keys()), "{name}");
        }
        let own = Room::of_session(sid);
        let mut changed = record.clone();
        changed.leave(&own);
        assert_eq!(changed, record);
    }
}
