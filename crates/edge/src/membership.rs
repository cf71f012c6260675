//! Entering and leaving rooms: the subscription, the barrier behind it, and the record of the session.

use std::sync::Arc;

use carillon_bus::HistoryError;
use carillon_protocol::doubt::Lack;
use carillon_protocol::names::{Class, Room};
use futures_util::future::join_all;

use crate::delivery::{session_cell, subscription_id};
use crate::doubts::Former;
use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::record::RecordError;
use crate::repair::History;
use crate::room::State;
use crate::session::Session;

impl Hub {
    /// Makes the session a member of rooms, and waits until each is sure to be heard; returns the sequence above
    /// which it hears each.
    ///
    /// This is only the edge's side: rules are asked, and records written, by the caller.
    pub(crate) async fn enter(self: &Arc<Self>, session: &Arc<Session>, rooms: &[Room]) -> Vec<u64> {
        join_all(rooms.iter().map(|room| self.enter_one(session, room))).await
    }

    async fn enter_one(self: &Arc<Self>, session: &Arc<Session>, room: &Room) -> u64 {
        let namespace = &session.namespace;
        session.enter(room);
        if room.class() == Class::Session && room.session() == Some(session.sid.as_str()) {
            // Heard through the namespace's wildcard, from the start.
            return session.own_room_from();
        }
        let cell = namespace.rooms.enter(room, |generation, slot| {
            let id = subscription_id(namespace.index, generation, slot);
            self.link()
                .subscribe(id, &self.bus.subjects().delivery(&namespace.name, room));
            id
        });
        let begin = |state: &mut State| state.members.get_mut(session).map(|member| member.from);
        let known = {
            let mut state = cell.state.lock();
            let complete = state.complete.unwrap_or(u64::MAX);
            state.members.add(session, complete);
            begin(&mut state).filter(|from| *from != u64::MAX)
        };
        let from = match known {
            Some(from) => from,
            None => {
                let entering = (Arc::clone(&cell), Arc::clone(session));
                let barrier = namespace.pass_barrier(self, Some(entering)).await;
                begin(&mut cell.state.lock()).unwrap_or(barrier)
            }
        };
        // A session that has ended may have been cleaned up before it was a member.
        if session.has_ended() {
            self.exit(session, room);
        }
        from
    }

    /// Takes the session out of a room; `false` if it was not in it.
    pub(crate) fn exit(&self, session: &Arc<Session>, room: &Room) -> bool {
        if let Some(cell) = session.namespace.rooms.find(room) {
            let empty = {
                let mut state = cell.state.lock();
                state.members.remove(session) && state.members.is_empty()
            };
            if empty {
                session.namespace.rooms.emptied(room);
            }
        }
        session.exit(room)
    }

    /// Lets a session join a room that it may join: heard, recorded, and told.
    pub(crate) async fn join(
        self: &Arc<Self>,
        session: &Arc<Session>,
        room: &Room,
    ) -> Result<(), RecordError> {
        let was_in = session.is_in(room);
        let from = self.enter_one(session, room).await;
        if was_in {
            return Ok(());
        }
        let written = session
            .keeper
            .change(self, |record| {
                record.left.retain(|left| left != room);
                if !record.is_automatic(room) {
                    record.rooms.entry(room.clone()).or_insert(from);
                }
            })
            .await;
        if let Err(error) = written {
            self.exit(session, room);
            return Err(error);
        }
        self.tell_room(session, "$join", room).await;
        Ok(())
    }

    /// Lets a session leave a room; `false` if it was not in it. The room of the session itself stays.
    pub(crate) async fn leave(
        self: &Arc<Self>,
        session: &Arc<Session>,
        room: &Room,
    ) -> Result<bool, RecordError> {
        if room.session() == Some(session.sid.as_str()) || !self.exit(session, room) {
            return Ok(false);
        }
        session
            .keeper
            .change(self, |record| {
                if record.rooms.remove(room).is_none() && !record.left.contains(room) {
                    record.left.push(room.clone());
                }
            })
            .await?;
        self.tell_room(session, "$leave", room).await;
        Ok(true)
    }

    /// Notes that the session has, or is about to get, everything of a room up to a sequence.
    fn heard_up_to(&self, session: &Arc<Session>, room: &Room, sequence: u64) {
        let namespace = &session.namespace;
        let cell = if room.class() == Class::Session {
            session_cell(namespace, room)
        } else {
            namespace.rooms.find(room)
        };
        let Some(cell) = cell else { return };
        if let Some(member) = cell.state.lock().members.get_mut(session) {
            member.from = member.from.max(sequence);
        }
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
            let is_lacking = lacks.iter().any(|lack| lack.room == *room);
            // Behind the barrier a room that is complete has everything.
            let recent = namespace
                .rooms
                .find(room)
                .filter(|_| !is_lacking)
                .and_then(|cell| cell.state.lock().since(*after));
            match recent {
                Some((events, complete)) => {
                    self.heard_up_to(session, room, complete);
                    missed.push(Missed {
                        room: room.clone(),
                        complete: true,
                        events,
                    });
                }
                None => unknown.push((room.clone(), *after)),
            }
        }
        for rooms in unknown.chunks(1000) {
            let mut asked: Vec<String> = rooms
                .iter()
                .map(|(room, _)| subjects.event(&namespace.name, room))
                .collect();
            asked.push(probe.clone());
            let lasts = self.bus.last(&namespace.stream.name, &asked, barrier).await?;
            let reads = rooms.iter().zip(&asked).filter_map(|((room, after), subject)| {
                let last = lasts.iter().find(|last| last.subject == *subject)?.sequence;
                let lacking = lacks.iter().filter(|lack| lack.room == *room);
                let begin = lacking.map(|lack| lack.after).min().unwrap_or(*after).min(*after);
                (last > begin).then_some((room, *after, begin, last))
            });
            let reads = reads.map(|(room, after, begin, last)| async move {
                // The stream itself limits how many there are.
                let History {
                    mut events, complete, ..
                } = self.history(namespace, room, begin, last, usize::MAX).await?;
                events.retain(|event| {
                    let sequence = event.sequence.unwrap_or(0);
                    sequence > after || lacks.iter().any(|lack| lack.covers(room, sequence))
                });
                // A delivery of the same event may still be on its way.
                self.heard_up_to(session, room, last);
                Ok(Missed {
                    room: room.clone(),
                    complete,
                    events,
                })
            });
            for read in join_all(reads).await {
                missed.push(read?);
            }
        }
        Ok(missed)
    }
}

/// What a room had that a client did not get.
pub(crate) struct Missed {
    pub(crate) room: Room,
    pub(crate) events: Vec<Arc<Broadcast>>,
    /// Everything is there; otherwise the room had more than can be read.
    pub(crate) complete: bool,
}
