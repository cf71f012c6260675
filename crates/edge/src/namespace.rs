//! One namespace at this edge: its rooms, its sessions, and how far its deliveries can be trusted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use carillon_bus::streams::EventsStream;
use carillon_protocol::ids::Sid;
use carillon_protocol::names;
use carillon_service::settings;
use parking_lot::Mutex;

use crate::barrier::Barrier;
use crate::client::Client;
use crate::doubts::Doubts;
use crate::frame::Style;
use crate::metrics::Counters;
use crate::room::Rooms;
use crate::rules::Rules;
use crate::session::Session;
use crate::verify::Trust;

/// A namespace that clients can connect to.
pub(crate) struct Namespace {
    /// Its place in the list of namespaces; part of every subscription id.
    pub(crate) index: u16,
    pub(crate) name: names::Namespace,
    pub(crate) settings: ArcSwap<settings::Namespace>,
    pub(crate) rules: ArcSwap<Rules>,
    pub(crate) stream: EventsStream,
    pub(crate) style: Style,
    pub(crate) rooms: Rooms,
    pub(crate) barrier: Barrier,
    pub(crate) doubts: Doubts,
    pub(crate) trust: Trust,
    pub(crate) counters: Counters,
    /// Bytes of events that may be held for one connection.
    pub(crate) queue_limit: usize,
    sessions: Mutex<HashMap<Sid, Arc<Session>>>,
    /// Reasons for which nothing durable is delivered: the link is down, deliveries are being verified, the
    /// lease is lost.
    holds: AtomicUsize,
    /// Everything up to this sequence has been delivered to its rooms.
    watermark: AtomicU64,
    /// The highest sequence that came.
    highest: AtomicU64,
    /// What it was when the present hold began; without one, no bound.
    before_hold: AtomicU64,
    /// Taken to begin or end a hold.
    holding: Mutex<()>,
}

impl Namespace {
    pub(crate) fn new(
        index: u16,
        name: names::Namespace,
        settings: settings::Namespace,
        rules: Rules,
        stream: EventsStream,
        queue_limit: usize,
    ) -> Self {
        let style = Style {
            namespace: name.as_str().to_owned(),
            recovery: settings.recovery,
            epoch: stream.epoch,
        };
        let counters = Counters::new(name.as_str());
        Self {
            index,
            name,
            settings: ArcSwap::from_pointee(settings),
            rules: ArcSwap::from_pointee(rules),
            stream,
            style,
            rooms: Rooms::new(),
            barrier: Barrier::default(),
            doubts: Doubts::default(),
            trust: Trust::new(),
            counters,
            queue_limit,
            sessions: Mutex::default(),
            // The link is not verified yet.
            holds: AtomicUsize::new(1),
            watermark: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            before_hold: AtomicU64::new(0),
            holding: Mutex::default(),
        }
    }

    /// Returns whether durable events are held back.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.load(Ordering::SeqCst) > 0
    }

    /// Holds every session until the matching [`Namespace::release`].
    pub(crate) fn hold(&self) {
        let _guard = self.holding.lock();
        if self.holds.fetch_add(1, Ordering::SeqCst) == 0 {
            let highest = self.highest.load(Ordering::SeqCst);
            self.before_hold.store(highest, Ordering::SeqCst);
        }
    }

    /// Ends a hold, and sends what waited.
    pub(crate) fn release(&self) {
        let guard = self.holding.lock();
        if self.holds.load(Ordering::SeqCst) == 1 {
            self.before_hold.store(u64::MAX, Ordering::SeqCst);
        }
        let before = self
            .holds
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |holds| holds.checked_sub(1));
        drop(guard);
        if before == Ok(1) {
            for session in self.sessions() {
                session.release_namespace();
            }
        }
    }

    /// Returns the sequence up to which every room is complete.
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Relaxed)
    }

    /// Notes that an event came.
    pub(crate) fn has_come(&self, sequence: u64) {
        self.highest.fetch_max(sequence, Ordering::SeqCst);
    }

    /// Returns the highest sequence that a client may have been sent: what comes during a hold leaves behind it, in order.
    pub(crate) fn highest_sent(&self) -> u64 {
        let before_hold = self.before_hold.load(Ordering::SeqCst);
        before_hold.min(self.highest.load(Ordering::SeqCst))
    }

    /// Notes that every room is complete up to a sequence.
    pub(crate) fn raise_watermark(&self, sequence: u64) {
        self.watermark.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Adds a session.
    pub(crate) fn insert(&self, session: &Arc<Session>) {
        self.sessions.lock().insert(session.sid, Arc::clone(session));
    }

    /// Removes a session, unless another one has taken its id.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions
            .get(&session.sid)
            .is_some_and(|known| Arc::ptr_eq(known, session))
        {
            sessions.remove(&session.sid);
        }
    }

    /// Returns a session.
    pub(crate) fn session(&self, sid: Sid) -> Option<Arc<Session>> {
        self.sessions.lock().get(&sid).cloned()
    }

    /// Returns all sessions.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Returns the clients of all sessions.
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let sessions = self.sessions.lock();
        sessions
            .values()
            .map(|session| Arc::clone(&session.client))
            .collect()
    }

    /// Returns how many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.sessions.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_during_a_hold_was_sent_to_nobody() {
        let settings = settings::Namespace::default();
        let rules = Rules::compile("/", &settings).unwrap();
        let stream = EventsStream {
            name: "EVENTS".to_owned(),
            epoch: 1,
        };
        let namespace = Namespace::new(0, names::Namespace::main(), settings, rules, stream, 1000);
        assert_eq!(namespace.highest_sent(), 0);
        namespace.release();
        namespace.has_come(5);
        assert_eq!(namespace.highest_sent(), 5);
        namespace.hold();
        namespace.hold();
        namespace.has_come(9);
        assert_eq!(namespace.highest_sent(), 5);
        namespace.release();
        assert_eq!(namespace.highest_sent(), 5);
        namespace.release();
        assert_eq!(namespace.highest_sent(), 9);
    }
}
