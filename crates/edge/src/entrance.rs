//! How a client enters a namespace: a new session, or the one that it had.

mod arrive;
mod recover;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bounds, HistoryError};
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::{Record, State};
use serde_json::value::RawValue;

use crate::client::{Client, Closing};
use crate::frame::Broadcast;
use crate::history::Past;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::record::{Keeper, Last, RecordError};
use crate::session::Session;
use crate::user::User;

pub(crate) use arrive::{Arrived, NotMoved};

/// Why a transport ended that nothing came from any more.
pub(crate) const PING_TIMEOUT: &str = "ping timeout";
/// How long a client is held while NATS is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What a client shows when it enters.
pub(crate) struct Entry {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) client: Arc<Client>,
    pub(crate) user: Arc<User>,
    /// The handshake data, without a valid token.
    pub(crate) auth: Option<Box<RawValue>>,
    /// What the client wants to go on from.
    pub(crate) resume: Resume,
}

/// How a client that was here before wants to go on.
pub(crate) enum Resume {
    /// It was not.
    Fresh,
    /// A Socket.IO client shows its `pid`, and its offset if it has one.
    Session { ticket: String, offset: Option<String> },
    /// A plain client names an offset.
    Since(String),
}

/// An open session. It is held until the caller has sent its greeting and calls [`Session::release`].
pub(crate) struct Opened {
    pub(crate) session: Arc<Session>,
    pub(crate) recovered: bool,
    /// Rooms of which the history does not reach back, with the oldest offset to be had.
    pub(crate) lost: Vec<(Room, Offset)>,
    /// Events that the backend or the namespace greets with.
    pub(crate) greetings: Vec<Arc<Broadcast>>,
    /// The backend was asked, and so knows of the connection.
    pub(crate) asked: bool,
}

/// Why a client does not get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The client itself is refused, and told so.
    #[error("{code}: {message}")]
    Client { code: String, message: String },
    /// The cluster cannot serve it now; its transport is closed and it tries again.
    #[error("not available now")]
    Unavailable,
}

impl Refused {
    /// Returns how a transport is closed for it.
    pub(crate) fn closing(self) -> Closing {
        let (code, reason) = match self {
            Self::Client { code, message } => (1008, format!("{code}: {message}")),
            Self::Unavailable => (1013, "unavailable: try again".to_owned()),
        };
        Closing {
            code,
            reason,
            flush: true,
        }
    }
}

impl From<RecordError> for Refused {
    fn from(_: RecordError) -> Self {
        Self::Unavailable
    }
}

impl From<HistoryError> for Refused {
    fn from(_: HistoryError) -> Self {
        Self::Unavailable
    }
}

impl Hub {
    /// Opens a session.
    pub(crate) async fn open_session(self: &Arc<Self>, entry: Entry) -> Result<Opened, Refused> {
        let opened = tokio::time::timeout(PATIENCE, async {
            match &entry.resume {
                Resume::Session { ticket, offset } if entry.namespace.style.recovery => {
                    match Box::pin(self.recover(&entry, ticket, offset.as_deref())).await? {
                        Some(opened) => Ok(opened),
                        None => self.begin(&entry, None).await,
                    }
                }
                Resume::Since(offset) if entry.namespace.style.recovery => {
                    self.begin(&entry, Some(offset)).await
                }
                _ => self.begin(&entry, None).await,
            }
        });
        opened.await.unwrap_or(Err(Refused::Unavailable))
    }

    /// Begins a new session, with the automatic rooms from an offset on where one is given.
    async fn begin(self: &Arc<Self>, entry: &Entry, since: Option<&str>) -> Result<Opened, Refused> {
        let namespace = &entry.namespace;
        let sid = Sid::from_random(rand::random());
        let admitted = self
            .ask_admission(
                namespace,
                &entry.user,
                sid,
                entry.auth.as_deref(),
                entry.client.transport(),
            )
            .await?;
        let start = match namespace.watermark() {
            0 => namespace.pass_barrier(self, None).await,
            watermark => watermark,
        };
        let automatic = namespace.rules.load().automatic_rooms(&entry.user.who);
        let mut record = self.record_of(entry, start, automatic);
        record.rooms = admitted.rooms.iter().map(|room| (room.clone(), start)).collect();
        record.ordered = admitted.rooms;
        let rooms: Vec<Room> = record.heard(sid).collect();
        let keeper = Keeper::new(sid, record, 0);
        let session = self.register(sid, entry, keeper);
        let guard = Undo {
            hub: self,
            session: &session,
            state: State::Ended,
            asked: admitted.asked,
            armed: true,
        };
        let entered = self.enter(&session, &rooms).await;
        let offset = entered
            .into_iter()
            .filter(|from| *from != u64::MAX)
            .max()
            .unwrap_or(start)
            .max(start);
        let beginning = session.begins(offset);
        // The record says from where on the client hears: what a user is sent before goes to `rt.offline`.
        session
            .keeper
            .change(self, |record| (record.start, record.since) = (beginning, now()))
            .await?;
        let mut opened = Opened {
            session: Arc::clone(&session),
            recovered: false,
            lost: Vec::new(),
            greetings: admitted.greetings,
            asked: admitted.asked,
        };
        match since {
            None => session.open_new(beginning, offset),
            Some(text) => {
                Box::pin(self.go_on_from(&mut opened, text, rooms, offset)).await?;
            }
        }
        guard.disarm();
        Ok(opened)
    }

    /// Replays the rooms of a plain client from its offset on, or says what is lost.
    async fn go_on_from(
        self: &Arc<Self>,
        opened: &mut Opened,
        since: &str,
        rooms: Vec<Room>,
        now: u64,
    ) -> Result<(), Refused> {
        let session = Arc::clone(&opened.session);
        let regained = self.regain(&session, since, &rooms).await?;
        opened.recovered = regained.lost.is_empty();
        opened.lost = regained.lost;
        for (sequence, event) in regained.events {
            session.replay(self, sequence, event);
        }
        session.open(regained.after.unwrap_or(now));
        Ok(())
    }

    /// Reads what a plain client that shows an offset missed in rooms, and tells what of it is lost.
    pub(crate) async fn regain(
        self: &Arc<Self>,
        session: &Arc<Session>,
        since: &str,
        rooms: &[Room],
    ) -> Result<Regained, Refused> {
        let epoch = session.namespace.style.epoch;
        let Bounds { first, last, whole } = self.bus.bounds(&session.namespace.stream.name).await?;
        let shown = since
            .parse::<Offset>()
            .ok()
            .filter(|offset| offset.epoch == epoch && offset.sequence <= last)
            .map(|offset| offset.sequence);
        // What the stream still has comes after the error that tells of the gap.
        let oldest = if whole { 0 } else { first.saturating_sub(1) };
        let after = shown.map(|sequence| sequence.max(oldest));
        let missed = match after {
            Some(after) => {
                session.resume(after);
                self.missed_since(session, rooms, after).await?
            }
            None => Vec::new(),
        };
        let reaches_back = shown.is_some() && shown == after;
        // Nothing was ever sent to the room of a session that has just begun.
        let lost = rooms
            .iter()
            .filter(|room| room.session() != Some(session.sid.as_str()));
        let lost = lost.filter_map(|room| {
            let read = missed.iter().find(|missed| missed.room == *room);
            let sequence = match read.filter(|missed| !missed.complete) {
                Some(missed) => missed.events.first().map_or(first, |(sequence, _)| *sequence),
                None if reaches_back => return None,
                None => first,
            };
            Some((room.clone(), Offset { epoch, sequence }))
        });
        Ok(Regained {
            after,
            lost: lost.collect(),
            events: missed.into_iter().flat_map(|missed| missed.events).collect(),
        })
    }

    fn record_of(&self, entry: &Entry, start: u64, automatic: Vec<Room>) -> Record {
        Record {
            owner: self.id,
            term: 1,
            state: State::Live,
            user: entry.user.id().cloned(),
            namespace: entry.namespace.name.clone(),
            transport: entry.client.transport(),
            ordered: Vec::new(),
            rooms: BTreeMap::new(),
            automatic,
            left: Vec::new(),
            stays: None,
            epoch: entry.namespace.style.epoch,
            start,
            since: now(),
            gone: None,
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: entry.namespace.settings.load().lifecycle,
        }
    }

    fn register(&self, sid: Sid, entry: &Entry, keeper: Keeper) -> Arc<Session> {
        let session = Session::new(
            sid,
            Arc::clone(&entry.namespace),
            Arc::clone(&entry.client),
            Arc::clone(&entry.user),
            keeper,
        );
        entry.namespace.insert(&session);
        session
    }

    /// Ends a session whose transport is gone.
    pub(crate) async fn close_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reason: &str,
        recoverable: bool,
    ) {
        self.end_session(session, reason, recoverable, true).await;
    }

    /// Ends a session of which backends may not know yet: then they are not told of its end either.
    pub(crate) async fn end_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reason: &str,
        recoverable: bool,
        is_known: bool,
    ) {
        if session.has_ended() {
            return;
        }
        // Where it is not recoverable, the client or an order ends it while the transport stands.
        let complete = (!recoverable || session.client.has_parted())
            .then(|| session.complete())
            .flatten();
        let _closing = self.closings.token();
        session.hold();
        let late = session.late();
        session.namespace.ends_with(session.sid, &late);
        self.forget(session);
        let state = if recoverable && session.namespace.style.recovery {
            State::Away
        } else {
            State::Ended
        };
        // What was sent since then did not arrive.
        let gone = session.away_since();
        let last = Last {
            state,
            gone: gone.unwrap_or_else(|| session.client.last_there()),
            complete,
            late,
        };
        let finished = session.keeper.finish(self, last).await;
        session.namespace.has_ended(session.sid);
        if finished.is_ok() && is_known {
            self.tell_disconnect(session, reason);
        }
    }

    /// Takes a session out of every table of this edge.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        if !session.end() {
            return;
        }
        session.namespace.remove(session);
        for room in session.rooms() {
            self.exit(session, &room);
        }
    }
}

/// What a plain client gets again that shows an offset.
pub(crate) struct Regained {
    /// Where it goes on; `None` where its offset says nothing here.
    pub(crate) after: Option<u64>,
    /// Rooms of which the history does not reach back, with the oldest offset to be had.
    pub(crate) lost: Vec<(Room, Offset)>,
    /// What there is, room by room.
    pub(crate) events: Vec<(u64, Past)>,
}

impl Regained {
    /// Returns the sequence behind which the history goes on without a gap.
    pub(crate) fn begin(&self) -> Option<u64> {
        let after = self.after?;
        let oldest = self.lost.first().map(|(_, oldest)| oldest.sequence);
        Some(oldest.map_or(after, |oldest| oldest.saturating_sub(1)))
    }
}

/// Takes back what was entered when a client does not get in after all.
struct Undo<'a> {
    hub: &'a Arc<Hub>,
    session: &'a Arc<Session>,
    /// What the record says then; a session that was taken over can still be recovered.
    state: State,
    /// The backend was asked, and so believes that the connection stands.
    asked: bool,
    armed: bool,
}

impl Undo<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.armed {
            let late = self.session.late();
            let gone = self.session.away_since().unwrap_or_else(now);
            self.hub.forget(self.session);
            let hub = Arc::clone(self.hub);
            if self.asked {
                hub.tell_disconnect(self.session, "transport close");
            }
            // Without the client, whose place is free again: NATS may be away for long.
            let Some(keeper) = self.session.keeper.detach() else {
                return;
            };
            let last = Last {
                state: self.state,
                gone,
                complete: None,
                late,
            };
            self.hub
                .closings
                .spawn(async move { keeper.finish(&hub, last).await });
        }
    }
}
