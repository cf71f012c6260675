//! What a session is sent: at once, or held back and then in the order of the sequences.

use std::sync::Arc;

use carillon_protocol::names::Room;

use super::Session;
use super::cursor::Cursor;
use crate::frame::Broadcast;
use crate::metrics;
use crate::turn::{Joined, Turn};

impl Session {
    /// Sends an event that this edge makes for this client alone.
    pub(crate) fn deliver(&self, broadcast: &Arc<Broadcast>) {
        let mut cursor = self.cursor.lock();
        cursor.note_signal(broadcast);
        if cursor.greeted {
            self.write(None, broadcast, cursor.last);
        }
    }

    /// Takes an event of a room that the session is in, as one of several of a turn.
    pub(crate) fn deliver_in(self: &Arc<Self>, turn: Option<&mut Turn>, broadcast: &Arc<Broadcast>) {
        if broadcast.excludes(self.sid.as_str()) {
            return;
        }
        let mut cursor = self.cursor.lock();
        let Some(sequence) = broadcast.sequence else {
            cursor.note_signal(broadcast);
            // A history fills half of the client's queue, and what waits behind it must fit into the other half.
            let limit = self.namespace.queue_limit / 2;
            if cursor.greeted && !cursor.has_copy(broadcast) && !cursor.keep(broadcast, limit) {
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
        if !cursor.greeted || cursor.holds > 0 || self.namespace.is_held() || !cursor.held.is_empty() {
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

    pub(super) fn write(&self, turn: Option<&mut Turn>, broadcast: &Broadcast, last: u64) {
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

    /// Holds everything back for a subscription, the topic's signals too, until [`Session::end_replay`].
    pub(crate) fn begin_replay(&self, topic: &Room) {
        let mut cursor = self.cursor.lock();
        cursor.holds += 1;
        cursor.keep_signals(Some(topic)).reading = true;
    }

    /// Lets what waited for a subscription leave: the rest of its history, then signals.
    pub(crate) fn end_replay(self: &Arc<Self>) {
        if let Some(kept) = &mut self.cursor.lock().kept {
            kept.reading = false;
        }
        self.release();
    }

    /// Sends what waited, if nothing holds it any more.
    pub(crate) fn release_namespace(self: &Arc<Self>) {
        self.flush(&mut self.cursor.lock());
    }

    fn flush(self: &Arc<Self>, cursor: &mut Cursor) {
        self.flush_held(cursor);
        let signals = cursor.take_kept();
        if signals.is_empty() {
            return;
        }
        self.client.cork();
        // Rooms may have been left meanwhile.
        for signal in signals.iter().filter(|signal| self.is_in(&signal.room)) {
            self.write(None, signal, cursor.last);
        }
        self.client.uncork();
    }

    fn flush_held(self: &Arc<Self>, cursor: &mut Cursor) {
        while cursor.holds == 0 && !self.namespace.is_held() {
            let Some(next) = cursor.held.values().next() else {
                let verified = std::mem::take(&mut cursor.verified);
                if cursor.greeted {
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

    /// Adds an event of the history to what waits, unless the client was sent it again before; the session must be held.
    pub(crate) fn replay(&self, sequence: u64, broadcast: &Arc<Broadcast>) {
        if broadcast.excludes(self.sid.as_str()) {
            return;
        }
        let mut cursor = self.cursor.lock();
        if sequence > self.resumed() || cursor.replayed_below.insert(sequence) {
            cursor.hold(sequence, broadcast, false);
        }
    }

    /// Sends events again that the client may have: a subscription with `since`. The session must be held. `false` if
    /// the client takes no more.
    ///
    /// Whoever is cut off goes on from the offset of the last one that came, so each has its own sequence, and only
    /// the last one the client's offset. Those above this offset wait where other rooms' events wait before them.
    pub(crate) async fn send_again(&self, broadcasts: &[Arc<Broadcast>], after: u64) -> bool {
        let events: Vec<_> = broadcasts
            .iter()
            .filter(|broadcast| !broadcast.excludes(self.sid.as_str()))
            .filter_map(|broadcast| Some((broadcast.sequence?, broadcast)))
            .collect();
        let mut rest = &events[..];
        let mut offset = after;
        while let Some((_, next)) = rest.first() {
            if !self.client.drained(next.size()).await {
                self.client.overflow();
                return false;
            }
            let mut cursor = self.cursor.lock();
            self.client.cork();
            while let Some(((sequence, broadcast), others)) = rest.split_first() {
                if cursor.has_waiting_before(*sequence) {
                    for (sequence, broadcast) in std::mem::take(&mut rest) {
                        cursor.hold(*sequence, broadcast, false);
                    }
                    break;
                }
                if !self.client.has_room(broadcast.size()) {
                    break;
                }
                rest = others;
                if let Some(held) = cursor.held.remove(sequence) {
                    cursor.uncount(&held);
                }
                cursor.last = cursor.last.max(*sequence);
                offset = offset.max(*sequence);
                let is_followed = others.first().is_some_and(|(next, _)| *next <= cursor.last);
                if !is_followed {
                    offset = offset.max(cursor.last);
                }
                self.write(None, broadcast, offset);
            }
            self.client.uncork();
        }
        true
    }
}
