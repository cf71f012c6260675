//! What rooms had, read back from the stream: page by page, so that the past of one client does not fill the memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_bus::history::now;
use carillon_bus::{HistoryError, Limit, StoredMessage};
use carillon_protocol::before::Before;
use carillon_protocol::doubt::Lack;
use carillon_protocol::event::Event;
use carillon_protocol::headers::name;
use carillon_protocol::names::{Class, Room};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::doubts::Former;
use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::session::Session;

/// What is read at once for one client.
pub(crate) const PAGE: Limit = Limit {
    messages: 500,
    bytes: PAGE_BYTES,
};
pub(crate) const PAGE_BYTES: usize = 256 << 10;
/// Rooms that are read at once for one client.
const ROOMS: usize = 4;
/// Rooms whose ends are asked for at once.
const ENDS: usize = 1000;

/// An event of the past that a client is to be sent.
#[derive(Clone)]
pub(crate) enum Past {
    Read(Arc<Broadcast>),
    Stored(Stub),
}

/// An event that is read again when the client has room for it.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) hub: Arc<Hub>,
    pub(crate) room: Room,
    pub(crate) size: usize,
    /// It may have expired when it is read again; otherwise it must be there.
    pub(crate) expires: bool,
}

/// What a room had that a client did not get, by sequence.
pub(crate) struct Missed {
    pub(crate) room: Room,
    pub(crate) events: Vec<(u64, Past)>,
    /// Everything is there; otherwise the room had more than can be read.
    pub(crate) complete: bool,
}

/// What was read of a room.
pub(crate) struct History {
    pub(crate) events: Vec<Arc<Broadcast>>,
    /// Everything up to here was read.
    pub(crate) reached: u64,
    /// Nothing was evicted before it was read.
    pub(crate) complete: bool,
}

/// Whether messages are all that a room had, but for what has expired.
struct Chain {
    known: u64,
    now: u64,
    count: usize,
    /// The first message is of a version that did not write what comes before it.
    unmarked: bool,
    lost: bool,
}

impl Past {
    pub(crate) fn room(&self) -> &Room {
        match self {
            Self::Read(broadcast) => &broadcast.room,
            Self::Stored(stub) => &stub.room,
        }
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Read(broadcast) => broadcast.size(),
            Self::Stored(stub) => stub.size,
        }
    }

    /// Returns the event, to be read again later.
    pub(crate) fn later(self, hub: &Arc<Hub>) -> Self {
        let Self::Read(broadcast) = self else { return self };
        Self::Stored(Stub {
            hub: Arc::clone(hub),
            room: broadcast.room.clone(),
            size: broadcast.size(),
            expires: broadcast.expires,
        })
    }
}

impl Hub {
    /// Reads the events of a room with sequences in `(after, up_to]`, as far as the limit lets.
    pub(crate) async fn history(
        &self,
        namespace: &Namespace,
        room: &Room,
        after: u64,
        up_to: u64,
        limit: Limit,
    ) -> Result<History, HistoryError> {
        let mut chain = Chain::new(after);
        self.page(namespace, room, (after, up_to), limit, &mut chain)
            .await
    }

    async fn page(
        &self,
        namespace: &Namespace,
        room: &Room,
        (after, up_to): (u64, u64),
        limit: Limit,
        chain: &mut Chain,
    ) -> Result<History, HistoryError> {
        let subject = self.bus.subjects().event(&namespace.name, room);
        let stream = &namespace.stream.name;
        let page = self.bus.read(stream, &subject, after, up_to, limit).await?;
        page.messages.iter().for_each(|message| chain.add(message));
        Ok(History {
            reached: page.reached,
            complete: chain.is_whole(self.history_limit),
            events: page
                .messages
                .into_iter()
                .filter_map(|message| replayed(namespace, room, message))
                .collect(),
        })
    }

    /// Reads what rooms had after an offset that may come from any edge, for a session that is held.
    pub(crate) async fn missed_since(
        self: &Arc<Self>,
        session: &Arc<Session>,
        rooms: &[Room],
        offset: u64,
    ) -> Result<Vec<Missed>, HistoryError> {
        let lacks = self
            .lacks(&session.namespace, rooms, offset, Former::Any)
            .await
            .map_err(|_| HistoryError::Away)?;
        let rooms: Vec<(Room, u64)> = rooms.iter().map(|room| (room.clone(), offset)).collect();
        self.missed(session, &rooms, &lacks).await
    }

    /// Reads what each room had after a sequence, and what lacks name below it, for a session that is held.
    pub(crate) async fn missed(
        self: &Arc<Self>,
        session: &Arc<Session>,
        rooms: &[(Room, u64)],
        lacks: &[Lack],
    ) -> Result<Vec<Missed>, HistoryError> {
        let rules = session.namespace.rules.load_full();
        let replayed: Vec<(Room, u64)> = rooms
            .iter()
            .filter(|(room, _)| rules.room_options(room).history)
            .cloned()
            .collect();
        self.stored(session, &replayed, lacks).await
    }

    /// Reads what each room had after a sequence, of rooms without a history for those who come back too.
    ///
    /// Of more than a part of the client's queue only the places are kept: it is read again when the client has room.
    pub(crate) async fn stored(
        self: &Arc<Self>,
        session: &Arc<Session>,
        rooms: &[(Room, u64)],
        lacks: &[Lack],
    ) -> Result<Vec<Missed>, HistoryError> {
        let namespace = &session.namespace;
        let subjects = self.bus.subjects();
        let probe = subjects.probe(&namespace.name, self.id);
        // What the client has may be what this edge still misses.
        for (room, after) in rooms.iter().filter(|(room, _)| room.class() != Class::Session) {
            self.heard_up_to(session, room, *after);
        }
        session.drop_heard(rooms);
        let barrier = namespace.pass_barrier(self, None).await;
        let mut missed = Vec::new();
        let mut unknown = Vec::new();
        for (room, after) in rooms {
            match self.recent(session, room, *after, lacks) {
                Some(recent) => missed.push(recent),
                None => unknown.push((room.clone(), *after)),
            }
        }
        let left = AtomicUsize::new(session.past_limit());
        for rooms in unknown.chunks(ENDS) {
            let mut asked: Vec<String> = rooms
                .iter()
                .map(|(room, _)| subjects.event(&namespace.name, room))
                .collect();
            asked.push(probe.clone());
            let lasts = self.bus.last(&namespace.stream.name, &asked, barrier).await?;
            let reads = rooms.iter().zip(&asked).filter_map(|((room, after), subject)| {
                let last = lasts.iter().find(|last| last.subject == *subject)?.sequence;
                Some(self.missed_of(session, room, (*after, last), lacks, &left))
            });
            let reads: Vec<_> = reads.collect();
            let read: Vec<Missed> = stream::iter(reads).buffered(ROOMS).try_collect().await?;
            missed.extend(read);
        }
        Ok(missed)
    }

    /// Returns what a room had after a sequence, if this edge still knows: behind a barrier, a room that is complete
    /// has everything.
    fn recent(&self, session: &Arc<Session>, room: &Room, after: u64, lacks: &[Lack]) -> Option<Missed> {
        if lacks.iter().any(|lack| lack.room == *room) {
            return None;
        }
        let cell = session.namespace.rooms.find(room)?;
        let (events, complete) = cell.state.lock().since(after)?;
        self.heard_up_to(session, room, complete);
        let events = events.into_iter();
        Some(Missed {
            room: room.clone(),
            complete: true,
            events: events
                .map(|event| (event.sequence.unwrap_or(0), Past::Read(event)))
                .collect(),
        })
    }

    /// Reads what a room had after a sequence up to its end, and what lacks name below it.
    async fn missed_of(
        self: &Arc<Self>,
        session: &Arc<Session>,
        room: &Room,
        (after, last): (u64, u64),
        lacks: &[Lack],
        left: &AtomicUsize,
    ) -> Result<Missed, HistoryError> {
        let lacking = lacks.iter().filter(|lack| lack.room == *room);
        let mut reached = lacking.map(|lack| lack.after).min().unwrap_or(after).min(after);
        let mut chain = Chain::new(reached);
        let mut events = Vec::new();
        while reached < last {
            let page = self
                .page(&session.namespace, room, (reached, last), PAGE, &mut chain)
                .await?;
            reached = page.reached;
            for event in page.events {
                let sequence = event.sequence.unwrap_or(0);
                let is_missed = sequence > after || lacks.iter().any(|lack| lack.covers(room, sequence));
                if is_missed && !event.excludes(session.sid.as_str()) {
                    let size = event.size();
                    let fits = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(size)
                        })
                        .is_ok();
                    let event = Past::Read(event);
                    events.push((sequence, if fits { event } else { event.later(self) }));
                }
            }
        }
        // A delivery of the same event may still be on its way.
        self.heard_up_to(session, room, last);
        Ok(Missed {
            room: room.clone(),
            complete: chain.is_whole(self.history_limit),
            events,
        })
    }

    /// Reads events again; `None` if one is gone that has not expired.
    pub(crate) async fn read_again(
        &self,
        namespace: &Namespace,
        wanted: &[(u64, Stub)],
    ) -> Result<Option<Vec<(u64, Arc<Broadcast>)>>, HistoryError> {
        let mut rooms: BTreeMap<&Room, BTreeMap<u64, &Stub>> = BTreeMap::new();
        for (sequence, stub) in wanted {
            rooms.entry(&stub.room).or_default().insert(*sequence, stub);
        }
        let mut read = Vec::with_capacity(wanted.len());
        for (room, mut stubs) in rooms {
            let last = stubs.last_key_value().map_or(0, |(last, _)| *last);
            let mut reached = stubs.first_key_value().map_or(last, |(first, _)| first - 1);
            while reached < last {
                let page = self.history(namespace, room, reached, last, PAGE).await?;
                reached = page.reached;
                for event in page.events {
                    let sequence = event.sequence.unwrap_or(0);
                    read.extend(stubs.remove(&sequence).map(|_| (sequence, event)));
                }
            }
            if stubs.values().any(|stub| !stub.expires) {
                return Ok(None);
            }
        }
        Ok(Some(read))
    }
}

impl Chain {
    fn new(after: u64) -> Self {
        Self {
            known: after,
            now: now(),
            count: 0,
            unmarked: false,
            lost: false,
        }
    }

    /// Adds the next message of the room.
    fn add(&mut self, message: &StoredMessage) {
        let before = message.headers.get(name::BEFORE);
        match before.and_then(|before| Before::from_header(before, message.sequence)) {
            Some(before) => self.lost |= before.lost_after(self.known, self.now),
            None => self.unmarked |= self.count == 0,
        }
        self.known = message.sequence;
        self.count += 1;
    }

    fn is_whole(&self, history_limit: usize) -> bool {
        // As many as the history keeps may be more than it keeps.
        let may_lack = self.unmarked && self.count >= history_limit;
        !(self.lost || may_lack)
    }
}

/// Makes an event of a stored message; markers are none.
fn replayed(namespace: &Namespace, room: &Room, message: StoredMessage) -> Option<Arc<Broadcast>> {
    if message.headers.get(name::MARKER).is_some() {
        return None;
    }
    let event = Event::from_message(|header| message.headers.get(header), message.body.clone())?;
    let set = message.headers.get(name::SET);
    let expires = message.headers.get(name::TTL).is_some();
    Some(namespace.broadcast(event, room, Some(message.sequence), set, expires))
}
