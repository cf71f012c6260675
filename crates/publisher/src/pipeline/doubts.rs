//! Doubts: what may have been stored without being delivered, told to the edges in the events' own stream.
//!
//! There a doubt lies behind the events that it is about and before whatever is stored next, for every edge and for
//! whoever reads the stream later.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::Bus;
use carillon_protocol::doubt::Doubt;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::Namespace;

use crate::backoff::Backoff;
use crate::metrics;

/// Rooms named in one message, so that it stays far below the server's limit.
const MOST_ROOMS: usize = 500;

/// Rooms in doubt, by their subject, each with the sequence after which a delivery may be missing.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<Arc<str>, u64>);

/// Doubts that can be told.
#[derive(Debug)]
pub(super) struct Settled(Vec<(Arc<str>, u64)>);

impl Doubts {
    /// Adds a room; of two sequences the lower one counts.
    pub(super) fn add(&mut self, room: &Arc<str>, after: u64) {
        let known = self.0.entry(Arc::clone(room)).or_insert(after);
        *known = after.min(*known);
    }

    /// Takes the rooms that fulfil a condition, if there are any.
    pub(super) fn take(&mut self, settled: impl Fn(&str) -> bool) -> Option<Settled> {
        if self.0.is_empty() {
            return None;
        }
        let taken: Vec<_> = self.0.extract_if(|room, _| settled(room)).collect();
        (!taken.is_empty()).then_some(Settled(taken))
    }
}

impl Settled {
    /// Stores the doubts, however long it takes.
    pub(super) async fn store(self, bus: &Bus, namespace: &Namespace) {
        let subjects = bus.subjects();
        let subject = subjects.doubts(namespace);
        for rooms in self.0.chunks(MOST_ROOMS) {
            let rooms = rooms.iter().filter_map(|(room, after)| {
                let address = subjects.read_classed("event", room).ok()?;
                Some((address.room, *after))
            });
            let doubt = Doubt {
                rooms: rooms.collect(),
            };
            let body = Bytes::from(serde_json::to_vec(&doubt).expect("a doubt is JSON"));
            let mut backoff = Backoff::new();
            while let Err(error) = bus.store(&subject, &Headers::new(), body.clone()).await {
                tracing::debug!(%error, subject, "doubt is not stored yet");
                backoff.wait().await;
            }
            metrics::doubt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sequence_counts_and_rooms_are_told_once() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut doubts = Doubts::default();
        for (room, after) in [(&a, 9), (&a, 7), (&a, 8), (&b, 1)] {
            doubts.add(room, after);
        }
        assert_eq!(doubts.take(|room| room == "a").unwrap().0, [(a, 7)]);
        assert!(doubts.take(|room| room == "a").is_none());
        assert_eq!(doubts.take(|_| true).unwrap().0, [(b, 1)]);
    }
}
