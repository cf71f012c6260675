//! Doubts of publishers, and what this edge found when it looked at them.
//!
//! A doubt lies in the stream behind the events that it is about, and comes over the delivery link in that order: its
//! rooms are held on the spot, so no client sees an offset above the doubt before it has everything below it. What
//! is left are clients whose last offset lies between a doubted event and the doubt. For them each edge writes down
//! what it had missed, and up to which doubt it has looked; whoever takes over a client of an edge that is gone reads
//! just that again.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_bus::{Bucket, HistoryError, TableError};
use carillon_protocol::doubt::{Doubt, Findings, Lack};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::{Class, Room};
use parking_lot::Mutex;

use crate::delivery::session_cell;
use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::repair::PATIENCE;
use crate::room::Cell;
use crate::session::Session;

/// Doubts that are remembered for a namespace, and late rooms of this edge.
const MOST: usize = 10_000;
/// Pause between two attempts to compare.
const RETRY: Duration = Duration::from_millis(200);

/// The doubts about the rooms of one namespace.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By sequence, with the time at which this edge learnt of it.
    doubts: BTreeMap<u64, (Instant, Arc<Doubt>)>,
    /// Sequences of doubts that this edge has not looked at.
    waiting: Vec<u64>,
    /// Every doubt up to this sequence is known.
    read: u64,
    through: u64,
    late: Vec<(Instant, Lack)>,
}

/// Whose word counts for a client that comes back.
pub(crate) enum Former<'a> {
    /// The client was at these edges.
    Edges(&'a [EdgeId]),
    /// It may have been at any.
    Any,
}

impl Doubts {
    /// Takes a doubt to be looked at.
    pub(crate) fn add(&self, sequence: u64, doubt: Arc<Doubt>) {
        let mut known = self.0.lock();
        known.doubts.insert(sequence, (Instant::now(), doubt));
        known.waiting.push(sequence);
        while known.doubts.len() > MOST {
            known.doubts.pop_first();
        }
    }

    /// Takes what was not looked at yet: the rooms, and the highest sequence.
    pub(crate) fn take_waiting(&self) -> Option<(BTreeMap<Room, u64>, u64)> {
        let mut known = self.0.lock();
        let waiting = std::mem::take(&mut known.waiting);
        let through = *waiting.iter().max()?;
        let mut rooms = BTreeMap::new();
        for (_, doubt) in waiting.iter().filter_map(|sequence| known.doubts.get(sequence)) {
            for (room, after) in &doubt.rooms {
                let lowest = rooms.entry(room.clone()).or_insert(*after);
                *lowest = (*after).min(*lowest);
            }
        }
        Some((rooms, through))
    }

    /// Notes what this edge had missed in a room.
    pub(crate) fn found(&self, lack: Lack) {
        let mut known = self.0.lock();
        if known.late.len() < MOST {
            known.late.push((Instant::now(), lack));
        }
    }

    /// Notes that this edge has looked at every doubt up to a sequence.
    fn looked(&self, through: u64, memory: Duration) -> Findings {
        let mut known = self.0.lock();
        known.through = known.through.max(through);
        known.late.retain(|(since, _)| since.elapsed() < memory);
        known.doubts.retain(|_, (since, _)| since.elapsed() < memory);
        Findings {
            through: known.through,
            late: known.late.iter().map(|(_, lack)| lack.clone()).collect(),
        }
    }

    /// Returns the doubts above a sequence that concern clients with an offset, as lacks of these rooms.
    fn lacks(&self, rooms: &[Room], offset: u64, above: u64) -> Vec<Lack> {
        let known = self.0.lock();
        let doubts = known.doubts.range(offset.max(above) + 1..);
        doubts
            .flat_map(|(_, (_, doubt))| doubt.lacks(offset))
            .filter(|lack| rooms.contains(&lack.room))
            .collect()
    }
}

impl Hub {
    /// Takes a doubt from the delivery link: its rooms are held until they have been compared with the stream.
    pub(crate) fn doubted(self: &Arc<Self>, namespace: &Arc<Namespace>, sequence: u64, doubt: Doubt) {
        for room in doubt.rooms.keys() {
            if let Some(cell) = doubted_cell(namespace, room) {
                cell.state.lock().suspend();
            }
        }
        namespace.doubts.add(sequence, Arc::new(doubt));
        self.doubtful.notify_one();
    }

    /// Looks at the doubts that came, and writes down what was found.
    pub(crate) async fn look_at_doubts(self: &Arc<Self>) {
        for namespace in self.namespaces() {
            while let Some((rooms, through)) = namespace.doubts.take_waiting() {
                self.settle(namespace, &rooms).await;
                self.write_findings(namespace, through).await;
            }
        }
    }

    /// Compares rooms with their streams, delivers what is missing, and lets their members go on.
    async fn settle(self: &Arc<Self>, namespace: &Arc<Namespace>, rooms: &BTreeMap<Room, u64>) {
        let cells: Vec<Arc<Cell>> = rooms
            .keys()
            .filter_map(|room| doubted_cell(namespace, room))
            .collect();
        let mut compared = pin!(self.compare_in_doubt(namespace, &cells));
        let lasts = match tokio::time::timeout(PATIENCE, &mut compared).await {
            Ok(lasts) => lasts,
            Err(_) => {
                cells.iter().for_each(|cell| self.close_held(cell));
                compared.await
            }
        };
        let Some((lasts, barrier)) = lasts else { return };
        let checks = cells.iter().map(|cell| async {
            self.give_again(namespace, cell, rooms[&cell.room]).await;
            let last = lasts.get(&cell.room).copied().unwrap_or(0);
            self.run_repair(namespace, cell, last.min(barrier), barrier).await;
        });
        futures_util::future::join_all(checks).await;
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

    /// Sends members that came back with an offset above a doubted event what they may lack below that offset: the
    /// edge that could have told is not known to have looked.
    async fn give_again(self: &Arc<Self>, namespace: &Arc<Namespace>, cell: &Arc<Cell>, after: u64) {
        let returned: Vec<_> = {
            let state = cell.state.lock();
            let members = state.members.iter().map(|member| &member.session);
            members
                .filter(|session| session.resumed() > after)
                .cloned()
                .collect()
        };
        let Some(up_to) = returned.iter().map(|session| session.resumed()).max() else {
            return;
        };
        match self
            .history(namespace, &cell.room, after, up_to, self.history_limit)
            .await
        {
            Ok(events) => {
                for session in &returned {
                    replay_within(session, &events, session.resumed());
                }
            }
            Err(error) => tracing::warn!(%error, room = %cell.room, "room in doubt cannot be read"),
        }
    }

    /// Writes down that this edge has looked at every doubt up to a sequence, and what it had missed.
    pub(crate) async fn write_findings(&self, namespace: &Namespace, through: u64) {
        let memory = self.memory();
        let findings = namespace.doubts.looked(through, memory);
        let value = serde_json::to_vec(&findings).expect("findings are JSON");
        let written = self
            .bus
            .table(Bucket::Cluster)
            .put(&key(namespace, self.id.as_str()), value.into(), Some(memory))
            .await;
        if let Err(error) = written {
            tracing::debug!(%error, "findings cannot be written, the next ones will be");
        }
    }

    /// Reads the doubts that came while nobody listened; all rooms were compared with the stream since.
    pub(crate) async fn catch_up_with_doubts(
        &self,
        namespace: &Namespace,
        up_to: u64,
    ) -> Result<(), HistoryError> {
        let subject = self.bus.subjects().doubts(&namespace.name);
        let read = namespace.doubts.0.lock().read;
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
        let mut known = namespace.doubts.0.lock();
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
                    findings.push(read.unwrap_or_default());
                }
                findings
            }
            Former::Any => {
                let entries = table.all(&key(namespace, "*")).await?;
                let read = entries.iter().map(|entry| serde_json::from_slice(&entry.value));
                read.map(Result::unwrap_or_default).collect()
            }
        };
        let mut lacks = Vec::new();
        for Findings { through, late } in findings {
            let late = late
                .into_iter()
                .filter(|lack| lack.concerns(offset) && rooms.contains(&lack.room));
            lacks.extend(late);
            lacks.extend(namespace.doubts.lacks(rooms, offset, through));
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

fn doubted_cell(namespace: &Arc<Namespace>, room: &Room) -> Option<Arc<Cell>> {
    match room.class() {
        Class::Session => session_cell(namespace, room),
        _ => namespace.rooms.find(room),
    }
}

/// The key of an edge's findings; the namespace's token may hold what a key may not.
fn key(namespace: &Namespace, edge: &str) -> String {
    use base64::Engine;

    let name = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(namespace.name.as_str());
    format!("findings.{name}.{edge}")
}
