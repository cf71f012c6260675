//! Entering and leaving rooms: the subscription, the barrier behind it, and the record of the session.

use std::sync::Arc;

use carillon_protocol::names::{Class, Room};
use futures_util::future::join_all;

use crate::delivery::{session_cell, subscription_id};
use crate::hub::Hub;
use crate::record::RecordError;
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
            if state.members.add(session, complete)
                && let Some(repair) = &mut state.repair
            {
                // It waits with the others: what comes to other rooms is not to pass what is held here.
                session.hold();
                repair.held.push(Arc::clone(session));
            }
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
        session.keeper.change(self, |record| record.leave(room)).await?;
        self.tell_room(session, "$leave", room).await;
        Ok(true)
    }

    /// Notes that the session has, or is about to get, everything of a room up to a sequence.
    pub(crate) fn heard_up_to(&self, session: &Arc<Session>, room: &Room, sequence: u64) {
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
}
