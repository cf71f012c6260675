//! Sessions that were away for too long: ended, after what they missed was kept for their user.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{TableError, history};
use carillon_protocol::ids::Sid;
use carillon_protocol::session::{Record, State};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::metrics;
use crate::offline;
use crate::router::Router;

/// How often sessions are looked for whose time is over.
const LOOK: Duration = Duration::from_millis(200);
/// How long a replica leaves the sessions of another one to it.
const OTHERS: u64 = 3000;
/// Records that are written at once.
const AT_ONCE: usize = 32;
/// Sessions of one round.
const ROUND: usize = 1024;
/// How long a record says that its session has ended.
const ENDED_TTL: Duration = Duration::from_secs(60);

/// Ends sessions whose time away is over.
pub(crate) async fn run(router: Arc<Router>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !router.view.is_loaded() {
            continue;
        }
        let now = history::now();
        let due = router.view.table().due(now, ROUND);
        let mine = |(deadline, sid): &(u64, Sid)| {
            deadline.saturating_add(OTHERS) < now || router.leases.is_mine(sid.as_str(), Instant::now())
        };
        let due: Vec<Sid> = due.into_iter().filter(mine).map(|(_, sid)| sid).collect();
        if due.is_empty() {
            continue;
        }
        let endings = due.into_iter().map(|sid| {
            let router = &router;
            async move { (sid, expire(router, sid).await) }
        });
        let mut endings = futures_util::stream::iter(endings).buffer_unordered(AT_ONCE);
        while let Some((sid, outcome)) = endings.next().await {
            if let Err(error) = outcome {
                tracing::debug!(%sid, %error, "session is not ended yet");
            }
        }
        // What was written comes back by the watch, so that no session is ended twice.
        let _ = router.view.catch_up().await;
    }
}

/// Ends a session unless its client came back.
async fn expire(router: &Router, sid: Sid) -> Result<(), TableError> {
    let Some(entry) = router.records.get(sid.as_str()).await? else {
        return Ok(());
    };
    let Ok(record) = serde_json::from_slice::<Record>(&entry.value) else {
        return Ok(());
    };
    if record.state != State::Away {
        return Ok(());
    }
    match end(router, sid, record, entry.revision).await {
        // Somebody wrote the record meanwhile; the watch brings it.
        Err(TableError::Conflict) => Ok(()),
        outcome => outcome,
    }
}

/// Ends a session: first what it missed is kept, unless its user has come back, then the record says so.
///
/// A crash in between repeats the first part, which changes nothing.
pub(crate) async fn end(
    router: &Router,
    sid: Sid,
    mut record: Record,
    revision: u64,
) -> Result<(), TableError> {
    let gone = record.gone.unwrap_or_else(history::now);
    let outlived = match record.user.as_deref() {
        Some(user) => router.view.table().outlives(&record.namespace, user, sid, gone),
        None => true,
    };
    if !outlived {
        offline::keep_missed(router, sid, &record, gone)
            .await
            .map_err(|error| {
                tracing::warn!(%sid, %error, "missed events are not kept yet");
                TableError::Away
            })?;
    }
    (record.state, record.gone) = (State::Ended, Some(gone));
    let value = serde_json::to_vec(&record).expect("a record is JSON");
    router
        .records
        .update(sid.as_str(), value.into(), revision, Some(ENDED_TTL))
        .await?;
    metrics::ended();
    Ok(())
}
