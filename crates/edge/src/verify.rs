//! Whether deliveries can be trusted: after a break of the link every room is compared with its stream, and once
//! in a while anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{HistoryError, Message};
use carillon_protocol::names::{self, Room};
use futures_util::FutureExt;
use serde::Deserialize;

use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::room::Cell;
use crate::trouble::Finding;

/// How often the watermark is raised by a probe.
const PROBE: Duration = Duration::from_secs(5);
/// Every room is checked once in so many probes.
const CHECK_EVERY: u64 = 12;
/// A probe that takes longer means that deliveries may be missing.
const LATE: Duration = Duration::from_secs(3);

/// Most words of publishers that are taken for one check.
const MOST_DOUBTS: usize = 1000;

/// A publisher's word that deliveries of these rooms after a sequence may have been missed.
#[derive(Deserialize)]
struct Doubt {
    from: u64,
    namespace: names::Namespace,
    rooms: Vec<Room>,
}

impl Hub {
    /// The link broke: nothing durable is delivered until every room is verified.
    pub(crate) fn link_broke(&self) {
        if !self.stop.is_cancelled() && !self.broken.swap(true, Ordering::SeqCst) {
            tracing::warn!("deliveries are held until the link stands and every room is verified");
            *self.unsynchronised.lock() = Some(self.readiness.hold("resynchronising"));
            for namespace in self.namespaces() {
                namespace.hold();
            }
        }
    }

    /// The link stands again.
    pub(crate) fn link_stands(&self) {
        self.unverified.notify_one();
    }

    /// Every room was compared with its stream since the link stood.
    fn link_is_verified(&self) {
        // A break since then brings another verification.
        if self.link().state().borrow().connected && self.broken.swap(false, Ordering::SeqCst) {
            for namespace in self.namespaces() {
                namespace.release();
            }
            self.unsynchronised.lock().take();
            tracing::info!("deliveries are verified");
        }
    }

    /// Verifies after every break, and raises the watermark in between, until the edge stops.
    pub(crate) async fn verify_deliveries(self: Arc<Self>) {
        // The first connection is a break as well: the namespaces are held from the start.
        let subject = self.bus.subjects().all("sync");
        let mut orders = self.bus.subscribe(&subject, None).await.ok();
        let mut tick = tokio::time::interval(PROBE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        loop {
            let order = async {
                match &mut orders {
                    Some(orders) => orders.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.unverified.notified() => {
                    for namespace in self.namespaces() {
                        self.verify(namespace).await;
                    }
                    self.link_is_verified();
                }
                order = order => match order {
                    Some(order) => {
                        let mut doubts = vec![order];
                        // A restart of NATS brings many at once: they are one check.
                        while doubts.len() < MOST_DOUBTS
                            && let Some(Some(next)) = orders.as_mut().and_then(|orders| orders.next().now_or_never())
                        {
                            doubts.push(next);
                        }
                        self.check_after(doubts).await;
                    }
                    None => orders = self.bus.subscribe(&subject, None).await.ok(),
                },
                _ = tick.tick() => {
                    ticks += 1;
                    self.raise_watermarks(ticks.is_multiple_of(CHECK_EVERY)).await;
                }
            }
        }
    }

    async fn raise_watermarks(self: &Arc<Self>, check: bool) {
        if !self.link().state().borrow().connected {
            return;
        }
        for namespace in self.namespaces() {
            let sent = tokio::time::Instant::now();
            let sequence = namespace.pass_barrier(self, None).await;
            if check || sent.elapsed() > LATE {
                self.verify(namespace).await;
            } else if !namespace.is_held() {
                namespace.raise_watermark(sequence);
            }
        }
    }

    /// Checks the rooms that publishers are in doubt about; those of which nobody is here cost nothing.
    async fn check_after(self: &Arc<Self>, doubts: Vec<Message>) {
        let mut rooms: BTreeMap<names::Namespace, BTreeMap<Room, u64>> = BTreeMap::new();
        for doubt in doubts {
            let Ok(doubt) = serde_json::from_slice::<Doubt>(&doubt.body) else {
                continue;
            };
            let known = rooms.entry(doubt.namespace).or_default();
            for room in doubt.rooms {
                let from = known.entry(room).or_insert(doubt.from);
                *from = doubt.from.min(*from);
            }
        }
        for (namespace, rooms) in rooms {
            if let Some(namespace) = self.namespace(namespace.as_str()) {
                self.check_rooms(namespace, rooms).await;
            }
        }
    }

    async fn check_rooms(self: &Arc<Self>, namespace: &Arc<Namespace>, mut rooms: BTreeMap<Room, u64>) {
        let mut cells = Vec::new();
        rooms.retain(|room, _| {
            let cell = namespace.rooms.find(room);
            cells.extend(cell.clone());
            cell.is_some()
        });
        if cells.is_empty() {
            return;
        }
        // What comes after a break of the link waits until all rooms are verified, which is this task's work too.
        let held = self.broken.load(Ordering::SeqCst);
        let until = namespace.pass_barrier(self, None).await;
        let missed = self.compare(namespace, &cells, until).await;
        if let Err(error) = &missed {
            tracing::debug!(%error, "rooms cannot be compared, the next check will");
        }
        let finding = Finding {
            edge: self.id,
            clean: held || missed == Ok(0),
            rooms,
            until,
            at: now(),
        };
        self.record_trouble(namespace, finding).await;
    }

    /// Compares the last sequence of every room with what was delivered, and repairs what differs.
    async fn verify(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        loop {
            let sequence = namespace.pass_barrier(self, None).await;
            match self.compare(namespace, &namespace.rooms.all(), sequence).await {
                Ok(_) => {
                    namespace.raise_watermark(sequence);
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
        cells: &[Arc<Cell>],
        at_least: u64,
    ) -> Result<usize, HistoryError> {
        let mut rooms_with_gaps = 0;
        let subjects = self.bus.subjects();
        let probe = subjects.probe(&namespace.name, self.id);
        // One place of each request is for the probe, without which an empty answer would tell nothing.
        for cells in cells.chunks(1000) {
            let mut asked: Vec<String> = cells
                .iter()
                .map(|cell| subjects.event(&namespace.name, &cell.room))
                .collect();
            asked.push(probe.clone());
            let lasts = self.bus.last(&namespace.stream.name, &asked, at_least).await?;
            for last in lasts.iter().filter(|last| last.subject != probe) {
                let Ok(address) = subjects.read_classed("event", &last.subject) else {
                    continue;
                };
                let Some(cell) = namespace.rooms.find(&address.room) else {
                    continue;
                };
                let mut state = cell.state.lock();
                let missing = state
                    .complete
                    .is_some_and(|complete| last.sequence > complete && last.sequence <= at_least);
                if missing {
                    rooms_with_gaps += 1;
                    self.repair(namespace, &cell, &mut state, None, last.sequence);
                }
            }
        }
        Ok(rooms_with_gaps)
    }
}
