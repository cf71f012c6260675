//! Whether the edges that hold an open request of ours are still there.
//!
//! NATS tells at once that nobody answers, but only when it is asked. A poll may be open for half a minute, so
//! each edge that has one of ours is asked twice a second, however many there are.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_bus::RequestError;
use carillon_protocol::ids::EdgeId;
use carillon_protocol::message;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions in a row that nobody answers; one may fall into a reconnect.
const MISSES: u32 = 2;

/// How long other edges may take longer than this one to find NATS again after it was away.
const SETTLE: Duration = Duration::from_secs(4);

/// The edges that are being watched.
#[derive(Default)]
pub(crate) struct Neighbours {
    table: Mutex<HashMap<EdgeId, Weak<Neighbour>>>,
    /// The connection to NATS, and since when it was noticed.
    link: Mutex<Option<(u64, Instant)>>,
}

/// Another edge, watched as long as this is held.
pub(crate) struct Neighbour(CancellationToken);

impl Neighbour {
    /// Waits until the edge is gone.
    pub(crate) async fn gone(&self) {
        self.0.cancelled().await;
    }
}

impl Hub {
    /// Watches another edge.
    pub(crate) fn neighbour(self: &Arc<Self>, edge: EdgeId) -> Arc<Neighbour> {
        let mut table = self.neighbours.table.lock();
        if let Some(known) = table
            .get(&edge)
            .and_then(Weak::upgrade)
            .filter(|known| !known.0.is_cancelled())
        {
            return known;
        }
        let neighbour = Arc::new(Neighbour(CancellationToken::new()));
        table.insert(edge, Arc::downgrade(&neighbour));
        tokio::spawn(Arc::clone(self).watch_neighbour(edge, Arc::downgrade(&neighbour)));
        neighbour
    }

    /// Returns whether NATS came back just now, so that an edge may be there although it does not answer yet.
    pub(super) fn has_just_reconnected(&self) -> bool {
        let generation = self.bus.link_state().borrow().generation;
        let mut link = self.neighbours.link.lock();
        match *link {
            Some((known, since)) if known == generation => generation > 1 && since.elapsed() < SETTLE,
            _ => {
                *link = Some((generation, Instant::now()));
                generation > 1
            }
        }
    }

    async fn watch_neighbour(self: Arc<Self>, edge: EdgeId, neighbour: Weak<Neighbour>) {
        let mut misses = 0;
        while misses < MISSES && neighbour.strong_count() > 0 {
            tokio::time::sleep(INTERVAL).await;
            match self
                .ask_edge(edge, &message::Engine::Alive, Bytes::new(), TIMEOUT)
                .await
            {
                Err(RequestError::NoResponders) if !self.has_just_reconnected() => misses += 1,
                // A link of ours that is down says nothing about the other side.
                Ok(_) | Err(_) => misses = 0,
            }
        }
        let mut table = self.neighbours.table.lock();
        if let Some(neighbour) = neighbour.upgrade() {
            neighbour.0.cancel();
        }
        if table
            .get(&edge)
            .is_some_and(|known| Weak::ptr_eq(known, &neighbour))
        {
            table.remove(&edge);
        }
    }
}
