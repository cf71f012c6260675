//! Deliveries from NATS: which room an event is for, whether something is missing before it, and the walk over
//! the room's members.

use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::{Deliveries, Delivery};
use carillon_protocol::doubt::Lack;
use carillon_protocol::event::Event;
use carillon_protocol::headers::{Fields, name};
use carillon_protocol::names::Room;
use carillon_service::telemetry;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::metrics;
use crate::namespace::Namespace;
use crate::room::{Cell, State};
use crate::turn::{Joined, Run, Turn};

/// Slots that are no rooms.
const PROBE: u32 = u32::MAX;
const SESSIONS: u32 = u32::MAX - 1;
const DOUBTS: u32 = u32::MAX - 2;

/// A subscription's id: 12 bits of the namespace, 20 of a generation, 32 of the room's slot.
pub(crate) fn subscription_id(namespace: u16, generation: u32, slot: u32) -> u64 {
    u64::from(namespace) << 52 | u64::from(generation & 0xf_ffff) << 32 | u64::from(slot)
}

fn parts(id: u64) -> (usize, u32) {
    ((id >> 52) as usize, id as u32)
}

/// The edge as the delivery link sees it.
pub(crate) struct Receiver {
    hub: Arc<Hub>,
    /// The turn under way; only the link's task looks at it.
    turn: Mutex<Option<Turn>>,
}

impl Receiver {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            turn: Mutex::new(None),
        }
    }
}

impl Deliveries for Receiver {
    fn begin_turn(&self) {
        self.turn.lock().get_or_insert_default();
    }

    fn end_turn(&self) {
        if let Some(mut turn) = self.turn.lock().take() {
            self.hub.finish_run(&mut turn);
            turn.end();
        }
    }

    fn deliver(&self, delivery: Delivery<'_>) {
        let (index, slot) = parts(delivery.id);
        let Some(namespace) = self.hub.namespace_at(index) else {
            return;
        };
        if self.hub.lease.is_stale() {
            self.hub.lease_went_stale();
        }
        let mut turn = self.turn.lock();
        let cell = match slot {
            PROBE | DOUBTS => {
                // What came before is handled before it.
                if let Some(turn) = turn.as_mut() {
                    self.hub.finish_run(turn);
                }
                if slot == PROBE {
                    probe_returned(namespace, &delivery);
                } else {
                    self.hub.doubt_came(namespace, &delivery);
                }
                return;
            }
            SESSIONS => {
                let subjects = self.hub.bus.subjects();
                let address = subjects.read_classed("out", &delivery.subject()).ok();
                address.and_then(|address| session_cell(namespace, &address.room))
            }
            slot => namespace.rooms.of_subscription(slot as usize, delivery.id),
        };
        if let Some(cell) = cell {
            self.hub.take(turn.as_mut(), namespace, &cell, delivery);
        }
    }

    fn connected(&self, subscribe: &mut dyn FnMut(u64, &str, Option<&str>)) {
        let mut subscribe = |id, subject: &str| subscribe(id, subject, None);
        let subjects = self.hub.bus.subjects();
        for namespace in self.hub.namespaces() {
            let id = |slot| subscription_id(namespace.index, 0, slot);
            subscribe(id(PROBE), &subjects.probe_delivery(&namespace.name, self.hub.id));
            subscribe(id(DOUBTS), &subjects.doubt_deliveries(&namespace.name));
            subscribe(
                id(SESSIONS),
                &format!("{}.out.{}.s.>", subjects.prefix(), namespace.name.token()),
            );
            namespace
                .rooms
                .subscriptions(|id, room| subscribe(id, &subjects.delivery(&namespace.name, room)));
        }
        self.hub.link_stands();
    }

    fn disconnected(&self) {
        self.hub.link_broke();
    }
}

fn sequence_of(delivery: &Delivery<'_>) -> Option<u64> {
    Fields::read(delivery.headers).number(name::SEQUENCE)
}

/// Returns the cell of a `session:` room of a connection at this edge, made at its first event.
pub(crate) fn session_cell(namespace: &Arc<Namespace>, room: &Room) -> Option<Arc<Cell>> {
    if let Some(cell) = namespace.rooms.find(room) {
        return Some(cell);
    }
    let session = namespace.session(room.session()?.parse().ok()?)?;
    let cell = namespace.rooms.enter(room, |_, _| 0);
    let mut state = cell.state.lock();
    // The namespace's wildcard has always been subscribed, so the room is complete from where the session began here.
    let start = session.own_room_from();
    state.complete.get_or_insert(start);
    state.members.add(&session, start);
    drop(state);
    // The session may have ended in between, and would not be removed any more.
    if session.has_ended() {
        cell.state.lock().members.remove(&session);
        namespace.rooms.emptied(room);
        return None;
    }
    session.enter(room);
    Some(cell)
}

impl Hub {
    fn doubt_came(self: &Arc<Self>, namespace: &Arc<Namespace>, delivery: &Delivery<'_>) {
        match (sequence_of(delivery), serde_json::from_slice(delivery.body)) {
            (Some(sequence), Ok(doubt)) => self.doubted(namespace, sequence, doubt),
            _ => tracing::warn!(subject = %delivery.subject(), "a doubt cannot be read"),
        }
    }

    /// Takes a delivery for a room.
    fn take(
        self: &Arc<Self>,
        turn: Option<&mut Turn>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        delivery: Delivery<'_>,
    ) {
        let fields = Fields::read(delivery.headers);
        if fields.get(name::MARKER).is_some() {
            return;
        }
        let sequence = fields.number(name::SEQUENCE);
        let before = fields.number(name::LAST_SEQUENCE).unwrap_or(0);
        // What keeps the event is not to keep all that was read with it.
        let body = Bytes::copy_from_slice(delivery.body);
        let Some(event) = Event::from_message(|header| fields.get(header), body) else {
            return;
        };
        let set = fields.get(name::SET);
        let expires = fields.get(name::TTL).is_some();
        let broadcast = namespace.broadcast(event, &cell.room, sequence, set, expires);
        // Only a traced event has a span: one for each would cost more than the delivery.
        let span = fields.get(name::TRACEPARENT).map(|_| {
            let span =
                tracing::info_span!("deliver", room = %cell.room, namespace = %namespace.name, sequence);
            telemetry::adopt(&span, telemetry::extract(|header| fields.get(header)));
            span
        });
        let Some(turn) = turn else {
            let _traced = span.as_ref().map(tracing::Span::enter);
            return self.arrive(None, namespace, cell, [(before, broadcast)]);
        };
        if turn.run.as_ref().is_some_and(|run| !Arc::ptr_eq(&run.cell, cell)) {
            self.finish_run(turn);
        }
        let run = turn.run.get_or_insert_with(|| Run::new(namespace, cell));
        if run.push(before, broadcast) || span.is_some() {
            let _traced = span.as_ref().map(tracing::Span::enter);
            self.finish_run(turn);
        }
    }

    /// Handles the events that were collected for a room.
    fn finish_run(self: &Arc<Self>, turn: &mut Turn) {
        if let Some(run) = turn.run.take() {
            self.arrive(Some(turn), &run.namespace, &run.cell, run.events);
        }
    }

    /// Handles events of one room in the order in which they came, each with the sequence before it.
    fn arrive(
        self: &Arc<Self>,
        mut turn: Option<&mut Turn>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        events: impl IntoIterator<Item = (u64, Arc<Broadcast>)>,
    ) {
        let mut state = cell.state.lock();
        let mut due: SmallVec<[Arc<Broadcast>; 1]> = SmallVec::new();
        for (before, broadcast) in events {
            let Some(sequence) = broadcast.sequence else {
                due.push(broadcast);
                continue;
            };
            // Before its first barrier a room has no member that hears anything.
            let Some(complete) = state.complete else { continue };
            if sequence <= complete {
                continue;
            }
            if before > complete && state.repair.is_none() {
                walk(turn.as_deref_mut(), &mut state, &due);
                due.clear();
                metrics::gap();
                self.repair(namespace, cell, &mut state, before);
            }
            let sent = namespace.highest_sent();
            namespace.has_come(sequence);
            if sequence < sent {
                // Whoever left in between may show an offset above it.
                namespace.doubts.found(Lack {
                    room: cell.room.clone(),
                    after: sequence - 1,
                    up_to: sequence,
                    proof: sent + 1,
                });
            }
            if let Some(repair) = &mut state.repair {
                repair.pending.push(before, sequence, broadcast);
            } else {
                state.advance(sequence, &broadcast);
                due.push(broadcast);
            }
        }
        walk(turn, &mut state, &due);
    }

    /// Begins the repair of a room: its members are held until what lies behind `complete` is read.
    pub(crate) fn repair(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        state: &mut State,
        up_to: u64,
    ) {
        state.suspend();
        let (hub, namespace, cell) = (Arc::clone(self), Arc::clone(namespace), Arc::clone(cell));
        tokio::spawn(async move {
            let barrier = hub.barrier_in_time(&namespace, &cell).await;
            hub.run_repair(&namespace, &cell, up_to, barrier).await;
        });
    }
}

impl Namespace {
    /// Makes an event ready for clients: as the namespace's rules have it.
    pub(crate) fn broadcast(
        &self,
        mut event: Event,
        room: &Room,
        sequence: Option<u64>,
        set: Option<&str>,
        expires: bool,
    ) -> Arc<Broadcast> {
        let rules = self.rules.load();
        if rules.changes_published(&event.name) {
            event.payload = rules.published(&event.name, &event.payload, event.time);
        }
        let range = sequence.and_then(|sequence| set_range(set?, sequence));
        let broadcast = Broadcast::new(event, room.clone(), sequence, range)
            .on_overflow(rules.overflow(room))
            .expiring(expires);
        Arc::new(match set {
            Some(set) => broadcast.of_list(set),
            None => broadcast,
        })
    }
}

/// Gives events to every member that hears them.
pub(crate) fn walk(mut turn: Option<&mut Turn>, state: &mut State, events: &[Arc<Broadcast>]) {
    let joined = turn.as_ref().and_then(|_| Joined::new(events));
    for member in state.members.iter() {
        let is_heard = |event: &Broadcast| event.sequence.is_none_or(|sequence| sequence > member.from);
        if let (Some(joined), Some(turn)) = (&joined, turn.as_deref_mut())
            && joined.range.is_none_or(|(first, _)| first > member.from)
            && member.session.deliver_joined(turn, joined)
        {
            continue;
        }
        for event in events.iter().filter(|event| is_heard(event)) {
            member.session.deliver_in(turn.as_deref_mut(), event);
        }
    }
}

fn probe_returned(namespace: &Namespace, delivery: &Delivery<'_>) {
    let number = std::str::from_utf8(delivery.body)
        .ok()
        .and_then(|text| text.parse().ok());
    if let (Some(number), Some(sequence)) = (number, sequence_of(delivery)) {
        namespace.probe_returned(number, sequence);
    }
}

/// Reads `<id>;<i>;<k>`: the sequences of all copies, which are contiguous.
fn set_range(value: &str, sequence: u64) -> Option<(u64, u64)> {
    let mut parts = value.rsplit(';');
    let count: u64 = parts.next()?.parse().ok()?;
    let index: u64 = parts.next()?.parse().ok()?;
    let first = sequence.checked_sub(index)?;
    (index < count).then_some((first, first + count - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_id_names_namespace_and_slot() {
        let id = subscription_id(9, 0xf_ffff, 77);
        assert_eq!(parts(id), (9, 77));
        assert_ne!(id, subscription_id(9, 0, 77));
    }

    #[test]
    fn a_list_has_contiguous_sequences() {
        assert_eq!(set_range("x;y;2;5", 12), Some((10, 14)));
        assert_eq!(set_range("x;0;1", 12), Some((12, 12)));
        assert_eq!(set_range("x;5;5", 12), None);
        assert_eq!(set_range("x", 12), None);
    }
}
