//! Sessions that have just ended, and what they heard of what came to their users.
//!
//! An event is looked at a little after it came, and once more when a session ends that was away meanwhile. Without
//! this, one that was heard in another session would seem missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use carillon_protocol::names::Namespace;
use smallvec::SmallVec;

/// Most that are remembered.
const MOST: usize = 200_000;

type Key = (Namespace, Arc<str>);

pub(super) struct Parted {
    /// How long one is remembered, in milliseconds.
    memory: u64,
    users: HashMap<Key, SmallVec<[Heard; 1]>>,
    /// Each with the time at which it was noted, in milliseconds since 1970; those of one user as in `users`.
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
    pub(super) fn new(memory: u64) -> Self {
        Self {
            memory,
            users: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, namespace: Namespace, user: Arc<str>, heard: Heard, now: u64) {
        while let Some((at, _)) = self.order.front()
            && (at.saturating_add(self.memory) < now || self.order.len() >= MOST)
        {
            self.forget_first();
        }
        let key = (namespace, user);
        self.order.push_back((now, key.clone()));
        self.users.entry(key).or_default().push(heard);
    }

    fn forget_first(&mut self) {
        let Some((_, key)) = self.order.pop_front() else {
            return;
        };
        if let Some(sessions) = self.users.get_mut(&key) {
            sessions.remove(0);
            if sessions.is_empty() {
                self.users.remove(&key);
            }
        }
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
            .is_some_and(|sessions| {
                sessions.iter().any(|heard| {
                    heard.epoch == epoch
                        && heard.start < sequence
                        && sequence <= heard.complete
                        && (heard.since..=heard.until).contains(&time)
                })
            })
    }
}
