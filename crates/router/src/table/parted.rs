//! Users who have just ended a session themselves, and up to where it heard what came to them.
//!
//! An event is looked at a little after it came. Without this, one that was heard right before would seem missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use carillon_protocol::names::Namespace;

/// How long it is remembered, in milliseconds; events are looked at well before.
const MEMORY: u64 = 60_000;
/// Most that are remembered.
const MOST: usize = 100_000;

type Key = (Namespace, Arc<str>);

#[derive(Default)]
pub(super) struct Parted {
    /// With the time at which it was noted.
    users: HashMap<Key, (u64, Heard)>,
    /// In the order in which they came, the times in milliseconds since 1970.
    order: VecDeque<(u64, Key)>,
}

/// What a session heard: everything behind `start` up to `complete` that came since it began, and until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) epoch: u32,
    pub(super) start: u64,
    pub(super) complete: u64,
    pub(super) since: u64,
    pub(super) until: u64,
}

impl Parted {
    pub(super) fn insert(&mut self, namespace: Namespace, user: Arc<str>, heard: Heard, now: u64) {
        while let Some((at, _)) = self.order.front()
            && (at.saturating_add(MEMORY) < now || self.order.len() >= MOST)
        {
            if let Some((at, key)) = self.order.pop_front()
                && self.users.get(&key).is_some_and(|(noted, _)| *noted == at)
            {
                self.users.remove(&key);
            }
        }
        let key = (namespace, user);
        self.order.push_back((now, key.clone()));
        self.users.insert(key, (now, heard));
    }

    pub(super) fn covers(
        &self,
        namespace: &Namespace,
        user: &str,
        epoch: u32,
        sequence: u64,
        time: u64,
    ) -> bool {
        self.users
            .get(&(namespace.clone(), Arc::from(user)))
            .is_some_and(|(_, heard)| {
                heard.epoch == epoch
                    && heard.start < sequence
                    && sequence <= heard.complete
                    && (heard.since..=heard.until).contains(&time)
            })
    }
}
