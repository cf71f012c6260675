//! How many clients one address and one user may have at this edge.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

const SHARDS: usize = 16;

/// The clients of each address and user.
#[derive(Clone)]
pub(crate) struct Slots {
    addresses: Option<Arc<Counts<IpAddr>>>,
    users: Option<Arc<Counts<Arc<str>>>>,
}

/// A client's place, free again when it is dropped.
#[must_use = "the place is free again when this is dropped"]
pub(crate) struct Slot {
    _place: Option<Arc<dyn Send + Sync>>,
}

/// The places of the users of one connection: each has one, in however many namespaces it is.
pub(crate) struct Places {
    slots: Slots,
    taken: Mutex<Vec<Taken>>,
}

/// A place that is free once no session has it any more.
struct Taken {
    user: Arc<str>,
    place: Weak<dyn Send + Sync>,
}

impl Slots {
    /// Limits for an address and for a user; 0 is without limit.
    pub(crate) fn new(per_address: usize, per_user: usize) -> Self {
        Self {
            addresses: Counts::new(per_address),
            users: Counts::new(per_user),
        }
    }

    /// Takes a place for a client of an address, `None` if it has too many.
    ///
    /// Addresses of version 6 count by their first 64 bits, which is what one customer of a network has.
    pub(crate) fn address(&self, address: IpAddr) -> Option<Slot> {
        let network = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            version_4 => version_4,
        };
        take(self.addresses.as_ref(), || network)
    }

    /// Takes a place for a client of a user, `None` if it has too many.
    pub(crate) fn user(&self, id: &str) -> Option<Slot> {
        take(self.users.as_ref(), || id.into())
    }
}

fn take<K: Eq + Hash + Clone + Send + Sync + 'static>(
    counts: Option<&Arc<Counts<K>>>,
    key: impl FnOnce() -> K,
) -> Option<Slot> {
    let Some(counts) = counts else {
        return Some(Slot { _place: None });
    };
    let place = counts.take(key())?;
    Some(Slot {
        _place: Some(Arc::new(place)),
    })
}

impl Places {
    pub(crate) fn new(slots: Slots) -> Self {
        Self {
            slots,
            taken: Mutex::default(),
        }
    }

    /// Takes the connection's place for a user, or shares it where it is taken; `None` if the user has too many.
    pub(crate) fn user(&self, id: &str) -> Option<Slot> {
        let mut taken = self.taken.lock();
        taken.retain(|taken| taken.place.strong_count() > 0);
        let own = taken.iter().find(|taken| *taken.user == *id);
        if let Some(place) = own.and_then(|taken| taken.place.upgrade()) {
            return Some(Slot { _place: Some(place) });
        }
        let slot = self.slots.user(id)?;
        if let Some(place) = &slot._place {
            taken.push(Taken {
                user: id.into(),
                place: Arc::downgrade(place),
            });
        }
        Some(slot)
    }
}

struct Counts<K> {
    limit: usize,
    hasher: RandomState,
    /// Each lock is held for one look-up, so that a mass disconnect does not block new clients.
    shards: [Mutex<HashMap<K, usize>>; SHARDS],
}

impl<K: Eq + Hash + Clone> Counts<K> {
    fn new(limit: usize) -> Option<Arc<Self>> {
        (limit > 0).then(|| {
            Arc::new(Self {
                limit,
                hasher: RandomState::new(),
                shards: std::array::from_fn(|_| Mutex::default()),
            })
        })
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, usize>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut shard = self.shard(&key).lock();
        match shard.get_mut(&key) {
            Some(count) if *count >= self.limit => return None,
            Some(count) => *count += 1,
            None => {
                shard.insert(key.clone(), 1);
            }
        }
        drop(shard);
        Some(Place {
            counts: Arc::clone(self),
            key,
        })
    }
}

struct Place<K: Eq + Hash + Clone> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut shard = self.counts.shard(&self.key).lock();
        if let Some(count) = shard.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_client_is_gone() {
        let slots = Slots::new(2, 1);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = slots.address(address);
        let second = slots.address("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(slots.address(address).is_none());
        assert!(slots.address("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(slots.address(address).is_some());
        let user = slots.user("42");
        assert!(user.is_some() && slots.user("42").is_none() && slots.user("43").is_some());
        drop(user);
        assert!(slots.user("42").is_some());
        drop(second);
        let counts = slots.addresses.unwrap();
        assert!(
            counts.shards.iter().all(|shard| shard.lock().is_empty()),
            "nothing is remembered"
        );
    }

    #[test]
    fn a_customer_of_version_6_is_one_address() {
        let slots = Slots::new(1, 0);
        let _one = slots.address("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert!(slots.address("2001:db8:1:2:ffff::9".parse().unwrap()).is_none());
        assert!(slots.address("2001:db8:1:3::1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_connection_has_one_place_for_a_user() {
        let slots = Slots::new(0, 1);
        let places = Places::new(slots.clone());
        let (first, second) = (places.user("42"), places.user("42"));
        assert!(first.is_some() && second.is_some() && places.user("43").is_some());
        let other = Places::new(slots);
        assert!(other.user("42").is_none());
        drop(first);
        assert!(other.user("42").is_none());
        drop(second);
        let third = other.user("42");
        assert!(third.is_some() && places.user("42").is_none());
    }

    #[test]
    fn zero_is_without_limit() {
        let slots = Slots::new(0, 0);
        let held: Vec<_> = (0..1000)
            .map(|_| (slots.address([127, 0, 0, 1].into()), slots.user("a")))
            .collect();
        assert!(
            held.iter()
                .all(|(address, user)| address.is_some() && user.is_some())
        );
    }
}
