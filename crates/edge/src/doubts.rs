//! Doubts of publishers, and what this edge found when it looked at them.
//!
//! A doubt lies in the stream behind the events that it is about, and comes over the delivery link in that order: its
//! rooms are held on the spot, so no client sees an offset above the doubt before it has everything below it. What
//! is left are clients whose last offset lies between a doubted event and the doubt. For them each edge writes down
//! what it had missed, and up to which doubt it has looked; whoever takes over a client of an edge that is gone reads
//! just that again.

mod findings;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_bus::history::now;
use carillon_bus::{Bucket, HistoryError, TableError};
use carillon_protocol::doubt::{Doubt, Findings, Lack};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::{Class, Room};
use parking_lot::Mutex;

use self::findings::{key, may_have_lived};
use crate::delivery::session_cell;
use crate::entrance::Refused;
use crate::frame::Broadcast;
use crate::http::closing_of;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::repair::PATIENCE;
use crate::room::Cell;
use crate::session::Session;

/// Doubts that are remembered for a namespace.
const MOST: usize = 10_000;
/// What this edge had missed, as it is remembered one by one: all of it is one message of NATS.
const MOST_LATE: usize = 2_000;
/// Rooms that were left, and are remembered.
const MOST_LEFT: usize = 100_000;
/// Pause between two attempts to compare.
const RETRY: Duration = Duration::from_millis(200);
/// A doubt comes at most so long after the events that it is about, unless NATS was away in between.
const BEFORE: u64 = 60_000;

/// The doubts about the rooms of one namespace.
#[derive(Default)]
pub(crate) struct Doubts {
    known: Mutex<Known>,
    /// The findings of all edges with the time at which reading them began: many clients may come back at once.
    findings: tokio::sync::Mutex<Option<(Instant, Arc<[Findings]>)>>,
}

#[derive(Default)]
struct Known {
    /// By sequence, with the time at which this edge learnt of it.
    doubts: BTreeMap<u64, (Instant, Arc<Doubt>)>,
    waiting: Waiting,
    /// Every doubt up to this sequence is known.
    read: u64,
    through: u64,
    late: VecDeque<(Instant, Lack)>,
    /// Rooms that nobody here is in any more, with how far each was complete.
    left: HashMap<Room, (Instant, u64)>,
}

/// Doubts that this edge has not looked at.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Each with the sequence after which a delivery may be missing.
    rooms: BTreeMap<Room, u64>,
    /// The rooms of this edge among them: each is held once, however many doubts name it.
    cells: HashMap<Room, Arc<Cell>>,
    /// The sequence of the last doubt.
    through: u64,
}

/// Members of a room in doubt that came with an offset above a doubted event; they are held.
struct Returned {
    cell: Arc<Cell>,
    /// The sequence after which a delivery may be missing.
    after: u64,
    sessions: Vec<Arc<Session>>,
}

/// Whose word counts for a client that comes back.
pub(crate) enum Former<'a> {
    /// The client was at these edges.
    Edges(&'a [EdgeId]),
    /// It may have been at any.
    Any,
}

impl Known {
    /// Remembers what this edge had missed.
    fn note(&mut self, lack: Lack) {
        let now = Instant::now();
        if self.late.len() >= MOST_LATE {
            let same_room = |(_, known): &&mut (Instant, Lack)| known.room == lack.room;
            if let Some((since, known)) = self.late.iter_mut().rfind(same_room) {
                *since = now;
                return known.widen(&lack);
            }
            self.late.pop_front();
        }
        self.late.push_back((now, lack));
    }
}

impl Doubts {
    /// Takes a doubt to be looked at, with the rooms of this edge that it names; returns those that are to be held for
    /// it.
    fn add(&self, sequence: u64, doubt: Arc<Doubt>, cells: Vec<Arc<Cell>>) -> Vec<Arc<Cell>> {
        let mut known = self.known.lock();
        let waiting = &mut known.waiting;
        waiting.through = waiting.through.max(sequence);
        for (room, after) in &doubt.rooms {
            let lowest = waiting.rooms.entry(room.clone()).or_insert(*after);
            *lowest = (*after).min(*lowest);
        }
        let mut fresh = cells;
        fresh.retain(|cell| match waiting.cells.entry(cell.room.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(cell));
                true
            }
            Entry::Occupied(_) => false,
        });
        known.doubts.insert(sequence, (Instant::now(), doubt));
        while known.doubts.len() > MOST {
            known.doubts.pop_first();
        }
        fresh
    }

    /// Takes what was not looked at yet.
    fn take_waiting(&self) -> Option<Waiting> {
        let waiting = std::mem::take(&mut self.known.lock().waiting);
        (!waiting.rooms.is_empty()).then_some(waiting)
    }

    /// Notes what this edge had missed in a room.
    pub(crate) fn found(&self, lack: Lack) {
        self.known.lock().note(lack);
    }

    /// Notes that nobody here is in a room any more; it was complete up to a sequence.
    pub(crate) fn left(&self, room: &Room, complete: Option<u64>) {
        let Some(complete) = complete else { return };
        let mut known = self.known.lock();
        if known.left.len() < MOST_LEFT || known.left.contains_key(room) {
            known.left.insert(room.clone(), (Instant::now(), complete));
        }
    }

    /// Notes what clients may lack that have left these rooms with this edge, before it could look at a doubt.
    fn look_at_left(&self, rooms: &BTreeMap<Room, u64>, through: u64) {
        let mut known = self.known.lock();
        for (room, after) in rooms {
            let Some((_, complete)) = known.left.get(room) else {
                continue;
            };
            let lack = Lack {
                room: room.clone(),
                after: (*complete).max(*after),
                up_to: through,
                proof: through,
            };
            known.note(lack);
        }
    }

    /// Notes that this edge has looked at every doubt up to a sequence.
    fn looked(&self, edge: EdgeId, through: u64, memory: Duration) -> Findings {
        let mut known = self.known.lock();
        known.through = known.through.max(through);
        known.late.retain(|(since, _)| since.elapsed() < memory);
        known.doubts.retain(|_, (since, _)| since.elapsed() < memory);
        known.left.retain(|_, (since, _)| since.elapsed() < memory);
        Findings {
            edge: Some(edge),
            at: Some(now()),
            through: known.through,
            late: known.late.iter().map(|(_, lack)| lack.clone()).collect(),
        }
    }

    /// Returns the doubts that an edge did not look at and that concern clients with an offset, as lacks of these
    /// rooms.
    fn lacks(&self, rooms: &[Room], offset: u64, findings: &Findings) -> Vec<Lack> {
        let known = self.known.lock();
        let doubts = known.doubts.range(offset.max(findings.through) + 1..);
        let learnt = |since: &Instant| now().saturating_sub(since.elapsed().as_millis() as u64);
        doubts
            // An edge that died long before has delivered none of the events.
            .filter(|(_, (since, _))| may_have_lived(findings, learnt(since).saturating_sub(BEFORE)))
            .flat_map(|(_, (_, doubt))| doubt.lacks(offset))
            .filter(|lack| rooms.contains(&lack.room))
            .collect()
    }

    /// Returns the last doubt that concerns clients with an offset in one of these rooms.
    fn last(&self, rooms: &[Room], offset: u64) -> Option<u64> {
        let known = self.known.lock();
        let mut doubts = known.doubts.range(offset + 1..).rev();
        let found = doubts.find(|(_, (_, doubt))| doubt.lacks(offset).any(|lack| rooms.contains(&lack.room)));
        found.map(|(sequence, _)| *sequence)
    }
}

impl Hub {
    /// Takes a doubt from the delivery link: its rooms are held until they have been compared with the stream.
    pub(crate) fn doubted(self: &Arc<Self>, namespace: &Arc<Namespace>, sequence: u64, doubt: Doubt) {
        let cells = doubt
            .rooms
            .keys()
            .filter_map(|room| doubted_cell(namespace, room));
        let cells = cells.collect();
        for cell in namespace.doubts.add(sequence, Arc::new(doubt), cells) {
            cell.state.lock().suspend();
        }
        namespace.trust.doubt();
    }

    /// Looks at the doubts that came, and writes down what was found.
    pub(crate) async fn look_at_doubts(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        while let Some(waiting) = namespace.doubts.take_waiting() {
            namespace.doubts.look_at_left(&waiting.rooms, waiting.through);
            let returned = self.settle(namespace, &waiting).await;
            self.write_findings(namespace, waiting.through).await;
            if !returned.is_empty() {
                let (hub, namespace) = (Arc::clone(self), Arc::clone(namespace));
                tokio::spawn(async move { hub.give_again(&namespace, returned, waiting.through).await });
            }
        }
    }

    /// Compares rooms with their streams, delivers what is missing, and lets their members go on, but for those who
    /// came with an offset above a doubted event.
    async fn settle(self: &Arc<Self>, namespace: &Arc<Namespace>, waiting: &Waiting) -> Vec<Returned> {
        let cells: Vec<Arc<Cell>> = waiting.cells.values().cloned().collect();
        let mut compared = pin!(self.compare_in_doubt(namespace, &cells));
        let lasts = match tokio::time::timeout(PATIENCE, &mut compared).await {
            Ok(lasts) => lasts,
            Err(_) => {
                cells.iter().for_each(|cell| self.close_held(cell));
                compared.await
            }
        };
        let Some((lasts, barrier)) = lasts else {
            return Vec::new();
        };
        let returned = cells
            .iter()
            .filter_map(|cell| hold_returned(cell, waiting.rooms[&cell.room]));
        let returned = returned.collect();
        let checks = cells.iter().map(|cell| {
            let last = lasts.get(&cell.room).copied().unwrap_or(0);
            self.run_repair(namespace, cell, last.min(barrier), barrier)
        });
        futures_util::future::join_all(checks).await;
        returned
    }

    /// Returns the last sequence of each room, and a barrier up to which everything has come that will; `None` when
    /// the edge stops.
    async fn compare_in_doubt(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cells: &[Arc<Cell>],
    ) -> Option<(HashMap<Room, u64>, u64)> {
        loop {
            let barrier = namespace.pass_barrier(self, None).await;
            match self.lasts(namespace, cells, barrier).await {
                Ok(lasts) => return Some((lasts, barrier)),
                Err(error) => tracing::debug!(%error, "rooms in doubt cannot be compared yet"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Sends members that came with an offset above a doubted event what the edge that they left may not have
    /// delivered, and lets them go on.
    async fn give_again(self: &Arc<Self>, namespace: &Arc<Namespace>, returned: Vec<Returned>, doubt: u64) {
        let findings = self.findings_of_all(namespace, doubt).await;
        for Returned {
            cell,
            after,
            sessions,
        } in returned
        {
            let up_to = sessions
                .iter()
                .map(|session| session.resumed())
                .max()
                .unwrap_or(0);
            let events = self
                .history(namespace, &cell.room, after, up_to, self.history_limit)
                .await;
            for session in &sessions {
                match (&findings, &events) {
                    (Ok(findings), Ok(events)) => {
                        let resumed = session.resumed();
                        let may_lack = |event: &Broadcast| {
                            let sequence = event.sequence.unwrap_or(0);
                            findings.iter().any(|findings| {
                                let is_late =
                                    |lack: &Lack| lack.concerns(resumed) && lack.covers(&cell.room, sequence);
                                let has_looked = findings.through >= doubt;
                                findings.late.iter().any(is_late)
                                    || !has_looked && may_have_lived(findings, event.event.time)
                            })
                        };
                        let events: Vec<_> = events.iter().filter(|event| may_lack(event)).cloned().collect();
                        replay_within(session, &events, resumed);
                    }
                    // It comes back, and what it may lack is read then.
                    _ => session.client.close(closing_of(Refused::Unavailable)),
                }
                session.release();
            }
        }
    }

    /// Reads the doubts that came while nobody listened; all rooms were compared with the stream since.
    pub(crate) async fn catch_up_with_doubts(
        &self,
        namespace: &Namespace,
        up_to: u64,
    ) -> Result<(), HistoryError> {
        let subject = self.bus.subjects().doubts(&namespace.name);
        let read = namespace.doubts.known.lock().read;
        let last = self
            .bus
            .last(&namespace.stream.name, std::slice::from_ref(&subject), 0);
        let Some(last) = last.await?.first().map(|last| last.sequence.min(up_to)) else {
            return Ok(());
        };
        let stored = self
            .bus
            .read(&namespace.stream.name, &subject, read, last, MOST)
            .await?;
        let mut known = namespace.doubts.known.lock();
        for message in stored {
            if let Ok(doubt) = serde_json::from_slice(&message.body) {
                known
                    .doubts
                    .entry(message.sequence)
                    .or_insert_with(|| (Instant::now(), Arc::new(doubt)));
            }
        }
        known.read = known.read.max(last);
        Ok(())
    }

    /// Returns what a client that comes back with an offset may lack below it.
    pub(crate) async fn lacks(
        &self,
        namespace: &Namespace,
        rooms: &[Room],
        offset: u64,
        former: Former<'_>,
    ) -> Result<Vec<Lack>, TableError> {
        let table = self.bus.table(Bucket::Cluster);
        let findings = match former {
            Former::Edges([]) => return Ok(Vec::new()),
            Former::Edges(edges) => {
                let mut findings = Vec::new();
                for edge in edges {
                    let entry = table.get(&key(namespace, edge.as_str())).await?;
                    let read = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
                    // The client was there, so the edge lived.
                    findings.push(Findings {
                        at: None,
                        ..read.unwrap_or_default()
                    });
                }
                findings
            }
            Former::Any => {
                let doubt = namespace.doubts.last(rooms, offset).unwrap_or(0);
                self.findings_of_all(namespace, doubt)
                    .await
                    .map_err(|_| TableError::Away)?
            }
        };
        let mut lacks = Vec::new();
        for findings in findings {
            lacks.extend(namespace.doubts.lacks(rooms, offset, &findings));
            let late = findings
                .late
                .into_iter()
                .filter(|lack| lack.concerns(offset) && rooms.contains(&lack.room));
            lacks.extend(late);
        }
        Ok(lacks)
    }

    /// How long doubts and findings matter: a client that was away for longer begins anew.
    fn memory(&self) -> Duration {
        self.session.recovery * 2 + Duration::from_secs(60)
    }
}

/// Adds those of a room's events to what waits for a session that are not above a sequence.
pub(crate) fn replay_within(session: &Session, events: &[Arc<Broadcast>], up_to: u64) {
    for event in events {
        let sequence = event.sequence.unwrap_or(0);
        if sequence <= up_to {
            session.replay(sequence, event);
        }
    }
}

/// Holds the members of a room that came with an offset above a sequence.
fn hold_returned(cell: &Arc<Cell>, after: u64) -> Option<Returned> {
    let state = cell.state.lock();
    let members = state.members.iter().map(|member| &member.session);
    let sessions: Vec<_> = members
        .filter(|session| session.resumed() > after)
        .cloned()
        .collect();
    sessions.iter().for_each(|session| session.hold());
    (!sessions.is_empty()).then(|| Returned {
        cell: Arc::clone(cell),
        after,
        sessions,
    })
}

fn doubted_cell(namespace: &Arc<Namespace>, room: &Room) -> Option<Arc<Cell>> {
    match room.class() {
        Class::Session => session_cell(namespace, room),
        _ => namespace.rooms.find(room),
    }
}

#[cfg(test)]
mod tests {
    use super::findings::SILENT;
    use super::*;

    const MEMORY: Duration = Duration::from_secs(300);

    fn room(name: &str) -> Room {
        Room::new(name).unwrap()
    }

    #[test]
    fn clients_that_left_a_room_may_lack_what_came_since() {
        let doubts = Doubts::default();
        doubts.left(&room("a"), Some(10));
        doubts.left(&room("b"), Some(20));
        // Nobody ever heard it here.
        doubts.left(&room("c"), None);
        let rooms = [("a", 12), ("b", 15), ("c", 1), ("d", 1)];
        let rooms: BTreeMap<Room, u64> = rooms.map(|(name, after)| (room(name), after)).into();
        doubts.look_at_left(&rooms, 30);
        let findings = doubts.looked(EdgeId::from_random([1; EdgeId::LEN]), 30, MEMORY);
        let lacks = |name: &str, sequence| {
            let room = room(name);
            findings.late.iter().any(|lack| lack.covers(&room, sequence))
        };
        assert!(!lacks("a", 12) && lacks("a", 13) && lacks("a", 30));
        assert!(!lacks("b", 16) && !lacks("b", 20) && lacks("b", 21));
        assert!(!lacks("c", 2) && !lacks("d", 2));
    }

    #[test]
    fn an_edge_that_died_long_before_a_doubt_is_not_asked() {
        let doubts = Doubts::default();
        let doubt = Doubt {
            rooms: [(room("a"), 5)].into(),
        };
        assert!(doubts.add(20, Arc::new(doubt), Vec::new()).is_empty());
        let lacks = |at: Option<u64>, through: u64| {
            let findings = Findings {
                at,
                through,
                ..Findings::default()
            };
            doubts.lacks(&[room("a")], 10, &findings).len()
        };
        assert_eq!(doubts.last(&[room("a")], 10), Some(20));
        assert_eq!(doubts.last(&[room("b")], 10), None);
        assert_eq!(lacks(Some(now()), 0), 1);
        assert_eq!(lacks(Some(now()), 20), 0, "it has looked");
        assert_eq!(lacks(Some(now() - SILENT - BEFORE - 1000), 0), 0);
        assert_eq!(lacks(None, 0), 1, "it is not known to be dead");
    }
}
