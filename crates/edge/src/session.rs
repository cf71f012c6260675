//! One connection of one client to one namespace, and what it has been sent.

mod cursor;
mod deliver;
mod replay;
mod standing;

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
use crate::namespace::Namespace;
use crate::pulse::Pulse;
use crate::record::Keeper;
use crate::room::State;
use crate::rules::SessionLimits;
use crate::user::User;

use cursor::{Cursor, lack};
pub(crate) use standing::Standing;

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

impl Session {
    /// Makes a session that holds everything back until its client is greeted.
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

    /// Notes what the client may lack until it shows a higher offset.
    pub(crate) fn may_lack(&self, lacks: Vec<Lack>) {
        self.cursor.lock().rare().late.extend(lacks);
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
    }

    /// Returns where a session begins that hears everything above a sequence: below what came before that and waits.
    pub(crate) fn begins(&self, heard_from: u64) -> u64 {
        let cursor = self.cursor.lock();
        let first = cursor.held.keys().next().filter(|first| **first <= heard_from);
        first.map_or(heard_from, |first| first - 1)
    }

    /// Opens a session at its beginning; once what waits has left, its offset is the sequence above which it hears
    /// everything.
    pub(crate) fn open_new(&self, beginning: u64, heard_from: u64) {
        let mut cursor = self.cursor.lock();
        cursor.last = cursor.last.max(beginning);
        cursor.verified = cursor.verified.max(heard_from);
    }

    /// Notes that the client was greeted: it is sent signals from now on, behind the history that waits for it.
    pub(crate) fn greeted(&self) {
        let mut cursor = self.cursor.lock();
        cursor.greeted = true;
        cursor.keep_signals(None);
    }

    /// Returns when the client had gone, in milliseconds since 1970, where it comes back and was not greeted yet: it has
    /// heard nothing since.
    pub(crate) fn away_since(&self) -> Option<u64> {
        let gone = self.keeper.gone_before().filter(|_| !self.is_greeted())?;
        Some(gone)
    }

    /// Returns whether the client was greeted.
    pub(crate) fn is_greeted(&self) -> bool {
        self.cursor.lock().greeted
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

    /// Returns what was sent late or not at all, as the record keeps it; the session is in its rooms still, and held.
    pub(crate) fn late(self: &Arc<Self>) -> Vec<Lack> {
        let repaired = self.rooms_under_repair();
        let cursor = self.cursor.lock();
        let proof = cursor.last + 1;
        let held = cursor.held.range(..=cursor.last);
        // Whoever goes on sends it before anything higher.
        let held = held.map(|(sequence, held)| lack(held.event.room(), *sequence, proof));
        // Nothing of these was sent above what they are complete to, and some of it may not even be read.
        let unread = repaired
            .into_iter()
            .filter(|(_, complete)| *complete < cursor.last);
        let unread = unread.map(|(room, after)| Lack {
            room,
            after,
            up_to: cursor.last,
            proof,
        });
        cursor.late().iter().cloned().chain(held).chain(unread).collect()
    }

    /// Returns the rooms that are being repaired, each with the sequence up to which the client heard it.
    fn rooms_under_repair(self: &Arc<Self>) -> Vec<(Room, u64)> {
        let heard = |room: Room| {
            let cell = self.namespace.rooms.find(&room)?;
            let state = cell.state.lock();
            state.repair.as_ref()?;
            let heard = self.heard(&state)?;
            Some((room, heard))
        };
        self.rooms().into_iter().filter_map(heard).collect()
    }

    /// Returns the sequence up to which the client heard a room, here or where it was before.
    pub(crate) fn heard(self: &Arc<Self>, room: &State) -> Option<u64> {
        let member = room.members.get(self)?;
        Some(room.complete?.max(member.from).max(self.resumed()))
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

    /// Takes the limits away, so that another session of the connection goes on with them.
    pub(crate) fn take_limits(&self) -> Option<Box<SessionLimits>> {
        self.limits.lock().take()
    }

    /// Goes on with the limits of an earlier session of the connection.
    pub(crate) fn keep_limits(&self, limits: Box<SessionLimits>) {
        *self.limits.lock() = Some(limits);
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
