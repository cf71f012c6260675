//! All sessions of the cluster in memory, with the indexes that requests are answered from.
//!
//! `all` and the rooms of single sessions have no index of their own: they follow from the namespace and the sid.

mod members;
mod parted;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State, Transport};
use smallvec::SmallVec;

use parted::{Heard, Parted};

pub(crate) use session::{Session, hears_user};

/// How much later than a window's end sessions are still ended with what others of their users heard, in
/// milliseconds.
const LATE: u64 = 60_000;

/// How long a session may be away, by namespace.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    /// `[session] recovery`.
    pub(crate) default: Duration,
    /// Namespaces that keep no session.
    pub(crate) without: HashSet<Namespace>,
    /// `[router] offline_margin`: how long before a transport was lost a delivery may have missed it.
    pub(crate) margin: Duration,
}

impl Windows {
    fn of(&self, namespace: &Namespace) -> u64 {
        if self.without.contains(namespace) {
            return 0;
        }
        millis(self.default)
    }
}

/// The sessions that are live or away.
pub(crate) struct Table {
    windows: Windows,
    generation: u32,
    sessions: HashMap<Sid, Entry>,
    namespaces: HashMap<Namespace, Index>,
    /// Live sessions by owner.
    edges: HashMap<EdgeId, BTreeSet<Sid>>,
    /// Sessions away by the time at which they end, in milliseconds since 1970.
    deadlines: BTreeSet<(u64, Sid)>,
    parted: Parted,
}

struct Entry {
    revision: u64,
    generation: u32,
    deadline: Option<u64>,
    session: Session,
}

#[derive(Default)]
struct Index {
    /// Sessions live and away.
    users: HashMap<Arc<str>, SmallVec<[Sid; 1]>>,
    /// Live members, but for those that a room has by its name.
    rooms: HashMap<Room, BTreeSet<Sid>>,
    live: BTreeSet<Sid>,
    /// Live sessions that have left `all`.
    without_all: BTreeSet<Sid>,
}

/// What a change of a record did to its session.
pub(crate) struct Changed {
    pub(crate) before: Option<Session>,
    pub(crate) after: bool,
}

impl Table {
    /// Makes an empty table.
    pub(crate) fn new(windows: Windows) -> Self {
        // Whoever is away when another session of the user ends looks back at it a window later; routers may be late.
        let memory = millis(windows.default).saturating_add(LATE);
        Self {
            windows,
            generation: 0,
            sessions: HashMap::new(),
            namespaces: HashMap::new(),
            edges: HashMap::new(),
            deadlines: BTreeSet::new(),
            parted: Parted::new(memory),
        }
    }

    /// Takes over a record; an older one than that which is known changes nothing.
    pub(crate) fn put(&mut self, sid: Sid, revision: u64, record: Record, now: u64) -> Option<Changed> {
        let known = self.sessions.get(&sid);
        if known.is_some_and(|entry| entry.generation == self.generation && entry.revision >= revision) {
            return None;
        }
        let before = self.take(sid);
        if record.state == State::Ended {
            self.note_end(&record, now);
            return Some(Changed { before, after: false });
        }
        let mut session = Session::of(sid, record);
        self.share(&mut session);
        let deadline = (!session.live).then(|| {
            session
                .gone
                .unwrap_or(now)
                .saturating_add(self.windows.of(&session.namespace))
        });
        let entry = Entry {
            revision,
            generation: self.generation,
            deadline,
            session,
        };
        self.insert(sid, entry);
        Some(Changed { before, after: true })
    }

    fn note_end(&mut self, record: &Record, now: u64) {
        let gone = record.gone.unwrap_or(now);
        let (complete, until) = match record.complete {
            Some(complete) => (complete, u64::MAX),
            // Nothing waited for whoever had left the room.
            None if !hears_user(record) => (u64::MAX, gone),
            None => (u64::MAX, gone.saturating_sub(millis(self.windows.margin))),
        };
        if let Some(user) = &record.user
            && record.since <= until
        {
            let heard = Heard {
                epoch: record.epoch,
                start: record.start,
                complete,
                since: record.since,
                until,
            };
            self.parted
                .insert(record.namespace.clone(), Arc::clone(user), heard, now);
        }
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, sid: Sid) -> Option<Changed> {
        Some(Changed {
            before: Some(self.take(sid)?),
            after: false,
        })
    }

    /// Begins a new snapshot: what does not come again before [`Self::complete`] is dropped then.
    pub(crate) fn restart(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Drops what the snapshot did not have.
    pub(crate) fn complete(&mut self) -> Vec<(Sid, Session)> {
        let generation = self.generation;
        let stale = self
            .sessions
            .iter()
            .filter(|(_, entry)| entry.generation != generation);
        let stale: Vec<Sid> = stale.map(|(sid, _)| *sid).collect();
        stale
            .into_iter()
            .filter_map(|sid| Some((sid, self.take(sid)?)))
            .collect()
    }

    /// Uses one allocation for each name, however many sessions have it.
    fn share(&mut self, session: &mut Session) {
        if let Some((namespace, _)) = self.namespaces.get_key_value(&session.namespace) {
            session.namespace = namespace.clone();
        }
        let Some(index) = self.namespaces.get(&session.namespace) else {
            return;
        };
        if let Some(user) = &mut session.user
            && let Some((known, _)) = index.users.get_key_value(user)
        {
            *user = Arc::clone(known);
        }
        for (room, _) in &mut session.rooms {
            if let Some((known, _)) = index.rooms.get_key_value(room) {
                *room = known.clone();
            }
        }
    }

    fn insert(&mut self, sid: Sid, entry: Entry) {
        let session = &entry.session;
        let index = self.namespaces.entry(session.namespace.clone()).or_default();
        if let Some(user) = &session.user {
            index.users.entry(Arc::clone(user)).or_default().push(sid);
        }
        if session.live {
            self.edges.entry(session.owner).or_default().insert(sid);
            index.live.insert(sid);
            if !session.hears_all {
                index.without_all.insert(sid);
            }
            for (room, _) in &session.rooms {
                index.rooms.entry(room.clone()).or_default().insert(sid);
            }
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, sid));
        }
        self.sessions.insert(sid, entry);
    }

    fn take(&mut self, sid: Sid) -> Option<Session> {
        let Entry {
            session, deadline, ..
        } = self.sessions.remove(&sid)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, sid));
        }
        if let Some(owned) = self.edges.get_mut(&session.owner) {
            owned.remove(&sid);
            if owned.is_empty() {
                self.edges.remove(&session.owner);
            }
        }
        let Some(index) = self.namespaces.get_mut(&session.namespace) else {
            return Some(session);
        };
        if let Some(user) = &session.user
            && let Some(sids) = index.users.get_mut(user)
        {
            sids.retain(|known| *known != sid);
            if sids.is_empty() {
                index.users.remove(user);
            }
        }
        index.live.remove(&sid);
        index.without_all.remove(&sid);
        for (room, _) in &session.rooms {
            if let Some(members) = index.rooms.get_mut(room) {
                members.remove(&sid);
                if members.is_empty() {
                    index.rooms.remove(room);
                }
            }
        }
        if index.live.is_empty() && index.users.is_empty() {
            self.namespaces.remove(&session.namespace);
        }
        Some(session)
    }

    /// Returns one session.
    pub(crate) fn session(&self, sid: Sid) -> Option<&Session> {
        self.sessions.get(&sid).map(|entry| &entry.session)
    }

    /// Returns every session, live and away.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (Sid, &Session)> {
        self.sessions.iter().map(|(sid, entry)| (*sid, &entry.session))
    }

    /// Returns the sessions of a user, live and away, in one namespace.
    pub(crate) fn of_user<'a>(
        &'a self,
        namespace: &Namespace,
        user: &str,
    ) -> impl Iterator<Item = (Sid, &'a Session)> + use<'a> {
        let sids = self
            .namespaces
            .get(namespace)
            .and_then(|index| index.users.get(user));
        sids.into_iter()
            .flatten()
            .filter_map(|sid| Some((*sid, self.session(*sid)?)))
    }

    /// Returns the edges that own live sessions.
    pub(crate) fn owners(&self) -> impl Iterator<Item = EdgeId> {
        self.edges.keys().copied()
    }

    /// Returns live sessions of an edge, at most `limit`.
    pub(crate) fn owned(&self, edge: EdgeId, limit: usize) -> Vec<Sid> {
        self.edges
            .get(&edge)
            .map(|sids| sids.iter().take(limit).copied().collect())
            .unwrap_or_default()
    }

    /// Returns sessions whose time away is over, at most `limit`, the longest first, with the time it was over.
    pub(crate) fn due(&self, now: u64, limit: usize) -> Vec<(u64, Sid)> {
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline < now)
            .take(limit)
            .copied()
            .collect()
    }

    /// Returns whether a user came back before the time away of a session was over, or had not gone: another session
    /// answers for what came since.
    pub(crate) fn outlives(&self, namespace: &Namespace, user: &str, sid: Sid, gone: u64) -> bool {
        let over = gone.saturating_add(self.windows.of(namespace));
        self.remaining(namespace, user, sid)
            .any(|session| session.since <= over)
    }

    /// Returns whether an event that a session did not hear before it ends was heard in another session of the user,
    /// or will be answered for by one.
    pub(crate) fn covered_by_others(
        &self,
        namespace: &Namespace,
        user: &str,
        sid: Sid,
        (epoch, sequence, time): (u32, u64, u64),
    ) -> bool {
        self.remaining(namespace, user, sid)
            .any(|session| session.covers(epoch, sequence, time))
            || self.parted.covers(namespace, user, epoch, sequence, time)
    }

    /// The sessions of a user that are there when one of them ends: live, or ending later.
    fn remaining<'a>(
        &'a self,
        namespace: &Namespace,
        user: &str,
        sid: Sid,
    ) -> impl Iterator<Item = &'a Session> + use<'a> {
        let deadline = |sid: Sid| self.sessions.get(&sid).and_then(|entry| entry.deadline);
        let own = (deadline(sid), sid);
        let others = self
            .of_user(namespace, user)
            .filter(move |(other, _)| *other != sid);
        others
            .filter(move |(other, session)| session.live || (deadline(*other), *other) > own)
            .map(|(_, session)| session)
    }

    /// Returns whether an event of a user's room was or will be heard by a session of that user.
    pub(crate) fn covered(
        &self,
        namespace: &Namespace,
        user: &str,
        epoch: u32,
        sequence: u64,
        time: u64,
    ) -> bool {
        self.of_user(namespace, user)
            .any(|(_, session)| session.covers(epoch, sequence, time))
            || self.parted.covers(namespace, user, epoch, sequence, time)
    }

    /// Counts what operators see.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            live: self.edges.values().map(BTreeSet::len).sum(),
            away: self.deadlines.len(),
            users: self.namespaces.values().map(|index| index.users.len()).sum(),
            edges: self.edges.len(),
        }
    }
}

/// Sizes of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) live: usize,
    pub(crate) away: usize,
    pub(crate) users: usize,
    pub(crate) edges: usize,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whether a client of the transport can answer a question.
pub(crate) fn can_answer(transport: Transport) -> bool {
    transport != Transport::Sse
}
