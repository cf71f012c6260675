//! Deliveries from NATS: which room an event is for, whether something is missing before it, and the walk over
//! the room's members.

use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::{Deliveries, Delivery};
use carillon_protocol::doubt::Doubt;
use carillon_protocol::event::Event;
use carillon_protocol::headers::{self, name};
use carillon_protocol::names::Room;
use carillon_service::telemetry;

use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::metrics;
use crate::namespace::Namespace;
use crate::room::{Cell, State};

/// Slots that are no rooms.
const PROBE: u32 = u32::MAX;
const SESSIONS: u32 = u32::MAX - 1;
const DOUBTS: u32 = u32::MAX - 2;
/// Events that may wait for a repair of one room.
const MAX_PENDING: usize = 10_000;

/// A subscription's id: 12 bits of the namespace, 20 of a generation, 32 of the room's slot.
pub(crate) fn subscription_id(namespace: u16, generation: u32, slot: u32) -> u64 {
    u64::from(namespace) << 52 | u64::from(generation & 0xf_ffff) << 32 | u64::from(slot)
}

fn parts(id: u64) -> (usize, u32) {
    ((id >> 52) as usize, id as u32)
}

/// The edge as the delivery link sees it.
pub(crate) struct Receiver {
    pub(crate) hub: Arc<Hub>,
}

impl Deliveries for Receiver {
    fn deliver(&self, delivery: Delivery<'_>) {
        let (index, slot) = parts(delivery.id);
        let Some(namespace) = self.hub.namespace_at(index) else {
            return;
        };
        if self.hub.lease.is_stale() {
            self.hub.lease_went_stale();
        }
        match slot {
            PROBE => {
                let number = std::str::from_utf8(&delivery.body)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if let (Some(number), Some(sequence)) = (number, sequence_of(&delivery)) {
                    namespace.probe_returned(number, sequence);
                }
            }
            DOUBTS => match (
                sequence_of(&delivery),
                serde_json::from_slice::<Doubt>(&delivery.body),
            ) {
                (Some(sequence), Ok(doubt)) => self.hub.doubted(namespace, sequence, doubt),
                _ => tracing::warn!(subject = delivery.subject, "a doubt cannot be read"),
            },
            SESSIONS => {
                let subjects = self.hub.bus.subjects();
                let Ok(address) = subjects.read_classed("out", delivery.subject) else {
                    return;
                };
                let Some(cell) = session_cell(namespace, &address.room) else {
                    return;
                };
                self.hub.take(namespace, &cell, delivery.headers, delivery.body);
            }
            slot => {
                let Some(cell) = namespace.rooms.of_subscription(slot as usize, delivery.id) else {
                    return;
                };
                self.hub.take(namespace, &cell, delivery.headers, delivery.body);
            }
        }
    }

    fn connected(&self, subscribe: &mut dyn FnMut(u64, &str)) {
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
    headers::find(delivery.headers, name::SEQUENCE)?.parse().ok()
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
    state.add(&session, start);
    drop(state);
    // The session may have ended in between, and would not be removed any more.
    if session.has_ended() {
        cell.state.lock().remove(&session);
        namespace.rooms.emptied(room);
        return None;
    }
    session.enter(room);
    Some(cell)
}

impl Hub {
    /// Takes a delivery for a room.
    fn take(self: &Arc<Self>, namespace: &Arc<Namespace>, cell: &Arc<Cell>, block: &[u8], body: Bytes) {
        if headers::find(block, name::MARKER).is_some() {
            return;
        }
        let number = |header| headers::find(block, header).and_then(|text| text.parse::<u64>().ok());
        let sequence = number(name::SEQUENCE);
        let before = number(name::LAST_SEQUENCE).unwrap_or(0);
        let Some(event) = Event::from_message(|header| headers::find(block, header), body) else {
            return;
        };
        let set = headers::find(block, name::SET);
        let expires = headers::find(block, name::TTL).is_some();
        let broadcast = namespace.broadcast(event, &cell.room, sequence, set, expires);
        // Only a traced event has a span: one for each would cost more than the delivery.
        let _traced = headers::find(block, name::TRACEPARENT).map(|_| {
            let span =
                tracing::info_span!("deliver", room = %cell.room, namespace = %namespace.name, sequence);
            telemetry::adopt(&span, telemetry::extract(|header| headers::find(block, header)));
            span.entered()
        });
        let mut state = cell.state.lock();
        match sequence {
            None => walk(&mut state, &broadcast),
            Some(sequence) => {
                if self.arrive(namespace, cell, &mut state, sequence, before, broadcast) {
                    metrics::gap();
                }
            }
        }
    }

    /// Handles a stored event; `true` where a gap was found and its repair begun.
    fn arrive(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        state: &mut State,
        sequence: u64,
        before: u64,
        broadcast: Arc<Broadcast>,
    ) -> bool {
        // Before its first barrier a room has no member that hears anything.
        let Some(complete) = state.complete else {
            return false;
        };
        if sequence <= complete {
            return false;
        }
        let gap = before > complete;
        if gap && state.repair.is_none() {
            self.repair(namespace, cell, state, before);
        }
        if let Some(repair) = &mut state.repair {
            if repair.pending.len() < MAX_PENDING {
                repair.pending.push_back((before, broadcast));
            }
            return gap;
        }
        state.advance(sequence, &broadcast);
        walk(state, &broadcast);
        false
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

/// Gives an event to every member that hears it.
pub(crate) fn walk(state: &mut State, broadcast: &Arc<Broadcast>) {
    for member in &state.members {
        if broadcast.sequence.is_none_or(|sequence| sequence > member.from) {
            member.session.deliver(broadcast);
        }
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
