//! Recovering a session: its owner stops, its record changes hands, and what its client missed is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bucket, TableError};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::message::{TakenOver, Takeover};
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::{Record, State};

use super::{Entry, Opened, Refused, Undo};
use crate::hub::Hub;
use crate::record::{self, Keeper};
use crate::ticket;
use crate::trouble::Troubles;

/// How long a former owner may take to answer.
const TAKEOVER: Duration = Duration::from_secs(1);

impl Hub {
    /// Takes over the session of a ticket; `None` where there is nothing to recover.
    pub(super) async fn recover(
        self: &Arc<Self>,
        entry: &Entry,
        shown: &str,
        offset: Option<&str>,
    ) -> Result<Option<Opened>, Refused> {
        let namespace = &entry.namespace;
        let user = entry.user.id().map(|id| &**id);
        let Some(sid) = ticket::redeem(&self.key, shown, namespace.name.as_str(), user) else {
            return Ok(None);
        };
        let Some((mut taken, revision, former)) = self.take_over(entry, sid, offset).await? else {
            return Ok(None);
        };
        let after = match offset.and_then(|text| text.parse::<Offset>().ok()) {
            Some(offset) => offset.sequence,
            None => taken.start,
        };
        let joined = std::mem::take(&mut taken.rooms);
        taken.automatic = namespace.rules.load().automatic_rooms(&entry.user.who);
        let keeper = Keeper::new(sid, taken.clone(), revision);
        let session = self.register(sid, entry, keeper);
        session.has_own_room_up_to(after);
        let mut guard = Undo {
            hub: self,
            session: &session,
            state: State::Away,
            armed: true,
        };
        let mut rooms: Vec<(Room, u64)> = taken.heard(sid).map(|room| (room, after)).collect();
        let mut kept = BTreeMap::new();
        for (room, from) in joined {
            if taken.ordered.contains(&room) || self.may_join(&session, &room).await.is_ok() {
                rooms.push((room.clone(), after.max(from)));
                kept.insert(room, from);
            }
        }
        let names: Vec<Room> = rooms.iter().map(|(room, _)| room.clone()).collect();
        let (_, written) = tokio::join!(
            self.enter(&session, &names),
            session.keeper.change(self, |record| {
                for (room, from) in &kept {
                    record.rooms.insert(room.clone(), *from);
                }
            })
        );
        written?;
        // A room that was joined later is read from there, since the client was not in it before.
        for (room, from) in rooms.iter_mut().filter(|(_, from)| *from == after) {
            let joined = kept.get(room).copied().unwrap_or(0);
            *from = former.begin(room, after).max(joined);
        }
        let missed = self.missed(&session, &rooms).await?;
        if missed.iter().any(|missed| !missed.complete) {
            guard.state = State::Ended;
            tracing::info!(%sid, "session has missed more than the history gives, a new one begins");
            return Ok(None);
        }
        for missed in &missed {
            for event in &missed.events {
                let sequence = event.sequence.unwrap_or(0);
                if sequence > after || former.repeats(&missed.room, sequence, after) {
                    session.replay(sequence, event);
                }
            }
        }
        session.open(after);
        guard.disarm();
        Ok(Some(Opened {
            session,
            recovered: true,
            lost: Vec::new(),
            greetings: Vec::new(),
        }))
    }

    /// Makes this edge the owner of a session: the former owner stops, then the record changes hands.
    async fn take_over(
        self: &Arc<Self>,
        entry: &Entry,
        sid: Sid,
        offset: Option<&str>,
    ) -> Result<Option<(Record, u64, Former)>, Refused> {
        let table = self.bus.table(Bucket::Sessions);
        let window = u64::try_from(self.session.recovery.as_millis()).unwrap_or(u64::MAX);
        loop {
            let (mut record, revision) = match record::read(&table, sid).await {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(None),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let same_epoch = match offset {
                None => true,
                Some(text) => text
                    .parse::<Offset>()
                    .is_ok_and(|offset| offset.epoch == entry.namespace.style.epoch),
            };
            let known = record.epoch == entry.namespace.style.epoch
                && record.namespace == entry.namespace.name
                && same_epoch;
            if !known || !record.is_recoverable(now(), window) {
                return Ok(None);
            }
            let sequence = offset
                .and_then(|text| text.parse::<Offset>().ok())
                .map_or(record.start, |offset| offset.sequence);
            record.term += 1;
            let takeover = Takeover {
                sid,
                term: record.term,
            };
            let former = match self.stop_owner(&record, takeover).await {
                Some(late) => {
                    record.late.extend(late);
                    Former::Stopped {
                        late: record.lacking(sequence),
                    }
                }
                None => match self.troubles(&entry.namespace, record.owner).await {
                    Ok(troubles) => Former::Gone(troubles),
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                },
            };
            record.owner = self.id;
            record.state = State::Live;
            record.gone = None;
            record.late = Vec::new();
            record.transport = entry.client.transport();
            record.user = entry.user.id().cloned();
            match record::put(&table, sid, &record, revision, None).await {
                Ok(revision) => return Ok(Some((record, revision, former))),
                Err(TableError::Conflict) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Asks the owner of a session to stop, wherever it is; returns what it sent late, or `None` where it is gone.
    async fn stop_owner(self: &Arc<Self>, record: &Record, takeover: Takeover) -> Option<Vec<(u64, u64)>> {
        if record.owner == self.id {
            return Some(self.hand_over(&record.namespace, &takeover).await.late);
        }
        let subject = format!("{}.takeover", self.bus.subjects().edge(record.owner));
        let body = serde_json::to_vec(&takeover).expect("a takeover is JSON").into();
        match self.bus.request(&subject, &Headers::new(), body, TAKEOVER).await {
            Ok(reply) => Some(
                serde_json::from_slice::<TakenOver>(&reply.body)
                    .unwrap_or_default()
                    .late,
            ),
            Err(error) => {
                tracing::debug!(%error, owner = %record.owner, "former owner does not answer");
                None
            }
        }
    }

    /// Stops a session of this edge that another one takes over.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        namespace: &carillon_protocol::names::Namespace,
        takeover: &Takeover,
    ) -> TakenOver {
        let session = self
            .namespace(namespace.as_str())
            .and_then(|namespace| namespace.session(takeover.sid));
        let Some(session) = session.filter(|session| session.keeper.term() < takeover.term) else {
            return TakenOver::default();
        };
        session.hold();
        let late = session.late();
        session.keeper.give_up().await;
        session.fence();
        self.forget(&session);
        TakenOver { late }
    }
}

/// What became of a session's former owner.
enum Former {
    /// It stopped, and names what the client may lack below its offset.
    Stopped { late: Vec<u64> },
    /// It is gone; this is where its clients may lack something.
    Gone(Troubles),
}

impl Former {
    /// Returns where reading of a room must begin for a client that has an offset.
    fn begin(&self, room: &Room, offset: u64) -> u64 {
        match self {
            Self::Stopped { late } => late
                .iter()
                .map(|late| late.saturating_sub(1))
                .min()
                .unwrap_or(offset)
                .min(offset),
            Self::Gone(troubles) => troubles.begin(room, offset),
        }
    }

    /// Returns whether a client that has an offset is sent an event below it.
    fn repeats(&self, room: &Room, sequence: u64, offset: u64) -> bool {
        match self {
            Self::Stopped { late } => late.contains(&sequence),
            Self::Gone(troubles) => sequence > troubles.begin(room, offset),
        }
    }
}
