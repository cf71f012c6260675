//! The record of a session in the bucket SESSIONS, as its owner keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carillon_bus::{Bucket, Table, TableError};
use carillon_protocol::doubt::Lack;
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::session::{Record, State};
use tokio::sync::Mutex;

use crate::client::Closing;
use crate::hub::Hub;
use crate::session::Session;

/// How long a write is tried again while NATS is away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an ended record is kept, so that late readers learn of the end.
pub(crate) const ENDED_TTL: Duration = Duration::from_secs(60);

/// Keeps the record of one session: every write is a compare-and-set.
pub(crate) struct Keeper {
    sid: Sid,
    start: u64,
    /// Milliseconds since 1970 at which the client had gone before this edge took the session over, or 0.
    away_since: u64,
    term: AtomicU64,
    /// The record may be in the bucket: a write was begun at least.
    tried: AtomicBool,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    record: Record,
    revision: u64,
}

/// How a session stands when its transport is gone.
pub(crate) struct Last {
    pub(crate) state: State,
    /// Milliseconds since 1970.
    pub(crate) gone: u64,
    pub(crate) complete: Option<u64>,
    pub(crate) late: Vec<Lack>,
}

/// Why a record was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("another edge owns the session")]
    Fenced,
    #[error("NATS is away")]
    Away,
}

impl Keeper {
    /// Keeps a record that is not written yet, or that was read at a revision.
    pub(crate) fn new(sid: Sid, record: Record, revision: u64) -> Self {
        let (start, term) = (record.start, record.term);
        Self {
            sid,
            start,
            away_since: 0,
            term: AtomicU64::new(term),
            tried: AtomicBool::new(revision > 0),
            kept: Mutex::new(Some(Kept { record, revision })),
        }
    }

    /// Notes when the client had gone, of a session that was taken over.
    #[must_use]
    pub(crate) fn away_since(mut self, gone: Option<u64>) -> Self {
        self.away_since = gone.unwrap_or(0);
        self
    }

    /// Returns when the client had gone before this edge took the session over.
    pub(crate) fn gone_before(&self) -> Option<u64> {
        (self.away_since > 0).then_some(self.away_since)
    }

    /// Returns the sequence at which the session began.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the term, which rises with every takeover, and when the session comes back to this edge.
    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Returns the record with its revision; `None` where it is being written, or not this edge's any more.
    pub(crate) fn snapshot(&self) -> Option<(Record, u64)> {
        let kept = self.kept.try_lock().ok()?;
        kept.as_ref().map(|kept| (kept.record.clone(), kept.revision))
    }

    /// Returns whether the session is in a room from the start, unless it has left it.
    pub(crate) async fn is_automatic(&self, room: &Room) -> bool {
        let kept = self.kept.lock().await;
        kept.as_ref().is_some_and(|kept| kept.record.is_automatic(room))
    }

    /// Changes the record and writes it.
    pub(crate) async fn change(&self, hub: &Hub, change: impl Fn(&mut Record)) -> Result<(), RecordError> {
        let mut kept = self.kept.lock().await;
        let kept = kept.as_mut().ok_or(RecordError::Fenced)?;
        let written = self.write(hub, kept, &change, None);
        tokio::time::timeout(PATIENCE, written)
            .await
            .unwrap_or(Err(RecordError::Away))
    }

    /// Writes the record for the last time, since the transport is gone; tries until the edge stops.
    pub(crate) async fn finish(&self, hub: &Hub, last: Last) -> Result<(), RecordError> {
        let _turn = hub.last_records.acquire().await;
        let Some(mut kept) = self.kept.lock().await.take() else {
            return Err(RecordError::Fenced);
        };
        let change = |record: &mut Record| {
            record.state = last.state;
            record.gone = Some(last.gone);
            record.complete = last.complete;
            record.late.clone_from(&last.late);
        };
        let ttl = (last.state == State::Ended).then_some(ENDED_TTL);
        self.write(hub, &mut kept, &change, ttl).await
    }

    /// Takes the record away from its session, to be written for the last time; `None` where it never was.
    pub(crate) fn detach(&self) -> Option<Self> {
        let tried = self.tried.load(Ordering::Acquire);
        let kept = self.kept.try_lock().ok()?.take_if(|_| tried)?;
        Some(Self {
            sid: self.sid,
            start: self.start,
            away_since: self.away_since,
            term: AtomicU64::new(self.term()),
            tried: AtomicBool::new(tried),
            kept: Mutex::new(Some(kept)),
        })
    }

    /// Gives the record up: another edge has taken the session over.
    pub(crate) async fn give_up(&self) {
        self.kept.lock().await.take();
    }

    /// Writes the record as it is changed, and keeps it so once that is done.
    async fn write(
        &self,
        hub: &Hub,
        kept: &mut Kept,
        change: &impl Fn(&mut Record),
        ttl: Option<Duration>,
    ) -> Result<(), RecordError> {
        let table = hub.bus.table(Bucket::Sessions);
        let session = hub.session_of(self, &kept.record);
        while !hub.stop.is_cancelled() {
            let mut record = kept.record.clone();
            // A router took the edge for dead and told `$disconnect`: what goes on has a term of its own.
            if record.state != State::Live && session.is_some() {
                record.term += 1;
            }
            record.state = State::Live;
            record.gone = None;
            change(&mut record);
            record.note_moves(&kept.record, self.sid);
            self.tried.store(true, Ordering::Release);
            match put(&table, self.sid, &record, kept.revision, ttl).await {
                Ok(revision) => {
                    let before = self.term.swap(record.term, Ordering::AcqRel);
                    if let Some(session) = session.filter(|_| before < record.term) {
                        hub.tell_return(&session);
                    }
                    (kept.record, kept.revision) = (record, revision);
                    return Ok(());
                }
                Err(TableError::Conflict) => match read(&table, self.sid).await {
                    // An order or a sweep changed it, or an acknowledgement was lost; it is still ours.
                    Ok(Some((found, revision)))
                        if found.owner == hub.id && [kept.record.term, record.term].contains(&found.term) =>
                    {
                        (kept.record, kept.revision) = (found, revision);
                        continue;
                    }
                    Ok(_) => return Err(RecordError::Fenced),
                    Err(_) => {}
                },
                Err(error) => tracing::debug!(%error, sid = %self.sid, "record cannot be written yet"),
            }
            tokio::time::sleep(Duration::from_millis(100).mul_f64(0.5 + fastrand::f64())).await;
        }
        Err(RecordError::Away)
    }

    /// Checks that the session is still this edge's, and closes it otherwise.
    pub(crate) async fn confirm(&self, hub: &Hub, session: &Arc<Session>) {
        if self.change(hub, |_| {}).await.is_err() {
            session.fence();
        }
    }
}

impl Hub {
    /// Returns the session whose record is kept, unless it is about to end.
    fn session_of(&self, keeper: &Keeper, record: &Record) -> Option<Arc<Session>> {
        let session = self.namespace(record.namespace.as_str())?.session(keeper.sid)?;
        std::ptr::eq(&session.keeper, keeper).then_some(session)
    }
}

impl Session {
    /// Another edge owns the session: the transport is closed, and the record is not touched any more.
    pub(crate) fn fence(&self) {
        self.client.close(Closing {
            code: 1012,
            reason: "the session went on elsewhere".to_owned(),
            flush: false,
        });
    }
}

/// Reads a record with its revision; one that cannot be read is none.
pub(crate) async fn read(table: &Table, sid: Sid) -> Result<Option<(Record, u64)>, TableError> {
    let entry = table.get(sid.as_str()).await?;
    Ok(entry.and_then(|entry| Some((serde_json::from_slice(&entry.value).ok()?, entry.revision))))
}

/// Writes a record over a revision; 0 creates it.
pub(crate) async fn put(
    table: &Table,
    sid: Sid,
    record: &Record,
    revision: u64,
    ttl: Option<Duration>,
) -> Result<u64, TableError> {
    let value = serde_json::to_vec(record).expect("a record is JSON").into();
    match revision {
        0 => table.create(sid.as_str(), value, ttl).await,
        revision => table.update(sid.as_str(), value, revision, ttl).await,
    }
}

#[cfg(test)]
mod tests {
    use carillon_protocol::ids::EdgeId;
    use carillon_protocol::names::Namespace;
    use carillon_protocol::session::Transport;

    use super::*;

    fn record() -> Record {
        Record {
            owner: EdgeId::from_random([1; EdgeId::LEN]),
            term: 1,
            state: State::Live,
            user: None,
            namespace: Namespace::main(),
            transport: Transport::Ws,
            rooms: [].into(),
            ordered: Vec::new(),
            automatic: Vec::new(),
            left: Vec::new(),
            stays: None,
            epoch: 1,
            start: 2,
            since: 3,
            gone: None,
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: false,
        }
    }

    #[test]
    fn only_a_record_that_may_be_in_the_bucket_is_written_for_the_last_time() {
        let sid = Sid::from_random([1; Sid::LEN]);
        assert!(Keeper::new(sid, record(), 0).detach().is_none());
        let keeper = Keeper::new(sid, record(), 5);
        assert!(keeper.detach().is_some());
        assert!(keeper.detach().is_none() && keeper.snapshot().is_none());
    }
}
