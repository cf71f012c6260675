//! Whether deliveries can be trusted: after a break of the link every room is compared with its stream, and once
//! in a while anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carillon_bus::HistoryError;
use carillon_protocol::names::{self, Room};
use serde::Deserialize;

use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::room::Cell;

/// How often the watermark is raised by a probe.
const PROBE: Duration = Duration::from_secs(5);
/// Every room is checked once in so many probes.
const CHECK_EVERY: u64 = 12;
/// A probe that takes longer means that deliveries may be missing.
const LATE: Duration = Duration::from_secs(3);

/// A publisher's word that deliveries of these rooms may have been missed.
#[derive(Deserialize)]
struct Doubt {
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
                        self.verify_after_trouble(namespace).await;
                    }
                    self.link_is_verified();
                }
                order = order => match order {
                    Some(order) => self.check_after(&order.body).await,
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

    /// Checks the rooms that a publisher is in doubt about; those of which nobody is here cost nothing.
    async fn check_after(self: &Arc<Self>, doubt: &[u8]) {
        let Ok(doubt) = serde_json::from_slice::<Doubt>(doubt) else { return };
        let Some(namespace) = self.namespace(doubt.namespace.as_str()) else { return };
        let cells: Vec<Arc<Cell>> = doubt.rooms.iter().filter_map(|room| namespace.rooms.find(room)).collect();
        if cells.is_empty() {
            return;
        }
        let from = namespace.watermark();
        let until = namespace.pass_barrier(self, None).await;
        if let Err(error) = self.compare(namespace, &cells, until).await {
            tracing::debug!(%error, "rooms cannot be compared, the next check will");
        }
        if from > 0 {
            self.record_trouble(namespace, from, until).await;
        }
    }

    /// Verifies, and records for others what may have been missed since everything was known to be complete.
    async fn verify_after_trouble(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        let from = namespace.watermark();
        self.verify(namespace).await;
        if from > 0 {
            self.record_trouble(namespace, from, namespace.watermark()).await;
        }
    }

    /// Compares the last sequence of every room with what was delivered, and repairs what differs.
    async fn verify(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        loop {
            let sequence = namespace.pass_barrier(self, None).await;
            match self.compare(namespace, &namespace.rooms.all(), sequence).await {
                Ok(()) => {
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
    ) -> Result<(), HistoryError> {
        let subjects = self.bus.subjects();
        let probe = subjects.probe(&namespace.name, self.id);
        // One place of each request is for the probe, without which an empty answer would tell nothing.
        for cells in cells.chunks(1000) {
            let mut asked: Vec<String> = cells.iter().map(|cell| subjects.event(&namespace.name, &cell.room)).collect();
            asked.push(probe.clone());
            let lasts = self.bus.last(&namespace.stream.name, &asked, at_least).await?;
            for last in lasts.iter().filter(|last| last.subject != probe) {
                let Ok(address) = subjects.read_classed("event", &last.subject) else { continue };
                let Some(cell) = namespace.rooms.find(&address.room) else { continue };
                let mut state = cell.state.lock();
                let missing = state.complete.is_some_and(|complete| last.sequence > complete && last.sequence <= at_least);
                if missing {
                    self.repair(namespace, &cell, &mut state, None, last.sequence);
                }
            }
        }
        Ok(())
    }
}
