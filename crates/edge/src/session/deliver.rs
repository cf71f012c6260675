//! What a session is sent: at once, or held back and then in the order of the sequences.

use std::sync::Arc;

use carillon_protocol::names::Room;

use super::Session;
use super::cursor::{Cursor, Held};
use crate::frame::Broadcast;
use crate::history::Past;
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
            cursor.hold(sequence, Past::Read(Arc::clone(broadcast)), true);
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
        let measured = || metrics::sent_joined(&self.namespace, joined.events);
        if !self.client.send_joined_in(turn, piece, measured) {
            return false;
        }
        if let Some((_, last)) = joined.range {
            cursor.last = last;
        }
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
        let (mut text, attachments) = broadcast.frame(self.client.wire, style).chunks(last, style.epoch);
        text.accepted = metrics::sent(&self.namespace, broadcast);
        match turn {
            Some(turn) => self
                .client
                .send_event_in(turn, text, attachments, broadcast.overflow),
            None => self.client.send_event(text, attachments, broadcast.overflow),
        }
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

    pub(super) fn flush(self: &Arc<Self>, cursor: &mut Cursor) {
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
            let size = next.event.size();
            if matches!(next.event, Past::Stored(_)) || !self.client.has_room(size) {
                return self.go_on_when_drained(cursor, size);
            }
            self.client.cork();
            self.write_held(cursor);
            self.client.uncork();
        }
    }

    /// Writes what waits, as far as it was read and there is room for it.
    fn write_held(&self, cursor: &mut Cursor) {
        while let Some(next) = cursor.held.first_entry() {
            let Past::Read(broadcast) = next.get().event.clone() else {
                return;
            };
            if !self.client.has_room(broadcast.size()) {
                return;
            }
            let (sequence, held) = next.remove_entry();
            cursor.uncount(&held);
            // The last one up to there proves all before it.
            let verified = cursor.verified;
            let is_last = cursor.held.keys().next().is_none_or(|next| *next > verified);
            let proof = if is_last { verified } else { 0 };
            self.write_durable(None, cursor, sequence, &broadcast, proof);
        }
    }

    /// Drops what came live since the rooms were entered and the client already has: this edge may be behind the one
    /// that sent it.
    pub(crate) fn drop_heard(&self, rooms: &[(Room, u64)]) {
        let mut cursor = self.cursor.lock();
        let Cursor { held, held_bytes, .. } = &mut *cursor;
        held.retain(|sequence, Held { event, live }| {
            let heard = |(room, up_to): &(Room, u64)| room == event.room() && sequence <= up_to;
            let keep = !*live || !rooms.iter().any(heard);
            if !keep {
                *held_bytes = held_bytes.saturating_sub(event.size());
            }
            keep
        });
    }
}
