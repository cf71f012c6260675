//! Whether deliveries can be trusted: after a break of the link every room is compared with its stream, and once
//! in a while anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carillon_bus::HistoryError;
use carillon_protocol::names::Room;
use tokio::sync::Notify;

use crate::delivery::session_cell;
use crate::history::PAGE;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::room::Cell;

/// How often the watermark is raised by a probe.
const PROBE: Duration = Duration::from_secs(5);
/// Every room is checked once in so many probes.
const CHECK_EVERY: u64 = 12;
/// A probe that takes longer means that deliveries may be missing.
const LATE: Duration = Duration::from_secs(3);
/// Where JetStream tells that a stream has a new leader: what the old one stored last may never have been delivered.
const ELECTED: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED";

/// Whether the deliveries of a namespace can be trusted, and what wakes the task that sees to it.
pub(crate) struct Trust {
    /// The link broke, and the rooms are not verified since.
    broken: AtomicBool,
    unverified: Notify,
    doubtful: Notify,
}

impl Trust {
    /// Begins broken: the first connection is a break as well.
    pub(crate) fn new() -> Self {
        Self {
            broken: AtomicBool::new(true),
            unverified: Notify::new(),
            doubtful: Notify::new(),
        }
    }

    /// A publisher is in doubt about deliveries.
    pub(crate) fn doubt(&self) {
        self.doubtful.notify_one();
    }
}

impl Hub {
    /// The link broke: nothing durable is delivered until every room is verified.
    pub(crate) fn link_broke(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        for namespace in self.namespaces() {
            if !namespace.trust.broken.swap(true, Ordering::SeqCst) {
                tracing::warn!(namespace = %namespace.name, "deliveries are held until every room is verified");
                namespace.hold();
            }
        }
        let hold = || self.readiness.hold("resynchronising");
        self.unsynchronised.lock().get_or_insert_with(hold);
    }

    /// The link stands again.
    pub(crate) fn link_stands(&self) {
        for namespace in self.namespaces() {
            namespace.trust.unverified.notify_one();
        }
    }

    /// Every room of a namespace was compared with its stream since the link stood, in its generation then.
    fn is_verified(&self, namespace: &Namespace, generation: u64) {
        // A break since then brings another verification.
        let state = *self.link().state().borrow();
        let same = state.connected && state.generation == generation;
        if same && namespace.trust.broken.swap(false, Ordering::SeqCst) {
            namespace.release();
            tracing::info!(namespace = %namespace.name, "deliveries are verified");
        }
        let mut gate = self.unsynchronised.lock();
        let broken = |namespace: &Arc<Namespace>| namespace.trust.broken.load(Ordering::SeqCst);
        if !self.namespaces().iter().any(broken) {
            gate.take();
        }
    }

    /// Returns the generation of the link once it stands: it is said to before its state says so. `None` when the edge
    /// stops.
    async fn standing_link(&self) -> Option<u64> {
        let mut state = self.link().state();
        let stands = state.wait_for(|state| state.connected);
        let stands = self.stop.run_until_cancelled(stands).await?.ok()?;
        Some(stands.generation)
    }

    /// Verifies a namespace after every break, and raises its watermark in between, until the edge stops. Each has a task
    /// of its own, since its stream may be away while others are not.
    pub(crate) async fn verify_deliveries(self: Arc<Self>, namespace: Arc<Namespace>) {
        let elected = format!("{ELECTED}.{}", namespace.stream.name);
        let mut elections = self.bus.subscribe(&elected, None).await.ok();
        let mut tick = tokio::time::interval(PROBE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        loop {
            let election = async {
                match &mut elections {
                    Some(elections) => elections.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = namespace.trust.unverified.notified() => {
                    let Some(generation) = self.standing_link().await else { return };
                    self.verify(&namespace).await;
                    self.is_verified(&namespace, generation);
                }
                () = namespace.trust.doubtful.notified() => self.look_at_doubts(&namespace).await,
                election = election => match election {
                    Some(_) => self.verify(&namespace).await,
                    None => elections = self.bus.subscribe(&elected, None).await.ok(),
                },
                _ = tick.tick() => {
                    ticks += 1;
                    self.raise_watermark(&namespace, ticks.is_multiple_of(CHECK_EVERY)).await;
                }
            }
        }
    }

    async fn raise_watermark(self: &Arc<Self>, namespace: &Arc<Namespace>, check: bool) {
        if !self.link().state().borrow().connected {
            return;
        }
        let sent = tokio::time::Instant::now();
        let sequence = namespace.pass_barrier(self, None).await;
        if check || sent.elapsed() > LATE {
            self.verify(namespace).await;
        } else if !namespace.is_held() {
            namespace.raise_watermark(sequence);
        }
    }

    /// Compares every room with its stream, and repairs what differs.
    async fn verify(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        loop {
            let sequence = namespace.pass_barrier(self, None).await;
            match self.compare(namespace, sequence).await {
                Ok(()) => {
                    namespace.raise_watermark(sequence);
                    self.write_findings(namespace, sequence).await;
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, namespace = %namespace.name, "rooms cannot be verified yet");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(200)) => {}
                    }
                }
            }
        }
    }

    async fn compare(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        at_least: u64,
    ) -> Result<(), HistoryError> {
        self.find_session_rooms(namespace, at_least).await?;
        let cells = namespace.rooms.all();
        let lasts = self.lasts(namespace, &cells, at_least).await?;
        for cell in cells {
            let Some(&last) = lasts.get(&cell.room) else {
                continue;
            };
            let mut state = cell.state.lock();
            if state.recent.as_ref().is_some_and(|recent| recent.is_old()) {
                state.recent = None;
            }
            let missing = state
                .complete
                .is_some_and(|complete| last > complete && last <= at_least);
            if missing {
                self.repair(namespace, &cell, &mut state, last);
            }
        }
        self.catch_up_with_doubts(namespace, at_least).await
    }

    /// Makes a cell for each `session:` room that something came to since deliveries were trusted: one that nothing was
    /// delivered to has none, and could not be compared.
    async fn find_session_rooms(&self, namespace: &Arc<Namespace>, up_to: u64) -> Result<(), HistoryError> {
        let subjects = self.bus.subjects();
        let rooms = subjects.session_events(&namespace.name);
        let mut after = namespace.watermark();
        // Before the first verification nobody is here.
        while after > 0 && after < up_to {
            let stream = &namespace.stream.name;
            let page = self.bus.read(stream, &rooms, after, up_to, PAGE).await?;
            for message in &page.messages {
                if let Ok(address) = subjects.read_classed("event", &message.subject) {
                    session_cell(namespace, &address.room);
                }
            }
            after = page.reached;
        }
        Ok(())
    }

    /// Returns the last sequence of each room that has one, read at or behind a sequence.
    pub(crate) async fn lasts(
        &self,
        namespace: &Namespace,
        cells: &[Arc<Cell>],
        at_least: u64,
    ) -> Result<HashMap<Room, u64>, HistoryError> {
        let subjects = self.bus.subjects();
        let probe = subjects.probe(&namespace.name, self.id);
        let mut found = HashMap::new();
        // One place of each request is for the probe, without which an empty answer would tell nothing.
        for cells in cells.chunks(1000) {
            let mut asked: Vec<String> = cells
                .iter()
                .map(|cell| subjects.event(&namespace.name, &cell.room))
                .collect();
            asked.push(probe.clone());
            let lasts = self.bus.last(&namespace.stream.name, &asked, at_least).await?;
            found.extend(lasts.iter().filter_map(|last| {
                let address = subjects.read_classed("event", &last.subject).ok()?;
                Some((address.room, last.sequence))
            }));
        }
        Ok(found)
    }
}
