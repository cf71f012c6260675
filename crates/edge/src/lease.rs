//! The edge's lease: as long as it is fresh, nobody else speaks for this edge's sessions.
//!
//! The edge judges the lease by its own monotonic clock. One that is older than its time to live (the process was
//! stopped, or NATS was away) may have been acted upon: nothing durable is delivered until there is a new lease
//! and every session is confirmed to be still this edge's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carillon_bus::{Bucket, TableError};
use carillon_protocol::session::Lease;
use futures_util::StreamExt;

use crate::hub::Hub;

/// Sessions that are confirmed at once.
const AT_ONCE: usize = 64;

/// The age of a lease.
pub(crate) struct Clock {
    begun: Instant,
    ttl: Duration,
    /// Milliseconds after `begun` at which the last renewal was sent.
    renewed: AtomicU64,
    /// How often the lease was renewed after its time to live.
    lapses: AtomicU64,
    /// Deliveries are held because the lease went stale.
    stale: AtomicBool,
}

impl Clock {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            begun: Instant::now(),
            ttl,
            renewed: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            stale: AtomicBool::new(false),
        }
    }

    /// Returns whether the lease is older than its time to live.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale_at(Instant::now())
    }

    fn is_stale_at(&self, now: Instant) -> bool {
        let renewed = Duration::from_millis(self.renewed.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(renewed) > self.ttl
    }

    fn renew(&self, sent: Instant) {
        if self.is_stale() {
            self.lapses.fetch_add(1, Ordering::Relaxed);
        }
        let age = sent.saturating_duration_since(self.begun);
        self.renewed.store(
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}

impl Hub {
    /// Holds all deliveries until the sessions are confirmed; called on whichever task notices first.
    pub(crate) fn lease_went_stale(&self) {
        if !self.lease.stale.swap(true, Ordering::SeqCst) {
            tracing::warn!("lease is older than its time to live, deliveries are held");
            for namespace in self.namespaces() {
                namespace.hold();
            }
            self.unconfirmed.notify_one();
        }
    }

    fn lease_is_confirmed(&self) {
        if self.lease.stale.swap(false, Ordering::SeqCst) {
            tracing::info!("lease and sessions are confirmed, deliveries go on");
            for namespace in self.namespaces() {
                namespace.release();
            }
        }
    }

    /// Writes the lease; the edge exists for the others from the first time on.
    pub(crate) async fn renew_lease(&self, renewal: u64) -> Result<(), TableError> {
        let lease = Lease {
            renewal,
            address: self.config.listen.to_string(),
            connections: self.connections() as u64,
            draining: self.is_draining(),
        };
        let value = serde_json::to_vec(&lease).expect("a lease is JSON");
        let sent = Instant::now();
        self.bus
            .table(Bucket::Edges)
            .put(self.id.as_str(), value.into(), Some(self.session.lease))
            .await?;
        // A lease that has lapsed in the meantime is not mended by a renewal: the sessions must be confirmed.
        if self.lease.is_stale() && renewal > 0 {
            self.lease_went_stale();
        }
        self.lease.renew(sent);
        Ok(())
    }

    /// Gives the lease back at an orderly end.
    pub(crate) async fn end_lease(&self) {
        let _ = self.bus.table(Bucket::Edges).delete(self.id.as_str(), None).await;
    }

    /// Renews the lease until the edge stops.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.session.renewal);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for renewal in 1.. {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.lease.is_stale() {
                self.lease_went_stale();
            }
            if let Err(error) = self.renew_lease(renewal).await {
                tracing::debug!(%error, "lease could not be renewed");
            }
        }
    }

    /// Confirms every session after the lease was lost, until the edge stops.
    pub(crate) async fn confirm_sessions(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.unconfirmed.notified() => {}
            }
            if self.stop.run_until_cancelled(self.confirm_all()).await.is_none() {
                return;
            }
            self.lease_is_confirmed();
        }
    }

    /// Confirms every session under a lease that has not lapsed meanwhile.
    async fn confirm_all(self: &Arc<Self>) {
        loop {
            while self.lease.is_stale() {
                if self.renew_lease(0).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            let lapses = self.lease.lapses.load(Ordering::Relaxed);
            let sessions = self
                .namespaces()
                .iter()
                .flat_map(|namespace| namespace.sessions());
            let sessions: Vec<_> = sessions.collect();
            futures_util::stream::iter(sessions)
                .for_each_concurrent(AT_ONCE, |session| async move {
                    // A session that somebody else has taken over closes itself.
                    session.keeper.confirm(self, &session).await;
                })
                .await;
            if self.lease.lapses.load(Ordering::Relaxed) == lapses && !self.lease.is_stale() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_fresh_for_its_time_to_live() {
        let ttl = Duration::from_secs(60);
        let clock = Clock::new(ttl);
        let begun = clock.begun;
        assert!(!clock.is_stale_at(begun + ttl));
        assert!(clock.is_stale_at(begun + ttl + Duration::from_millis(1)));
        clock.renew(begun + Duration::from_secs(30));
        assert!(!clock.is_stale_at(begun + ttl + Duration::from_secs(30)));
        assert!(clock.is_stale_at(begun + ttl + Duration::from_secs(31)));
    }
}
