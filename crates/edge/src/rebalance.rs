//! After a scale-out, crowded edges give up their surplus, slowly.
//!
//! Connections stay where they are, so a new edge stays empty while the others are full. Each edge knows from the
//! leases how many connections the others have. One that has clearly more than the mean, for some time, closes
//! some of its transports, as a drain does; the clients come back by the balancer and are recovered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Bucket, HistoryError};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::session::Lease;
use tokio::time::MissedTickBehavior;

use crate::client::{Client, Closing};
use crate::hub::Hub;
use crate::metrics;

/// Renewals of a lease between two looks at the others.
const RENEWALS: u32 = 5;
/// Looks in a row that must find a surplus: a restart or a storm of connections evens itself out.
const LOOKS: u32 = 3;
/// Below this surplus nobody is disturbed.
const SMALL: usize = 100;

/// How many connections an edge has above the mean, if that is clearly more.
fn surplus(own: usize, others: &[u64], above: u32) -> Surplus {
    let edges = others.len() + 1;
    let sum = others
        .iter()
        .fold(own as u64, |sum, other| sum.saturating_add(*other));
    let mean = usize::try_from(sum / edges as u64).unwrap_or(usize::MAX);
    let connections = own.saturating_sub(mean);
    Surplus {
        connections,
        is_clear: connections >= SMALL && connections as u64 > mean as u64 * u64::from(above) / 100,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Surplus {
    connections: usize,
    is_clear: bool,
}

impl Hub {
    /// Gives connections away while this edge has clearly more than the others, until it stops.
    pub(crate) async fn rebalance(self: Arc<Self>) {
        let interval = self.session.renewal * RENEWALS;
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut others = Others::default();
        let mut looks = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            // Whoever does not know the others, or is in trouble itself, leaves its clients in peace.
            if !self.readiness.is_ready() {
                looks = 0;
                continue;
            }
            let others = match others.look(&self).await {
                Ok(others) => others,
                Err(error) => {
                    tracing::debug!(%error, "connections of other edges cannot be read");
                    looks = 0;
                    continue;
                }
            };
            let found = surplus(self.connections(), &others, self.config.rebalance_above);
            metrics::surplus(found.connections);
            looks = if found.is_clear { looks + 1 } else { 0 };
            if looks < LOOKS {
                continue;
            }
            if looks == LOOKS {
                tracing::info!(
                    surplus = found.connections,
                    "edge begins to give connections away"
                );
            }
            self.release(found.connections, interval).await;
        }
    }

    /// Closes some transports, spread over the time.
    async fn release(&self, surplus: usize, time: Duration) {
        let pause = Duration::from_secs(1) / self.config.rebalance_rate;
        let most = (time.as_secs_f64() / pause.as_secs_f64()) as usize;
        let clients = self.recoverable_clients(surplus.min(most).max(1));
        for client in clients {
            let pause = pause.mul_f64(0.5 + fastrand::f64());
            if self
                .stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
                || self.is_draining()
            {
                return;
            }
            if client.closing().is_none() {
                client.close(Closing {
                    code: 1012,
                    reason: "rebalance".to_owned(),
                    flush: true,
                });
                metrics::released();
            }
        }
    }

    /// Returns some clients that lose nothing by a new connection.
    fn recoverable_clients(&self, count: usize) -> Vec<Arc<Client>> {
        let (recoverable, lasting): (Vec<_>, Vec<_>) = self
            .namespaces()
            .iter()
            .partition(|namespace| namespace.style.recovery);
        // A client can be in namespaces of both kinds.
        let kept = lasting.into_iter().flat_map(|namespace| namespace.clients());
        let kept: HashSet<*const Client> = kept.map(|client| Arc::as_ptr(&client)).collect();
        let movable = recoverable.into_iter().flat_map(|namespace| namespace.clients());
        let movable = movable.filter(|client| !kept.contains(&Arc::as_ptr(client)));
        fastrand::choose_multiple(movable, count)
    }
}

/// The other edges, as they were seen last.
#[derive(Default)]
struct Others(HashMap<EdgeId, u64>);

impl Others {
    /// Returns the connections of each other edge that is there to stay.
    ///
    /// A lease counts if it was renewed since the last look: its value outlives an edge that was killed.
    async fn look(&mut self, hub: &Hub) -> Result<Vec<u64>, HistoryError> {
        let entries = hub.bus.table(Bucket::Edges).entries().await?;
        let leases = entries.into_iter().filter_map(|(key, entry)| {
            // Routers have their leases in the same bucket.
            let edge = key.parse::<EdgeId>().ok().filter(|edge| *edge != hub.id)?;
            let lease: Lease = serde_json::from_slice(&entry.value).ok()?;
            Some((edge, entry.revision, lease))
        });
        let mut seen = HashMap::new();
        let mut connections = Vec::new();
        for (edge, revision, lease) in leases {
            if !lease.draining && self.0.get(&edge).is_some_and(|before| *before != revision) {
                connections.push(lease.connections);
            }
            seen.insert(edge, revision);
        }
        self.0 = seen;
        Ok(connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surplus_is_what_lies_above_the_mean_of_all() {
        let clear = |connections| Surplus {
            connections,
            is_clear: true,
        };
        assert_eq!(surplus(3000, &[3000, 0], 20), clear(1000));
        assert_eq!(surplus(50_000, &[50_000, 50_000, 0], 20), clear(12_500));
        assert_eq!(surplus(0, &[3000, 3000], 20).connections, 0);
    }

    #[test]
    fn little_above_the_mean_disturbs_nobody() {
        assert!(!surplus(1200, &[1000, 1000], 20).is_clear);
        assert!(surplus(1500, &[1000, 1000], 20).is_clear);
        assert!(!surplus(99, &[0, 0], 20).is_clear);
        assert!(!surplus(150, &[0], 20).is_clear);
        assert!(!surplus(100_000, &[], 20).is_clear);
        assert!(!surplus(100_000, &[u64::MAX, u64::MAX], 20).is_clear);
    }
}
