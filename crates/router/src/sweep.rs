//! Sessions of dead edges: marked away, and their `$disconnect` told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{StoreError, TableError, history};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::Sid;
use carillon_protocol::session::{Record, State};
use carillon_protocol::token;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::Instant;

use crate::leases::Dead;
use crate::metrics;
use crate::router::Router;

/// How often dead edges are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How much longer a replica waits for an edge that falls to another one, which may have died as well.
const OTHERS: Duration = Duration::from_millis(1500);
/// Records that are written at once.
const AT_ONCE: usize = 64;
/// Records that one round takes of an edge.
const ROUND: usize = 1024;

/// Why a session was not marked.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("lifecycle event: {0}")]
    Lifecycle(#[from] StoreError),
    #[error("unreadable record: {0}")]
    Record(#[from] serde_json::Error),
}

/// Sweeps after dead edges.
pub(crate) async fn run(router: Arc<Router>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What one round leaves of an edge does not wait for the next tick.
        while round(&router).await {}
    }
}

/// Takes some sessions of each dead edge; returns whether there are more to be had at once.
///
/// Each round finds out anew who is dead, so an edge that dies or comes back meanwhile is not overlooked.
async fn round(router: &Router) -> bool {
    if !router.view.is_loaded() {
        return false;
    }
    let owners: Vec<_> = router.view.table().owners().collect();
    let now = Instant::now();
    metrics::totals(router.view.table().totals(), router.leases.edges(now));
    let (own, others): (Vec<_>, Vec<_>) = owners
        .iter()
        .copied()
        .partition(|edge| router.leases.is_mine(edge.as_str(), now));
    router.leases.notice(&owners, now, history::now());
    let mut dead = router.leases.dead(&own, Duration::ZERO, now);
    dead.extend(router.leases.dead(&others, OTHERS, now));
    router.leases.forget(&owners, now);
    let mut more = false;
    for dead in dead {
        more |= sweep(router, dead).await;
    }
    more
}

async fn sweep(router: &Router, dead: Dead) -> bool {
    let sids = router.view.table().owned(dead.edge, ROUND);
    tracing::info!(edge = %dead.edge, sessions = sids.len(), "edge is dead");
    let is_full = sids.len() == ROUND;
    let marks =
        futures_util::stream::iter(sids).map(|sid| async move { (sid, mark(router, dead, sid).await) });
    let mut marks = marks.buffer_unordered(AT_ONCE);
    let mut marked = 0;
    while let Some((sid, outcome)) = marks.next().await {
        match outcome {
            Ok(true) => {
                metrics::swept();
                marked += 1;
            }
            Ok(false) => {}
            Err(error) => {
                // The next tick tries again, once there is contact.
                tracing::warn!(%sid, %error, "session of a dead edge is not marked yet");
                return false;
            }
        }
    }
    // What was written comes back by the watch; the next round must not take it for live.
    router.view.catch_up().await.is_ok() && is_full && marked > 0
}

/// Marks a session away unless another edge has it by now.
async fn mark(router: &Router, dead: Dead, sid: Sid) -> Result<bool, SweepError> {
    loop {
        let Some(entry) = router.records.get(sid.as_str()).await? else {
            return Ok(false);
        };
        let mut record: Record = serde_json::from_slice(&entry.value)?;
        if record.owner != dead.edge || record.state != State::Live {
            return Ok(false);
        }
        let gone = dead.gone.max(record.since);
        if record.lifecycle {
            tell(router, sid, &record, gone).await?;
        }
        (record.state, record.gone, record.complete) = (State::Away, Some(gone), None);
        let value = serde_json::to_vec(&record).expect("a record is JSON");
        match router
            .records
            .update(sid.as_str(), value.into(), entry.revision, None)
            .await
        {
            Ok(_) => return Ok(true),
            Err(TableError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Serialize)]
struct Disconnect<'a> {
    event: &'static str,
    data: Reason,
    user: User<'a>,
    sid: Sid,
    namespace: &'a str,
    ts: u64,
    term: u64,
}

#[derive(Serialize)]
struct Reason {
    reason: &'static str,
    term: u64,
}

/// The claims are known to edges alone.
#[derive(Serialize)]
struct User<'a> {
    id: Option<&'a str>,
    claims: serde_json::Map<String, serde_json::Value>,
}

/// Tells that the transport of a session is gone; the edge would have used the same id.
async fn tell(router: &Router, sid: Sid, record: &Record, gone: u64) -> Result<(), StoreError> {
    const EVENT: &str = "$disconnect";
    let prefix = router.bus.subjects().prefix();
    let subject = format!(
        "{prefix}.lifecycle.{}.{}",
        record.namespace.token(),
        token::encode(EVENT)
    );
    let headers = Headers::new().with(name::MSG_ID, format!("{sid}.{}.disconnect", record.term));
    let body = Disconnect {
        event: EVENT,
        data: Reason {
            reason: "transport close",
            term: record.term,
        },
        user: User {
            id: record.user.as_deref(),
            claims: serde_json::Map::new(),
        },
        sid,
        namespace: record.namespace.as_str(),
        ts: gone,
        term: record.term,
    };
    let body = Bytes::from(serde_json::to_vec(&body).expect("strings are JSON"));
    router.bus.store(&subject, &headers, body).await.map(|_| ())
}
