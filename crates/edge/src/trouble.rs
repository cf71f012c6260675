//! Rooms in trouble: around a break of NATS, a delivery may never have come to an edge.
//!
//! An edge repairs what it missed. If it died before that, a client's offset may lie above an event that the
//! client never got: whoever takes the session over reads the rooms in question again from where the trouble
//! began. The client may then get an event twice, in that one case. An edge that looked and had missed nothing
//! says so, and its clients are spared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bucket, TableError};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::Room;
use serde::{Deserialize, Serialize};

use crate::hub::Hub;
use crate::namespace::Namespace;

/// Rooms that are remembered for a namespace, over all findings.
const MAX_ROOMS: usize = 4000;
/// How often a contended write is tried.
const ATTEMPTS: usize = 10;

/// What one edge found when it looked at rooms in trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) edge: EdgeId,
    /// It had missed nothing, or had sent nothing since.
    pub(crate) clean: bool,
    /// The rooms, each with the sequence after which something may have been missed.
    pub(crate) rooms: BTreeMap<Room, u64>,
    /// The sequence up to which it looked.
    pub(crate) until: u64,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
}

/// What is known for the clients of an edge that is gone.
#[derive(Debug)]
pub(crate) struct Troubles {
    edge: EdgeId,
    findings: Vec<Finding>,
}

impl Hub {
    /// Records what this edge found, for the clients of edges that are gone.
    pub(crate) async fn record_trouble(&self, namespace: &Namespace, finding: Finding) {
        let table = self.bus.table(Bucket::Cluster);
        let key = key(namespace);
        for _ in 0..ATTEMPTS {
            let Ok(entry) = table.get(&key).await else { return };
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let mut known: Vec<Finding> = entry
                .and_then(|entry| serde_json::from_slice(&entry.value).ok())
                .unwrap_or_default();
            let oldest = self.oldest_finding();
            known.retain(|older| older.at >= oldest && !finding.replaces(older));
            known.push(finding.clone());
            let mut rooms: usize = known.iter().map(|finding| finding.rooms.len()).sum();
            while rooms > MAX_ROOMS {
                rooms -= known.remove(0).rooms.len();
            }
            let value = serde_json::to_vec(&known).expect("findings are JSON").into();
            let written = match revision {
                0 => table.create(&key, value, None).await,
                revision => table.update(&key, value, revision, None).await,
            };
            match written {
                Err(TableError::Conflict) => {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..50))).await
                }
                _ => return,
            }
        }
    }

    /// Returns what is known for the clients of an edge that is gone.
    pub(crate) async fn troubles(
        &self,
        namespace: &Arc<Namespace>,
        edge: EdgeId,
    ) -> Result<Troubles, TableError> {
        let entry = self.bus.table(Bucket::Cluster).get(&key(namespace)).await?;
        let mut findings: Vec<Finding> = entry
            .and_then(|entry| serde_json::from_slice(&entry.value).ok())
            .unwrap_or_default();
        let oldest = self.oldest_finding();
        findings.retain(|finding| finding.at >= oldest);
        Ok(Troubles { edge, findings })
    }

    /// An edge that was there for so long since has looked for itself.
    fn oldest_finding(&self) -> u64 {
        let window = u64::try_from(self.session.recovery.as_millis()).unwrap_or(u64::MAX / 2);
        now().saturating_sub(2 * window)
    }
}

impl Finding {
    fn replaces(&self, older: &Self) -> bool {
        let covers = |(room, from): (&Room, &u64)| self.rooms.get(room).is_some_and(|own| own <= from);
        self.edge == older.edge
            && self.clean == older.clean
            && self.until >= older.until
            && older.rooms.iter().all(covers)
    }
}

impl Troubles {
    /// Returns where reading of a room must begin for a client that has an offset.
    pub(crate) fn begin(&self, room: &Room, offset: u64) -> u64 {
        let of_room = self.findings.iter().filter_map(|finding| {
            let from = *finding.rooms.get(room)?;
            (from < offset).then_some((finding, from))
        });
        of_room
            .filter_map(|(finding, from)| self.begin_of(finding, room, from, offset))
            .min()
            .unwrap_or(offset)
    }

    fn begin_of(&self, finding: &Finding, room: &Room, from: u64, offset: u64) -> Option<u64> {
        if finding.edge == self.edge {
            return (!finding.clean && offset <= finding.until).then_some(from);
        }
        let own = self.findings.iter().filter(|own| own.edge == self.edge);
        let looked = own.filter(|own| {
            let begin = own.rooms.get(room);
            own.until > from && begin.is_some_and(|begin| *begin <= from)
        });
        match looked.map(|own| own.until).max() {
            // It died before it looked.
            None => Some(from),
            Some(until) => (until < offset && offset <= finding.until).then_some(from.max(until)),
        }
    }
}

fn key(namespace: &Namespace) -> String {
    use base64::Engine;

    format!(
        "trouble.{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(namespace.name.as_str())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(number: u8) -> EdgeId {
        EdgeId::from_random([number; 10])
    }

    fn finding(number: u8, clean: bool, from: u64, until: u64) -> Finding {
        let rooms = [(Room::new("a").unwrap(), from)].into();
        Finding {
            edge: edge(number),
            clean,
            rooms,
            until,
            at: 0,
        }
    }

    fn begin(findings: Vec<Finding>, offset: u64) -> u64 {
        let troubles = Troubles {
            edge: edge(1),
            findings,
        };
        assert_eq!(troubles.begin(&Room::new("b").unwrap(), offset), offset);
        troubles.begin(&Room::new("a").unwrap(), offset)
    }

    #[test]
    fn the_clients_of_an_edge_that_did_not_look_read_from_the_begin_of_the_trouble() {
        let others = || vec![finding(2, true, 10, 20), finding(3, false, 12, 21)];
        assert_eq!(begin(others(), 5), 5);
        assert_eq!(begin(others(), 11), 10);
        assert_eq!(begin(others(), 15), 10);
        assert_eq!(begin(others(), 40), 10);
        assert_eq!(begin(Vec::new(), 7), 7);
    }

    #[test]
    fn the_clients_of_an_edge_that_looked_and_missed_nothing_are_spared() {
        let clean = || vec![finding(2, false, 10, 22), finding(1, true, 10, 20)];
        assert_eq!(begin(clean(), 15), 15);
        assert_eq!(begin(clean(), 21), 20);
        assert_eq!(begin(clean(), 40), 40);
        // A later trouble that it did not look at.
        let later = vec![finding(1, true, 10, 20), finding(2, true, 30, 35)];
        assert_eq!(begin(later.clone(), 33), 30);
        assert_eq!(begin(later, 40), 30);
        let unclean = vec![finding(2, true, 10, 22), finding(1, false, 10, 20)];
        assert_eq!(begin(unclean, 15), 10);
    }

    #[test]
    fn a_finding_replaces_an_older_one_that_it_covers() {
        assert!(finding(1, true, 9, 20).replaces(&finding(1, true, 10, 20)));
        assert!(!finding(1, true, 11, 20).replaces(&finding(1, true, 10, 20)));
        assert!(!finding(1, true, 9, 20).replaces(&finding(2, true, 10, 20)));
        assert!(!finding(1, true, 9, 20).replaces(&finding(1, false, 10, 20)));
    }
}
