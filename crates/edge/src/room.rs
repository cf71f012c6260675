//! Rooms of one namespace at this edge: who is in them, and how far each is complete.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_protocol::names::{Class, Room};
use parking_lot::Mutex;
use slab::Slab;

use crate::frame::Broadcast;
use crate::members::Members;
use crate::pending::Pending;
use crate::recent::Recent;
use crate::session::Session;

/// How long the subscription of an empty room is kept.
const LINGER: Duration = Duration::from_secs(2);

/// A room that somebody here is in.
pub(crate) struct Cell {
    pub(crate) room: Room,
    /// The id of its subscription on the delivery link; `session:` rooms have none.
    pub(crate) subscription: Option<u64>,
    pub(crate) state: Mutex<State>,
}

/// What is known of a room. The lock is held while an event walks over the members.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) members: Members,
    /// Everything of the room after the barrier and up to here was delivered; `None` before the first barrier.
    pub(crate) complete: Option<u64>,
    /// What came last, if anything has.
    pub(crate) recent: Option<Box<Recent>>,
    /// The room is being compared or repaired: what came in the meantime, and who is held.
    pub(crate) repair: Option<Box<Repair>>,
}

/// A repair that is under way.
#[derive(Default)]
pub(crate) struct Repair {
    /// How many have to end before the members go on.
    pub(crate) running: usize,
    /// The highest barrier that one of them passed: up to there everything was delivered or is held.
    pub(crate) barrier: u64,
    pub(crate) pending: Pending,
    pub(crate) held: Vec<Arc<Session>>,
}

/// The rooms of a namespace.
pub(crate) struct Rooms {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    cells: Slab<Arc<Cell>>,
    by_name: HashMap<Room, usize>,
    /// Rises with every subscription, so that a late message of a former one is not taken for a new room's.
    generation: u32,
    /// Rooms that became empty, and when.
    empty: Vec<(Room, Instant)>,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::default(),
        }
    }

    /// Returns a room's cell, made and subscribed where it is missing.
    pub(crate) fn enter(&self, room: &Room, subscribe: impl FnOnce(u32, u32) -> u64) -> Arc<Cell> {
        let mut table = self.table.lock();
        if let Some(&slot) = table.by_name.get(room) {
            return Arc::clone(&table.cells[slot]);
        }
        table.generation = table.generation.wrapping_add(1) & 0xf_ffff;
        let generation = table.generation;
        let entry = table.cells.vacant_entry();
        let slot = entry.key();
        let subscription = (room.class() != Class::Session).then(|| {
            subscribe(
                generation,
                u32::try_from(slot).expect("fewer than 2^32 rooms fit into memory"),
            )
        });
        let cell = Arc::new(Cell {
            room: room.clone(),
            subscription,
            state: Mutex::default(),
        });
        entry.insert(Arc::clone(&cell));
        table.by_name.insert(room.clone(), slot);
        cell
    }

    /// Returns a room's cell.
    pub(crate) fn find(&self, room: &Room) -> Option<Arc<Cell>> {
        let table = self.table.lock();
        table
            .by_name
            .get(room)
            .map(|&slot| Arc::clone(&table.cells[slot]))
    }

    /// Returns the cell of a subscription.
    pub(crate) fn of_subscription(&self, slot: usize, id: u64) -> Option<Arc<Cell>> {
        let table = self.table.lock();
        table
            .cells
            .get(slot)
            .filter(|cell| cell.subscription == Some(id))
            .cloned()
    }

    /// Notes that a room has become empty.
    pub(crate) fn emptied(&self, room: &Room) {
        self.table.lock().empty.push((room.clone(), Instant::now()));
    }

    /// Gives up rooms that have been empty for a while; `leave` is told of each, with how far it was complete.
    pub(crate) fn sweep(&self, mut leave: impl FnMut(&Cell, Option<u64>)) {
        let mut table = self.table.lock();
        let due = table
            .empty
            .iter()
            .take_while(|(_, since)| since.elapsed() >= LINGER)
            .count();
        let due: Vec<Room> = table.empty.drain(..due).map(|(room, _)| room).collect();
        for room in due {
            let Some(&slot) = table.by_name.get(&room) else {
                continue;
            };
            // A cell that somebody holds is about to get a member.
            if Arc::strong_count(&table.cells[slot]) > 1 {
                table.empty.push((room, Instant::now()));
                continue;
            }
            let complete = {
                let state = table.cells[slot].state.lock();
                if !state.members.is_empty() {
                    continue;
                }
                state.complete
            };
            table.by_name.remove(&room);
            leave(&table.cells.remove(slot), complete);
        }
    }

    /// Returns every room.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.table
            .lock()
            .cells
            .iter()
            .map(|(_, cell)| Arc::clone(cell))
            .collect()
    }

    /// Names every subscription, under the lock under which new ones are made.
    pub(crate) fn subscriptions(&self, mut name: impl FnMut(u64, &Room)) {
        for (_, cell) in &self.table.lock().cells {
            if let Some(subscription) = cell.subscription {
                name(subscription, &cell.room);
            }
        }
    }
}

impl State {
    /// Takes the next stored event: the room is complete up to there.
    pub(crate) fn advance(&mut self, sequence: u64, event: &Arc<Broadcast>) {
        let before = self.complete.replace(sequence).unwrap_or(sequence);
        self.recent
            .get_or_insert_with(|| Box::new(Recent::new(before)))
            .push(sequence, event);
    }

    /// Returns what came after a sequence, and up to where the room is complete; `None` where the stream must be
    /// asked.
    pub(crate) fn since(&self, after: u64) -> Option<(Vec<Arc<Broadcast>>, u64)> {
        let complete = self.complete.filter(|_| self.repair.is_none())?;
        if complete <= after {
            return Some((Vec::new(), complete));
        }
        Some((self.recent.as_ref()?.since(after)?, complete))
    }

    /// Holds the members and what comes until every repair has ended.
    pub(crate) fn suspend(&mut self) {
        let members = &self.members;
        let repair = self.repair.get_or_insert_with(|| {
            let held: Vec<_> = members.iter().map(|member| Arc::clone(&member.session)).collect();
            for session in &held {
                session.hold();
            }
            Box::new(Repair {
                held,
                ..Repair::default()
            })
        });
        repair.running += 1;
    }
}
