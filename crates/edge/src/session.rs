//! One connection of one client to one namespace, and what it has been sent.

mod standing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use carillon_protocol::doubt::Lack;
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use parking_lot::Mutex;

use crate::accept::Slot;
use crate::client::Client;
use crate::frame::Broadcast;
use crate::metrics;
use crate::namespace::Namespace;
use crate::pulse::Pulse;
use crate::record::Keeper;
use crate::rules::SessionLimits;
use crate::turn::{Joined, Turn};
use crate::user::User;

pub(crate) use standing::Standing;

/// Lists of rooms that are remembered, so that a signal for several of a client's rooms comes once.
const MAX_LISTS: usize = 32;
/// Late deliveries that are remembered one by one for a takeover.
const MAX_LATE: usize = 256;

/// A client in a namespace.
pub(crate) struct Session {
    pub(crate) sid: Sid,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) client: Arc<Client>,
    pub(crate) user: ArcSwap<User>,
    pub(crate) keeper: Keeper,
    /// How often the client may still do what.
    limits: Mutex<Option<Box<SessionLimits>>>,
    /// The application heartbeat, where the namespace has one.
    pub(crate) pulse: Mutex<Pulse>,
    /// The client knows that its token expires.
    pub(crate) warned: AtomicBool,
    /// The highest offset of an earlier connection that the client showed, or 0.
    resumed: AtomicU64,
    cursor: Mutex<Cursor>,
    /// In their order; most sessions are in few.
    rooms: Mutex<Vec<Room>>,
    /// The sequence up to which the client has everything of its own room from before it came to this edge.
    own_room: AtomicU64,
    ended: AtomicBool,
    /// The user's place among those it may have at this edge.
    place: Mutex<Option<Slot>>,
}

/// Where the client stands in the history of the namespace.
#[derive(Default)]
struct Cursor {
    /// The highest sequence queued to the client; it never goes back.
    last: u64,
    /// Reasons to hold durable events back: not open yet, a join, a repair.
    holds: u32,
    /// Events that wait, by sequence.
    held: BTreeMap<u64, Held>,
    /// Bytes of those that came live, which are bounded; what is read of the history is by the reading.
    held_bytes: usize,
    /// Somebody waits until the client has taken what it was sent of what is held.
    draining: bool,
    /// Everything up to this sequence was delivered or is held: the client's offset once what is held has left.
    verified: u64,
    /// What was sent after a higher sequence, or what the client may lack from before it came here.
    late: Vec<Lack>,
    /// Signals are delivered.
    open: bool,
    /// Lists of rooms of which the client got a signal, the latest last.
    lists: VecDeque<u64>,
    /// Signals that came while the session moves from edge to edge.
    moving: Option<Vec<Arc<Broadcast>>>,
}

/// An event that waits.
struct Held {
    broadcast: Arc<Broadcast>,
    live: bool,
}

impl Session {
    /// Makes a session that holds everything back until it is opened.
    pub(crate) fn new(
        sid: Sid,
        namespace: Arc<Namespace>,
        client: Arc<Client>,
        user: Arc<User>,
        keeper: Keeper,
    ) -> Arc<Self> {
        let own_room = AtomicU64::new(keeper.start());
        Arc::new(Self {
            sid,
            namespace,
            client,
            user: ArcSwap::new(user),
            keeper,
            limits: Mutex::new(None),
            pulse: Mutex::default(),
            warned: AtomicBool::new(false),
            resumed: AtomicU64::new(0),
            cursor: Mutex::new(Cursor {
                holds: 1,
                ..Cursor::default()
            }),
            rooms: Mutex::default(),
            own_room,
            ended: AtomicBool::new(false),
            place: Mutex::new(None),
        })
    }

    /// Takes an event of a room that the session is in.
    pub(crate) fn deliver(self: &Arc<Self>, broadcast: &Arc<Broadcast>) {
        self.deliver_in(None, broadcast);
    }

    /// Takes an event as one of several of a turn.
    pub(crate) fn deliver_in(self: &Arc<Self>, turn: Option<&mut Turn>, broadcast: &Arc<Broadcast>) {
        if broadcast.excludes(self.sid.as_str()) {
            return;
        }
        let mut cursor = self.cursor.lock();
        let Some(sequence) = broadcast.sequence else {
            cursor.note_signal(broadcast);
            if cursor.open && !cursor.has_copy(broadcast) {
                self.write(turn, broadcast, cursor.last);
            }
            return;
        };
        // What waits goes first, even if the hold has ended and nobody has come to send it yet.
        if cursor.holds > 0 || self.namespace.is_held() || !cursor.held.is_empty() {
            cursor.hold(sequence, broadcast, true);
            if cursor.held_bytes > self.namespace.queue_limit {
                drop(cursor);
                self.client.overflow();
            } else {
                self.flush(&mut cursor);
            }
            return;
        }
        self.write_durable(turn, &mut cursor, sequence, broadcast, 0);
    }

    /// Takes several events of a room as one piece; `false` where they must be taken one by one.
    pub(crate) fn deliver_joined(&self, turn: &mut Turn, joined: &Joined<'_>) -> bool {
        let mut cursor = self.cursor.lock();
        if !cursor.open || cursor.holds > 0 || self.namespace.is_held() || !cursor.held.is_empty() {
            return false;
        }
        // A frame below the offset would carry the offset in place of its own sequence.
        if joined.range.is_some_and(|(first, _)| first <= cursor.last) {
            return false;
        }
        let Some(piece) = joined.chunk(self.client.wire, &self.namespace.style) else {
            return false;
        };
        if !self.client.send_joined_in(turn, piece) {
            return false;
        }
        if let Some((_, last)) = joined.range {
            cursor.last = last;
        }
        metrics::sent_joined(&self.namespace, joined.events);
        true
    }

    /// Writes an event; with `proof`, whoever has it has everything up to that sequence.
    fn write_durable(
        &self,
        turn: Option<&mut Turn>,
        cursor: &mut Cursor,
        sequence: u64,
        broadcast: &Broadcast,
        proof: u64,
    ) {
        // A copy of a list of which the client has another one already.
        if let Some((first, last)) = broadcast.set
            && (first..=last).contains(&cursor.last)
        {
            cursor.last = cursor.last.max(sequence);
            return;
        }
        if sequence <= cursor.last {
            cursor.sent_late(broadcast, sequence);
        }
        cursor.last = cursor.last.max(sequence).max(proof);
        self.write(turn, broadcast, cursor.last);
    }

    fn write(&self, turn: Option<&mut Turn>, broadcast: &Broadcast, last: u64) {
        let style = &self.namespace.style;
        let (text, attachments) = broadcast.frame(self.client.wire, style).chunks(last, style.epoch);
        match turn {
            Some(turn) => self
                .client
                .send_event_in(turn, text, attachments, broadcast.overflow),
            None => self.client.send_event(text, attachments, broadcast.overflow),
        }
        metrics::sent(&self.namespace, broadcast);
    }

    /// Holds durable events back until the matching [`Session::release`].
    pub(crate) fn hold(&self) {
        self.cursor.lock().holds += 1;
    }

    /// Ends a hold; what waited leaves in the order of its sequences.
    pub(crate) fn release(self: &Arc<Self>) {
        self.release_verified(0);
    }

    /// Ends a hold; everything up to a sequence was delivered to the session, or is held for it.
    pub(crate) fn release_verified(self: &Arc<Self>, up_to: u64) {
        let mut cursor = self.cursor.lock();
        cursor.holds = cursor.holds.saturating_sub(1);
        cursor.verified = cursor.verified.max(up_to);
        self.flush(&mut cursor);
    }

    /// Sends what waited, if nothing holds it any more.
    pub(crate) fn release_namespace(self: &Arc<Self>) {
        self.flush(&mut self.cursor.lock());
    }

    fn flush(self: &Arc<Self>, cursor: &mut Cursor) {
        while cursor.holds == 0 && !self.namespace.is_held() {
            let Some(next) = cursor.held.values().next() else {
                let verified = std::mem::take(&mut cursor.verified);
                if cursor.open {
                    cursor.last = cursor.last.max(verified);
                }
                return;
            };
            let size = next.broadcast.size();
            if !self.client.has_room(size) {
                return self.go_on_when_drained(cursor, size);
            }
            self.client.cork();
            self.write_held(cursor);
            self.client.uncork();
        }
    }

    /// Writes what waits, as far as there is room for it.
    fn write_held(&self, cursor: &mut Cursor) {
        while let Some(next) = cursor.held.first_entry() {
            if !self.client.has_room(next.get().broadcast.size()) {
                return;
            }
            let (sequence, held) = next.remove_entry();
            cursor.uncount(&held);
            // The last one up to there proves all before it.
            let verified = cursor.verified;
            let is_last = cursor.held.keys().next().is_none_or(|next| *next > verified);
            let proof = if is_last { verified } else { 0 };
            self.write_durable(None, cursor, sequence, &held.broadcast, proof);
        }
    }

    /// Sends the rest of what waits once the client has taken some: a long history is not a slow client.
    fn go_on_when_drained(self: &Arc<Self>, cursor: &mut Cursor, size: usize) {
        if std::mem::replace(&mut cursor.draining, true) {
            return;
        }
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let drained = session.client.drained(size).await;
            let mut cursor = session.cursor.lock();
            cursor.draining = false;
            if session.has_ended() {
                return;
            }
            if drained {
                session.flush(&mut cursor);
            } else {
                session.client.overflow();
            }
        });
    }

    /// Notes what the client may lack until it shows a higher offset.
    pub(crate) fn may_lack(&self, lacks: Vec<Lack>) {
        self.cursor.lock().late = lacks;
    }

    /// Notes an offset that the client showed, of a connection that it had before.
    pub(crate) fn resume(&self, offset: u64) {
        self.resumed.fetch_max(offset, Ordering::Relaxed);
    }

    /// Returns the highest offset that the client showed, or 0.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Opens the session: its offset begins here, unless it is further already.
    pub(crate) fn open(&self, offset: u64) {
        let mut cursor = self.cursor.lock();
        cursor.last = cursor.last.max(offset);
        cursor.open = true;
    }

    /// Drops what came live since the rooms were entered and the client already has: this edge may be behind the one
    /// that sent it.
    pub(crate) fn drop_heard(&self, rooms: &[(Room, u64)]) {
        let mut cursor = self.cursor.lock();
        let Cursor { held, held_bytes, .. } = &mut *cursor;
        held.retain(|sequence, event| {
            let room = &event.broadcast.room;
            let heard = |(known, up_to): &(Room, u64)| known == room && sequence <= up_to;
            let keep = !event.live || !rooms.iter().any(heard);
            if !keep {
                *held_bytes = held_bytes.saturating_sub(event.broadcast.size());
            }
            keep
        });
    }

    /// Adds an event of the history to what waits; the session must be held.
    pub(crate) fn replay(&self, sequence: u64, broadcast: &Arc<Broadcast>) {
        if !broadcast.excludes(self.sid.as_str()) {
            self.cursor.lock().hold(sequence, broadcast, false);
        }
    }

    /// Sends events again that the client may have, behind everything it has: a subscription with `since`. The session
    /// must be held.
    pub(crate) async fn send_again(&self, broadcasts: &[Arc<Broadcast>]) {
        let mut rest = broadcasts;
        while let Some(next) = rest.first() {
            if !self.client.drained(next.size()).await {
                return self.client.overflow();
            }
            let mut cursor = self.cursor.lock();
            self.client.cork();
            while let Some((broadcast, others)) = rest.split_first() {
                if !self.client.has_room(broadcast.size()) {
                    break;
                }
                rest = others;
                let Some(sequence) = broadcast.sequence else {
                    continue;
                };
                if let Some(held) = cursor.held.remove(&sequence) {
                    cursor.uncount(&held);
                }
                cursor.last = cursor.last.max(sequence);
                if !broadcast.excludes(self.sid.as_str()) {
                    self.write(None, broadcast, cursor.last);
                }
            }
            self.client.uncork();
        }
    }

    /// Returns the highest sequence up to which the client misses nothing.
    pub(crate) fn offset(&self) -> Offset {
        let mut cursor = self.cursor.lock();
        if cursor.holds == 0 && !self.namespace.is_held() && cursor.held.is_empty() {
            cursor.last = cursor.last.max(self.namespace.watermark());
        }
        Offset {
            epoch: self.namespace.style.epoch,
            sequence: cursor.last,
        }
    }

    /// Returns the client's offset as it is.
    pub(crate) fn offset_now(&self) -> Offset {
        Offset {
            epoch: self.namespace.style.epoch,
            sequence: self.cursor.lock().last,
        }
    }

    /// Returns what was sent late or not at all, as the record keeps it.
    pub(crate) fn late(&self) -> Vec<Lack> {
        let cursor = self.cursor.lock();
        let held = cursor.held.range(..=cursor.last);
        // Whoever goes on sends it before anything higher.
        let held = held.map(|(sequence, held)| lack(&held.broadcast, *sequence, cursor.last + 1));
        cursor.late.iter().cloned().chain(held).collect()
    }

    /// Returns whether one of the session's rooms is being compared or repaired.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.rooms().iter().any(|room| {
            let cell = self.namespace.rooms.find(room);
            cell.is_some_and(|cell| cell.state.lock().repair.is_some())
        })
    }

    /// Notes that the client has everything of its own room up to a sequence.
    pub(crate) fn has_own_room_up_to(&self, sequence: u64) {
        self.own_room.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Returns the sequence after which the client hears its own room at this edge.
    pub(crate) fn own_room_from(&self) -> u64 {
        self.own_room.load(Ordering::Relaxed)
    }

    /// Up to where the client was sent everything that came to its user's room; `None` where something waits.
    pub(crate) fn complete(&self) -> Option<u64> {
        if self.client.with_outbox(|outbox| outbox.is_waiting()) {
            return None;
        }
        let room = Room::of_user(self.user.load().id()?);
        let cell = self.namespace.rooms.find(&room).filter(|_| self.is_in(&room))?;
        let state = cell.state.lock();
        let sent = state.complete.filter(|_| state.repair.is_none())?;
        Some(sent.max(self.keeper.start()))
    }

    /// Works on the limits, which begin full at the first event.
    pub(crate) fn with_limits<T>(&self, work: impl FnOnce(&mut SessionLimits) -> T) -> T {
        let mut limits = self.limits.lock();
        work(limits.get_or_insert_with(|| Box::new(SessionLimits::new(Instant::now()))))
    }

    /// Notes that the session is in a room; `false` if it was.
    pub(crate) fn enter(&self, room: &Room) -> bool {
        let mut rooms = self.rooms.lock();
        match rooms.binary_search(room) {
            Ok(_) => false,
            Err(place) => {
                if rooms.len() == rooms.capacity() {
                    let more = rooms.len().max(3);
                    rooms.reserve_exact(more);
                }
                rooms.insert(place, room.clone());
                true
            }
        }
    }

    /// Notes that the session left a room; `false` if it was not in it.
    pub(crate) fn exit(&self, room: &Room) -> bool {
        let mut rooms = self.rooms.lock();
        rooms.binary_search(room).map(|place| rooms.remove(place)).is_ok()
    }

    /// Returns whether the session is in a room.
    pub(crate) fn is_in(&self, room: &Room) -> bool {
        self.rooms.lock().binary_search(room).is_ok()
    }

    /// Returns the rooms.
    pub(crate) fn rooms(&self) -> Vec<Room> {
        self.rooms.lock().clone()
    }

    /// Keeps the user's place until the session ends.
    pub(crate) fn occupy(&self, place: Option<Slot>) {
        *self.place.lock() = place;
    }

    /// Marks the session as ended; `true` for the first caller, who has to clean up.
    pub(crate) fn end(&self) -> bool {
        self.place.lock().take();
        !self.ended.swap(true, Ordering::SeqCst)
    }

    /// Returns whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Cursor {
    /// Remembers an event that is sent after a higher one: a client that shows a higher offset than now has it.
    fn sent_late(&mut self, broadcast: &Broadcast, sequence: u64) {
        let late = lack(broadcast, sequence, self.last + 1);
        let full = self.late.len() >= MAX_LATE;
        match self
            .late
            .iter_mut()
            .rfind(|known| full && known.room == late.room)
        {
            Some(known) => {
                known.after = known.after.min(late.after);
                known.up_to = known.up_to.max(late.up_to);
                known.proof = known.proof.max(late.proof);
            }
            None => self.late.push(late),
        }
    }

    /// Returns whether the client got another copy of a signal for a list of rooms, and notes this one.
    fn has_copy(&mut self, signal: &Broadcast) -> bool {
        let Some(list) = signal.list else { return false };
        if self.lists.contains(&list) {
            return true;
        }
        if self.lists.len() >= MAX_LISTS {
            self.lists.pop_front();
        }
        self.lists.push_back(list);
        false
    }

    fn hold(&mut self, sequence: u64, broadcast: &Arc<Broadcast>, live: bool) {
        let entry = self.held.entry(sequence);
        let std::collections::btree_map::Entry::Vacant(vacant) = entry else {
            return;
        };
        if live {
            self.held_bytes += broadcast.size();
        }
        vacant.insert(Held {
            broadcast: Arc::clone(broadcast),
            live,
        });
    }

    fn uncount(&mut self, held: &Held) {
        if held.live {
            self.held_bytes = self.held_bytes.saturating_sub(held.broadcast.size());
        }
    }
}

fn lack(broadcast: &Broadcast, sequence: u64, proof: u64) -> Lack {
    Lack {
        room: broadcast.room.clone(),
        after: sequence - 1,
        up_to: sequence,
        proof,
    }
}
