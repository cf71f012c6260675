//! Intervals of trouble: sequences around a break of NATS, in which a delivery may have been missed.
//!
//! An edge repairs what it missed. If it died before that, a client's offset may lie above an event that the
//! client never got: whoever takes the session over reads from the begin of the interval. The client may then
//! get an event twice, in that one case.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bucket, TableError};
use serde::{Deserialize, Serialize};

use crate::hub::Hub;
use crate::namespace::Namespace;

/// Intervals that are remembered for a namespace.
const MAX: usize = 32;
/// How often a contended write is tried.
const ATTEMPTS: usize = 5;

/// Sequences in which a delivery may have been missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Interval {
    from: u64,
    until: u64,
    /// Milliseconds since 1970.
    at: u64,
}

impl Hub {
    /// Records that deliveries between two sequences may have been missed by edges that are gone since.
    pub(crate) async fn record_trouble(&self, namespace: &Arc<Namespace>, from: u64, until: u64) {
        let table = self.bus.table(Bucket::Cluster);
        let key = key(namespace);
        for _ in 0..ATTEMPTS {
            let Ok(entry) = table.get(&key).await else { return };
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let mut known: Vec<Interval> =
                entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
            if known.iter().any(|interval| interval.from <= from && interval.until >= until) {
                return;
            }
            let oldest = now().saturating_sub(self.window());
            known.retain(|interval| interval.at >= oldest && !(interval.from >= from && interval.until <= until));
            known.push(Interval { from, until, at: now() });
            let excess = known.len().saturating_sub(MAX);
            known.drain(..excess);
            let value = serde_json::to_vec(&known).expect("intervals are JSON").into();
            let written = match revision {
                0 => table.create(&key, value, None).await,
                revision => table.update(&key, value, revision, None).await,
            };
            match written {
                Err(TableError::Conflict) => tokio::time::sleep(Duration::from_millis(fastrand::u64(1..50))).await,
                _ => return,
            }
        }
    }

    /// Returns where reading must begin for a client whose edge is gone.
    pub(crate) async fn begin_of_trouble(&self, namespace: &Arc<Namespace>, offset: u64) -> Result<u64, TableError> {
        let entry = self.bus.table(Bucket::Cluster).get(&key(namespace)).await?;
        let known: Vec<Interval> = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        Ok(begin(&known, offset))
    }

    fn window(&self) -> u64 {
        2 * u64::try_from(self.session.recovery.as_millis()).unwrap_or(u64::MAX / 2)
    }
}

fn begin(known: &[Interval], offset: u64) -> u64 {
    let around = known.iter().filter(|interval| (interval.from..=interval.until).contains(&offset));
    around.map(|interval| interval.from).min().unwrap_or(offset)
}

fn key(namespace: &Namespace) -> String {
    use base64::Engine;

    format!("trouble.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(namespace.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_at_the_interval_that_holds_the_offset() {
        let interval = |from, until| Interval { from, until, at: 0 };
        let known = [interval(10, 20), interval(15, 30), interval(50, 60)];
        assert_eq!(begin(&known, 5), 5);
        assert_eq!(begin(&known, 12), 10);
        assert_eq!(begin(&known, 18), 10);
        assert_eq!(begin(&known, 25), 15);
        assert_eq!(begin(&known, 40), 40);
        assert_eq!(begin(&[], 7), 7);
    }
}
