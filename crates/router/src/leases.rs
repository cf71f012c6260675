//! When each edge and router was last heard of.

use std::collections::HashMap;
use std::time::Duration;

use carillon_protocol::ids::EdgeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::contact::Contact;
use crate::replicas::RouterId;

/// The leases in the bucket EDGES, as this router saw them renewed.
pub(crate) struct Leases {
    own: RouterId,
    /// Age at which a lease is lost.
    lease: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    contact: Contact,
    edges: HashMap<EdgeId, Heard>,
    routers: HashMap<RouterId, Instant>,
    loaded: bool,
    /// When some router was last known to run, in milliseconds since 1970: whoever died before was found then.
    floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    /// A time in milliseconds since 1970 at which the edge is known to have run.
    wall: u64,
    /// Since when its lease is not there any more.
    gone: Option<Instant>,
    /// Seen since the watch began anew.
    fresh: bool,
}

/// An edge whose sessions are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) edge: EdgeId,
    /// The time at which it was last known to run, in milliseconds since 1970.
    pub(crate) gone: u64,
}

impl Leases {
    /// Begins without knowing anybody. `floor` is the time at which some router was last known to run.
    pub(crate) fn new(own: RouterId, lease: Duration, floor: u64) -> Self {
        let seen = Seen {
            contact: Contact::new(lease / 2),
            edges: HashMap::new(),
            routers: HashMap::new(),
            loaded: false,
            floor,
        };
        Self {
            own,
            lease,
            seen: Mutex::new(seen),
        }
    }

    /// Returns this router's id.
    pub(crate) fn own(&self) -> &RouterId {
        &self.own
    }

    /// Notes that a lease has a value.
    pub(crate) fn renewed(&self, key: &str, now: Instant, wall: u64) {
        let mut seen = self.seen.lock();
        if let Some(router) = RouterId::of_key(key) {
            if router == self.own && seen.loaded {
                seen.contact.seen(now);
            }
            seen.routers.insert(router, now);
            return;
        }
        let Ok(edge) = key.parse::<EdgeId>() else { return };
        // A lease in the snapshot was renewed some time in the past, at most one lease ago.
        let wall = if seen.loaded {
            wall
        } else {
            wall.saturating_sub(millis(self.lease))
        };
        let known = seen.edges.get(&edge).map_or(0, |heard| heard.wall);
        seen.edges.insert(
            edge,
            Heard {
                at: now,
                wall: wall.max(known),
                gone: None,
                fresh: true,
            },
        );
    }

    /// Notes that a lease was deleted or has expired.
    pub(crate) fn gone(&self, key: &str, now: Instant) {
        let mut seen = self.seen.lock();
        if let Some(router) = RouterId::of_key(key) {
            seen.routers.remove(&router);
        } else if let Ok(edge) = key.parse::<EdgeId>()
            && let Some(heard) = seen.edges.get_mut(&edge)
        {
            heard.gone.get_or_insert(now);
        }
    }

    /// Notes that renewals may have been missed, and that all leases are told again.
    pub(crate) fn restarted(&self) {
        let mut seen = self.seen.lock();
        seen.contact.broken();
        seen.loaded = false;
        for heard in seen.edges.values_mut() {
            heard.fresh = false;
        }
    }

    /// Notes that all leases were told.
    pub(crate) fn loaded(&self, now: Instant) {
        let mut seen = self.seen.lock();
        seen.loaded = true;
        for heard in seen.edges.values_mut().filter(|heard| !heard.fresh) {
            heard.gone.get_or_insert(now);
        }
    }

    /// Notes which edges own live sessions: one without a lease counts from now.
    pub(crate) fn notice(&self, owners: &[EdgeId], now: Instant, wall: u64) {
        let mut seen = self.seen.lock();
        if !seen.loaded {
            return;
        }
        // At first they died while no router ran, or just before the last one did. Later they have just begun.
        let known = match std::mem::take(&mut seen.floor) {
            0 => wall,
            floor => floor,
        };
        let unknown = Heard {
            at: now,
            wall: known.saturating_sub(millis(self.lease)),
            gone: None,
            fresh: true,
        };
        for edge in owners {
            seen.edges.entry(*edge).or_insert(unknown);
        }
    }

    /// Returns which of the edges are dead: not renewed for a lease and `grace`, or given back that long ago.
    ///
    /// Without one whole lease of unbroken contact nobody is dead.
    pub(crate) fn dead(&self, owners: &[EdgeId], grace: Duration, now: Instant) -> Vec<Dead> {
        let seen = self.seen.lock();
        if seen
            .contact
            .unbroken(now)
            .is_none_or(|unbroken| unbroken < self.lease)
        {
            return Vec::new();
        }
        let is_dead = |heard: &Heard| {
            now.duration_since(heard.at) >= self.lease + grace
                || heard.gone.is_some_and(|gone| now.duration_since(gone) >= grace)
        };
        let heard = owners
            .iter()
            .filter_map(|edge| Some((*edge, *seen.edges.get(edge)?)));
        heard
            .filter(|(_, heard)| is_dead(heard))
            .map(|(edge, heard)| Dead {
                edge,
                gone: heard.wall,
            })
            .collect()
    }

    /// Forgets edges that are gone and own nothing.
    pub(crate) fn forget(&self, owners: &[EdgeId], now: Instant) {
        let lease = self.lease;
        let mut seen = self.seen.lock();
        seen.edges.retain(|edge, heard| {
            heard.gone.is_none() && now.duration_since(heard.at) < 4 * lease || owners.contains(edge)
        });
        seen.routers.retain(|_, at| now.duration_since(*at) < 4 * lease);
    }

    /// Returns the routers that run, in one order for all replicas.
    pub(crate) fn routers(&self, now: Instant) -> Vec<RouterId> {
        let seen = self.seen.lock();
        let alive = seen
            .routers
            .iter()
            .filter(|(_, at)| now.duration_since(**at) < self.lease);
        let mut routers: Vec<RouterId> = alive.map(|(router, _)| router.clone()).collect();
        if !routers.contains(&self.own) {
            routers.push(self.own.clone());
        }
        routers.sort();
        routers
    }

    /// Returns whether a piece of work falls to this router.
    pub(crate) fn is_mine(&self, work: &str, now: Instant) -> bool {
        crate::replicas::owner(&self.routers(now), work) == Some(&self.own)
    }

    /// Returns whether leases are known and coming in.
    pub(crate) fn in_contact(&self, now: Instant) -> bool {
        let seen = self.seen.lock();
        seen.loaded && seen.contact.unbroken(now).is_some()
    }

    /// Returns how many edges hold a lease.
    pub(crate) fn edges(&self, now: Instant) -> usize {
        let seen = self.seen.lock();
        let holds = |heard: &&Heard| heard.gone.is_none() && now.duration_since(heard.at) < self.lease;
        seen.edges.values().filter(holds).count()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);

    struct Case {
        leases: Leases,
        start: Instant,
        edge: EdgeId,
    }

    impl Case {
        fn new() -> Self {
            let case = Self {
                leases: Leases::new(RouterId::random(), LEASE, 1_000_000),
                start: Instant::now(),
                edge: EdgeId::from_random([1; 10]),
            };
            case.leases.loaded(case.start);
            case
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn own(&self, seconds: impl IntoIterator<Item = u64>) {
            for second in seconds {
                self.leases.renewed(&self.leases.own.key(), self.at(second), 0);
            }
        }

        fn edge(&self, second: u64) {
            self.leases
                .renewed(self.edge.as_str(), self.at(second), 2_000_000 + second * 1000);
        }

        fn dead(&self, second: u64) -> Option<u64> {
            self.leases
                .notice(&[self.edge], self.at(second), 2_000_000 + second * 1000);
            self.leases
                .dead(&[self.edge], Duration::ZERO, self.at(second))
                .first()
                .map(|dead| dead.gone)
        }
    }

    #[test]
    fn an_edge_is_dead_one_lease_after_its_last_renewal() {
        let case = Case::new();
        case.own((0..=40).step_by(2));
        case.edge(20);
        assert_eq!(case.dead(31), None);
        assert_eq!(case.dead(40), Some(2_020_000));
    }

    #[test]
    fn nobody_is_dead_without_contact() {
        let case = Case::new();
        case.own((0..=20).step_by(2));
        case.edge(20);
        assert_eq!(case.dead(40), None);
        case.own((40..=50).step_by(2));
        assert_eq!(case.dead(50), None);
        case.own([52]);
        assert_eq!(case.dead(52), Some(2_020_000));
    }

    #[test]
    fn a_lease_that_was_given_back_counts_at_once() {
        let case = Case::new();
        case.own((0..=20).step_by(2));
        case.edge(20);
        case.leases.gone(case.edge.as_str(), case.at(21));
        assert_eq!(case.dead(21), Some(2_020_000));
        case.edge(22);
        assert_eq!(case.dead(22), None);
    }

    #[test]
    fn an_unknown_owner_died_before_the_last_router() {
        let case = Case::new();
        case.own((0..=12).step_by(2));
        assert_eq!(case.dead(0), None);
        assert_eq!(case.dead(13), Some(988_000));
    }

    #[test]
    fn a_restarted_watch_begins_the_contact_anew() {
        let case = Case::new();
        case.own((0..=20).step_by(2));
        case.edge(20);
        case.leases.restarted();
        case.leases.loaded(case.at(22));
        case.own((22..=32).step_by(2));
        assert_eq!(case.dead(32), None);
        case.own([34]);
        assert_eq!(case.dead(34), Some(2_020_000));
    }
}
