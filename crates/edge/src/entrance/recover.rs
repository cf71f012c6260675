//! Recovering a session: its owner stops, its record changes hands, and what its client missed is read.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bucket, TableError};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{TakenOver, Takeover};
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::{Record, State};
use futures_util::future::join_all;

use super::{Entry, Opened, Refused, Undo};
use crate::doubts::Former;
use crate::hub::Hub;
use crate::record::{self, Keeper};
use crate::ticket;

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
        let Some((mut taken, revision, away_since)) = self.take_over(entry, sid, offset).await? else {
            return Ok(None);
        };
        let after = taken.shown(offset);
        taken.automatic = namespace.rules.load().automatic_rooms(&entry.user.who);
        let keeper = Keeper::new(sid, taken.clone(), revision).away_since(away_since);
        let session = self.register(sid, entry, keeper);
        session.has_own_room_up_to(after);
        session.may_lack(taken.late.clone());
        session.resume(after);
        let mut guard = Undo {
            hub: self,
            session: &session,
            state: State::Away,
            asked: false,
            armed: true,
        };
        let own = taken.heard_by_itself(sid).into_iter();
        let mut rooms: Vec<(Room, u64)> = own.map(|room| (room, after)).collect();
        // All rules at once: each backend that is asked may take its time.
        let asked = taken.rooms.iter().map(|(room, from)| {
            let (ordered, session) = (&taken.ordered, &session);
            async move {
                let kept = ordered.contains(room) || self.may_join(session, room).await.is_ok();
                (room.clone(), *from, kept)
            }
        });
        let mut refused = Vec::new();
        for (room, from, kept) in join_all(asked).await {
            if kept {
                // A room that was joined later is read from there, since the client was not in it before.
                rooms.push((room, after.max(from)));
            } else {
                refused.push(room);
            }
        }
        let names: Vec<Room> = rooms.iter().map(|(room, _)| room.clone()).collect();
        let (_, written) = tokio::join!(
            self.enter(&session, &names),
            session.keeper.change(self, |record| {
                record.rooms.retain(|room, _| !refused.contains(room));
            })
        );
        written?;
        // Once it hears every doubt to come: what the client may lack below its offset.
        let gone: Vec<EdgeId> = taken.unsure.iter().map(|(edge, _)| *edge).collect();
        let mut lacks = self
            .lacks(namespace, &names, after, Former::Edges(&gone))
            .await
            .map_err(|_| Refused::Unavailable)?;
        lacks.extend(taken.late);
        let missed = self.missed(&session, &rooms, &lacks).await?;
        if missed.iter().any(|missed| !missed.complete) {
            guard.state = State::Ended;
            tracing::info!(%sid, "session has missed more than the history gives, a new one begins");
            return Ok(None);
        }
        for (sequence, event) in missed.into_iter().flat_map(|missed| missed.events) {
            session.replay(self, sequence, event);
        }
        session.open(after);
        guard.disarm();
        Ok(Some(Opened {
            session,
            recovered: true,
            lost: Vec::new(),
            greetings: Vec::new(),
            asked: false,
        }))
    }

    /// Makes this edge the owner of a session: the former owner stops, then the record changes hands. Returns the record
    /// with its revision, and when the client had gone.
    async fn take_over(
        self: &Arc<Self>,
        entry: &Entry,
        sid: Sid,
        offset: Option<&str>,
    ) -> Result<Option<(Record, u64, Option<u64>)>, Refused> {
        let table = self.bus.table(Bucket::Sessions);
        let window = u64::try_from(self.session.recovery.as_millis()).unwrap_or(u64::MAX);
        // A former owner tells what it knows once, and then has forgotten the session.
        let mut late = Vec::new();
        let mut unsure = Vec::new();
        loop {
            let (mut record, revision) = match record::read(&table, sid).await {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(None),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let known = record.epoch == entry.namespace.style.epoch
                && record.namespace == entry.namespace.name
                && offset.is_none_or(|text| text.parse::<Offset>().is_ok());
            if !known || !record.is_recoverable(now(), window) {
                return Ok(None);
            }
            record.term += 1;
            let takeover = Takeover {
                sid,
                term: record.term,
            };
            let shown = record.shown(offset);
            let stopped = self.stop_owner(&record, takeover).await;
            record.unsure.retain(|(_, left_at)| *left_at >= shown);
            let stopped = stopped.unwrap_or(TakenOver {
                unsure: true,
                ..TakenOver::default()
            });
            late.extend(stopped.late);
            if stopped.unsure && !unsure.contains(&record.owner) {
                unsure.push(record.owner);
            }
            record.unsure.extend(unsure.iter().map(|edge| (*edge, shown)));
            record.late.extend(late.iter().cloned());
            record.late.retain(|lack| lack.concerns(shown));
            record.owner = self.id;
            record.state = State::Live;
            let gone = record.gone.take();
            record.complete = None;
            record.transport = entry.client.transport();
            record.user = entry.user.id().cloned();
            match record::put(&table, sid, &record, revision, None).await {
                Ok(revision) => return Ok(Some((record, revision, gone))),
                Err(TableError::Conflict) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Asks the owner of a session to stop, wherever it is; `None` where it is gone.
    async fn stop_owner(self: &Arc<Self>, record: &Record, takeover: Takeover) -> Option<TakenOver> {
        if record.owner == self.id {
            return Some(self.hand_over(&record.namespace, &takeover).await);
        }
        let subject = format!("{}.takeover", self.bus.subjects().edge(record.owner));
        let body = serde_json::to_vec(&takeover).expect("a takeover is JSON").into();
        match self.bus.request(&subject, &Headers::new(), body, TAKEOVER).await {
            Ok(reply) => Some(serde_json::from_slice(&reply.body).unwrap_or_default()),
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
        let Some(namespace) = self.namespace(namespace.as_str()) else {
            return TakenOver::default();
        };
        let session = namespace.session(takeover.sid);
        let Some(session) = session.filter(|session| session.keeper.term() < takeover.term) else {
            // Its last record may be on its way, and comes too late now.
            return TakenOver {
                late: namespace.late_of_ending(takeover.sid),
                ..TakenOver::default()
            };
        };
        session.hold();
        let taken = TakenOver {
            late: session.late(),
            unsure: session.is_in_doubt(),
        };
        session.keeper.give_up().await;
        session.fence();
        self.forget(&session);
        taken
    }
}
