//! One namespace at this edge: its rooms, its sessions, and how far its deliveries can be trusted.

mod holds;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use carillon_bus::streams::EventsStream;
use carillon_protocol::doubt::Lack;
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
use holds::Holds;

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
    /// What clients may lack whose sessions have ended, until their last records are written.
    ending: Mutex<HashMap<Sid, Vec<Lack>>>,
    holds: Holds,
    /// Everything up to this sequence has been delivered to its rooms.
    watermark: AtomicU64,
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
            ending: Mutex::default(),
            holds: Holds::new(),
            watermark: AtomicU64::new(0),
        }
    }

    /// Returns whether durable events are held back.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.is_held()
    }

    /// Holds every session until the matching [`Namespace::release`].
    pub(crate) fn hold(&self) {
        self.holds.begin();
    }

    /// Ends a hold, and sends what waited.
    pub(crate) fn release(&self) {
        if self.holds.end() {
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
        self.holds.has_come(sequence);
    }

    /// Returns the highest sequence that a client may have been sent: what comes during a hold leaves behind it, in order.
    pub(crate) fn highest_sent(&self) -> u64 {
        self.holds.highest_sent()
    }

    /// Notes that every room is complete up to a sequence.
    pub(crate) fn raise_watermark(&self, sequence: u64) {
        self.watermark.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Notes what the client of a session may lack that is about to end.
    pub(crate) fn ends_with(&self, sid: Sid, late: &[Lack]) {
        if !late.is_empty() {
            self.ending.lock().insert(sid, late.to_vec());
        }
    }

    /// The last record of a session is written.
    pub(crate) fn has_ended(&self, sid: Sid) {
        self.ending.lock().remove(&sid);
    }

    /// Returns what the client of a session may lack whose last record is not written.
    pub(crate) fn late_of_ending(&self, sid: Sid) -> Vec<Lack> {
        self.ending.lock().get(&sid).cloned().unwrap_or_default()
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
