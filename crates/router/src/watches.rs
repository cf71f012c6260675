//! What this router hears of others' leases, and its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bucket, Bus, Change, TableError, history};
use carillon_service::readiness::{Gate, Readiness};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::leases::Leases;
use crate::metrics;

/// The key in CLUSTER that says when some router was last known to run.
const ALIVE: &str = "router.alive";
/// How long a router waits at its start for the bucket to answer.
const START: Duration = Duration::from_secs(60);
/// How often a router tries to be heard until it is.
const EAGER: Duration = Duration::from_millis(200);
/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
struct Alive {
    /// Milliseconds since 1970.
    at: u64,
}

#[derive(Serialize)]
struct Renewal {
    renewal: u64,
}

/// Returns when some router was last known to run, in milliseconds since 1970; now if none ever was.
pub(crate) async fn last_alive(bus: &Bus) -> Result<u64, TableError> {
    let entry = bus.table(Bucket::Cluster).get_within(ALIVE, START).await?;
    let alive = entry.and_then(|entry| serde_json::from_slice::<Alive>(&entry.value).ok());
    Ok(alive.map_or_else(history::now, |alive| alive.at.min(history::now())))
}

/// Follows the bucket of the leases.
pub(crate) async fn follow_leases(bus: Bus, leases: Arc<Leases>) {
    let mut changes = bus.table(Bucket::Edges).watch();
    loop {
        match changes.next().await {
            Change::Put { key, .. } => leases.renewed(&key, Instant::now(), history::now()),
            Change::Gone { key, .. } => leases.gone(&key, Instant::now()),
            Change::Loaded => leases.loaded(Instant::now()),
            Change::Restarted => {
                metrics::watch_restarted("edges");
                leases.restarted();
            }
        }
    }
}

/// Renews this router's own lease.
pub(crate) async fn renew(bus: Bus, leases: Arc<Leases>, lease: Duration, period: Duration) {
    let (edges, cluster) = (bus.table(Bucket::Edges), bus.table(Bucket::Cluster));
    let key = leases.own().key();
    for renewal in 0.. {
        let value = Bytes::from(serde_json::to_vec(&Renewal { renewal }).expect("a number is JSON"));
        let alive = Bytes::from(serde_json::to_vec(&Alive { at: history::now() }).expect("a number is JSON"));
        let written = async {
            edges.put(&key, value, Some(lease)).await?;
            cluster.put(ALIVE, alive, None).await
        };
        match tokio::time::timeout(lease / 2, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "own lease is not renewed"),
            Err(_) => tracing::debug!("own lease is not renewed in time"),
        }
        let wait = if leases.in_contact(Instant::now()) {
            period
        } else {
            EAGER.min(period)
        };
        tokio::time::sleep(wait).await;
    }
}

/// Gives the own lease back, so that others take over at once.
pub(crate) async fn give_back(bus: &Bus, leases: &Leases) {
    if let Err(error) = bus.table(Bucket::Edges).delete(&leases.own().key(), None).await {
        tracing::debug!(%error, "own lease is not given back");
    }
}

/// Holds readiness back while the leases are not heard; `starting` is let go the first time they are.
pub(crate) async fn gate_leases(leases: Arc<Leases>, readiness: Readiness, starting: Gate) {
    let mut gate = Some(starting);
    loop {
        if leases.in_contact(Instant::now()) {
            gate = None;
        } else if gate.is_none() {
            gate = Some(readiness.hold("leases"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Holds readiness back while NATS is away.
pub(crate) async fn gate_nats(bus: Bus, readiness: Readiness) {
    let mut state = bus.link_state();
    let mut gate = None;
    loop {
        let connected = state.borrow_and_update().connected;
        if connected {
            gate = None;
        } else if gate.is_none() {
            gate = Some(readiness.hold("nats"));
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
