//! The router's view: the bucket SESSIONS in memory, fed by one watch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bucket, Bus, Change, Table as BucketTable, history};
use carillon_protocol::ids::Sid;
use carillon_protocol::session::{Record, State};
use carillon_service::readiness::{Gate, Readiness};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::{mpsc, watch};

use crate::announce::{Announcer, Rules};
use crate::metrics;
use crate::table::{Session, Table};

/// How long a request waits for the view to catch up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the key stays that a view waits for.
const FENCE_TTL: Duration = Duration::from_secs(60);

/// The view does not know what the bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the view of the sessions is being loaded, or NATS is away")]
pub(crate) struct Behind;

/// How far the view is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    loaded: bool,
    /// The revision of the own fence that the watch brought last.
    fence: u64,
}

/// All sessions; cheap to clone.
#[derive(Clone)]
pub(crate) struct View {
    /// Guards the table; held for one change or one answer.
    table: Arc<RwLock<Table>>,
    position: Arc<watch::Sender<Position>>,
    fences: Arc<Fences>,
}

/// Requests that wait for the same fence share one write.
struct Fences {
    sessions: BucketTable,
    key: String,
    asked: mpsc::Sender<tokio::sync::oneshot::Sender<Result<u64, Behind>>>,
}

impl View {
    /// Makes an empty view; [`Self::follow`] fills it.
    pub(crate) fn new(bus: &Bus, router: &str, table: Table) -> (Self, Follower) {
        let (asked, waiting) = mpsc::channel(4096);
        let fences = Fences {
            sessions: bus.table(Bucket::Sessions),
            key: format!("fence.{router}"),
            asked,
        };
        let view = Self {
            table: Arc::new(RwLock::new(table)),
            position: Arc::new(watch::Sender::new(Position::default())),
            fences: Arc::new(fences),
        };
        (view.clone(), Follower { view, waiting })
    }

    /// Gives the table for a short look.
    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read()
    }

    /// Returns whether the view has what the bucket had, but for what is on its way.
    pub(crate) fn is_loaded(&self) -> bool {
        self.position.borrow().loaded
    }

    /// Waits until the view is loaded.
    pub(crate) async fn loaded(&self) {
        let _ = self
            .position
            .subscribe()
            .wait_for(|position| position.loaded)
            .await;
    }

    /// Waits until the view is not loaded any more.
    pub(crate) async fn lost(&self) {
        let _ = self
            .position
            .subscribe()
            .wait_for(|position| !position.loaded)
            .await;
    }

    /// Waits until the view has everything that was written before this call.
    pub(crate) async fn catch_up(&self) -> Result<(), Behind> {
        let fenced = async {
            let (answer, revision) = tokio::sync::oneshot::channel();
            self.fences.asked.send(answer).await.map_err(|_| Behind)?;
            let revision = revision.await.map_err(|_| Behind)??;
            let mut position = self.position.subscribe();
            position
                .wait_for(|position| position.loaded && position.fence >= revision)
                .await
                .map_err(|_| Behind)?;
            Ok(())
        };
        tokio::time::timeout(PATIENCE, fenced)
            .await
            .unwrap_or(Err(Behind))
    }
}

/// The tasks that keep a view up to date.
pub(crate) struct Follower {
    view: View,
    waiting: mpsc::Receiver<tokio::sync::oneshot::Sender<Result<u64, Behind>>>,
}

impl Follower {
    /// Follows the bucket, and writes fences for those who wait. `starting` is let go when it is loaded.
    pub(crate) async fn run(self, readiness: Readiness, starting: Gate, rules: Rules, announcer: Announcer) {
        let Self { view, waiting } = self;
        let fencing = write_fences(Arc::clone(&view.fences), waiting);
        tokio::join!(fencing, follow(view, readiness, starting, rules, announcer));
    }
}

async fn write_fences(
    fences: Arc<Fences>,
    mut waiting: mpsc::Receiver<tokio::sync::oneshot::Sender<Result<u64, Behind>>>,
) {
    let mut together = Vec::new();
    while waiting.recv_many(&mut together, 4096).await > 0 {
        let written = fences
            .sessions
            .put(&fences.key, Bytes::from_static(b"{}"), Some(FENCE_TTL))
            .await;
        let revision = written.map_err(|error| {
            tracing::debug!(%error, "fence cannot be written");
            Behind
        });
        for waiter in together.drain(..) {
            let _ = waiter.send(revision);
        }
    }
}

async fn follow(view: View, readiness: Readiness, starting: Gate, rules: Rules, announcer: Announcer) {
    let mut changes = view.fences.sessions.watch();
    let mut loading = Some(starting);
    // Until the view is loaded for the first time: what ended shortly before, which nobody may have told.
    let mut ended = Some(HashMap::new());
    loop {
        match changes.next().await {
            Change::Put { key, revision, value } => {
                if let Ok(sid) = key.parse::<Sid>() {
                    put(&view, sid, revision, &value, ended.as_mut(), &rules, &announcer);
                } else if key == view.fences.key {
                    view.position.send_modify(|position| position.fence = revision);
                }
            }
            Change::Gone { key, .. } => {
                let Ok(sid) = key.parse::<Sid>() else { continue };
                let mut table = view.table.write();
                if let Some(changed) = table.remove(sid) {
                    announcer.changed(&table, &rules, sid, changed.before.as_ref(), None);
                }
            }
            Change::Loaded => {
                let mut table = view.table.write();
                for (sid, session) in table.complete() {
                    announcer.changed(&table, &rules, sid, Some(&session), None);
                }
                if let Some(ended) = ended.take() {
                    announcer.recent(&table, &ended, &rules, history::now());
                }
                let totals = table.totals();
                drop(table);
                tracing::info!(
                    live = totals.live,
                    away = totals.away,
                    edges = totals.edges,
                    "sessions are loaded"
                );
                view.position.send_modify(|position| position.loaded = true);
                loading = None;
            }
            Change::Restarted => {
                metrics::watch_restarted("sessions");
                loading.get_or_insert_with(|| readiness.hold("sessions"));
                // A bucket made anew begins with revision 1 again, so no fence of before counts.
                view.position
                    .send_modify(|position| *position = Position::default());
                view.table.write().restart();
                if let Some(ended) = &mut ended {
                    ended.clear();
                }
            }
        }
    }
}

fn put(
    view: &View,
    sid: Sid,
    revision: u64,
    value: &[u8],
    ended: Option<&mut HashMap<Sid, Session>>,
    rules: &Rules,
    announcer: &Announcer,
) {
    let record = match serde_json::from_slice::<Record>(value) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(%sid, %error, "unreadable session record");
            return;
        }
    };
    if let Some(ended) = ended {
        if record.state == State::Ended && rules.has(&record.namespace) {
            ended.insert(sid, Session::of(sid, record.clone()));
        }
        view.table.write().put(sid, revision, record, history::now());
        return;
    }
    let mut table = view.table.write();
    let Some(changed) = table.put(sid, revision, record, history::now()) else {
        return;
    };
    let after = if changed.after { table.session(sid) } else { None };
    announcer.changed(&table, rules, sid, changed.before.as_ref(), after);
}
