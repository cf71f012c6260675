//! The way of durable events: one owner for each partition of INGEST, which stores them in order.

mod aside;
mod doubts;
mod owner;
mod queue;
pub(crate) mod store;
pub(crate) mod tails;
mod voyage;

use std::sync::Arc;

use carillon_bus::{Bus, Lease, Streams};
use tokio_util::sync::CancellationToken;

use crate::check::Checker;
use crate::metrics;
use owner::Owner;
use store::Store;

/// Atomic batches of one stream that the server bears at a time, less a margin for a former owner's.
const BATCHES: usize = 40;

/// One partition, owned by this publisher or watched for its owner's end.
pub(crate) struct Partition {
    pub(crate) index: u32,
    pub(crate) bus: Bus,
    pub(crate) streams: Arc<Streams>,
    pub(crate) checker: Checker,
    /// Names this process.
    pub(crate) holder: Arc<str>,
    pub(crate) lease: std::time::Duration,
}

impl Partition {
    /// Owns the partition whenever its lease is free, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let name = format!("publisher.{}", self.index);
        let partitions = usize::try_from(self.streams.partitions)
            .unwrap_or(usize::MAX)
            .max(1);
        loop {
            let acquired = Lease::acquire(&self.bus, &name, &self.holder, self.lease);
            let Some(lease) = shutdown.run_until_cancelled(acquired).await else {
                return;
            };
            metrics::lease(self.index, true);
            tracing::info!(
                partition = self.index,
                term = lease.term(),
                "partition taken over"
            );
            let store = Store::new(self.bus.clone(), BATCHES / partitions);
            let owner = Owner::new(&self, store, lease.term());
            tokio::select! {
                () = owner.run(&shutdown) => {}
                () = lease.lost() => {}
            }
            metrics::lease(self.index, false);
            tracing::info!(partition = self.index, "partition given up");
            lease.release().await;
            if shutdown.is_cancelled() {
                return;
            }
        }
    }
}
