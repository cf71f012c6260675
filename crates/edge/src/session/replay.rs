//! What a client missed, sent as fast as it takes it: what does not fit into its queue stays in the stream until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::names::Room;
use tokio::time::Instant;

use super::Session;
use super::cursor::Cursor;
use crate::entrance::{PATIENCE, Refused};
use crate::frame::Broadcast;
use crate::history::{PAGE_BYTES, Past, Stub};
use crate::hub::Hub;

/// Pause between two attempts to read.
const RETRY: Duration = Duration::from_millis(100);

impl Session {
    /// How many bytes of the history may wait in memory.
    pub(crate) fn past_limit(&self) -> usize {
        self.namespace.queue_limit / 2
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

    /// Adds an event of the history to what waits, unless the client was sent it again before; the session must be held.
    pub(crate) fn replay(&self, hub: &Arc<Hub>, sequence: u64, event: Past) {
        if matches!(&event, Past::Read(broadcast) if broadcast.excludes(self.sid.as_str())) {
            return;
        }
        let mut cursor = self.cursor.lock();
        if sequence > self.resumed() || cursor.rare().replayed_below.insert(sequence) {
            self.hold_past(&mut cursor, hub, sequence, event);
        }
    }

    fn hold_past(&self, cursor: &mut Cursor, hub: &Arc<Hub>, sequence: u64, event: Past) {
        let fits = cursor.past_bytes + event.size() <= self.past_limit();
        cursor.hold(sequence, if fits { event } else { event.later(hub) }, false);
    }

    /// Sends the rest of what waits once the client has taken some: a long history is not a slow client.
    pub(super) fn go_on_when_drained(self: &Arc<Self>, cursor: &mut Cursor, size: usize) {
        if std::mem::replace(&mut cursor.draining, true) {
            return;
        }
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let goes_on = session.is_drained(size).await && session.read_next().await;
            let mut cursor = session.cursor.lock();
            cursor.draining = false;
            if goes_on && !session.has_ended() {
                session.flush(&mut cursor);
            }
        });
    }

    /// Waits until the client has room; one that takes nothing is closed.
    async fn is_drained(&self, size: usize) -> bool {
        let drained = self.client.drained(size).await;
        if !drained && !self.has_ended() {
            self.client.overflow();
        }
        drained
    }

    /// Reads what waits at the front and is not in memory; `false` if it cannot be had.
    async fn read_next(&self) -> bool {
        let wanted = {
            let cursor = self.cursor.lock();
            unread(
                cursor
                    .held
                    .iter()
                    .map(|(sequence, held)| (*sequence, &held.event)),
            )
        };
        let Some(read) = self.read_again(&wanted).await else {
            return false;
        };
        self.cursor.lock().take_read(&wanted, read);
        true
    }

    /// Reads events again. Where that cannot be done the client is closed: it comes back, and is told what is lost.
    async fn read_again(&self, wanted: &[(u64, Stub)]) -> Option<Vec<(u64, Arc<Broadcast>)>> {
        let Some((_, Stub { hub, .. })) = wanted.first() else {
            return Some(Vec::new());
        };
        let deadline = Instant::now() + PATIENCE;
        let read = loop {
            match hub.read_again(&self.namespace, wanted).await {
                Ok(read) => break read,
                Err(error) if self.has_ended() || Instant::now() >= deadline => {
                    tracing::debug!(%error, sid = %self.sid, "what a client missed cannot be read");
                    break None;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        if read.is_none() {
            self.client.close(Refused::Unavailable.closing());
        }
        read
    }

    /// Sends events again that the client may have: a subscription with `since`. The session must be held. `false` if
    /// the client takes no more.
    ///
    /// Whoever is cut off goes on from the offset of the last one that came, so each has its own sequence, and only
    /// the last one the client's offset. Those above this offset wait where other rooms' events wait before them.
    pub(crate) async fn send_again(&self, hub: &Arc<Hub>, events: Vec<(u64, Past)>, after: u64) -> bool {
        let sid = self.sid.as_str();
        let is_for_it = |event: &Past| !matches!(event, Past::Read(event) if event.excludes(sid));
        let mut rest: BTreeMap<u64, Past> =
            events.into_iter().filter(|(_, event)| is_for_it(event)).collect();
        let mut offset = after;
        while let Some((_, next)) = rest.first_key_value() {
            let wanted = unread(rest.iter().map(|(sequence, event)| (*sequence, event)));
            if !self.is_drained(next.size()).await {
                return false;
            }
            let Some(read) = self.read_again(&wanted).await else {
                return false;
            };
            for (sequence, _) in wanted {
                rest.remove(&sequence);
            }
            rest.extend(
                read.into_iter()
                    .map(|(sequence, event)| (sequence, Past::Read(event))),
            );
            self.send_those_read(hub, &mut rest, &mut offset);
        }
        true
    }

    /// Sends again what was read and there is room for.
    fn send_those_read(&self, hub: &Arc<Hub>, rest: &mut BTreeMap<u64, Past>, offset: &mut u64) {
        let mut cursor = self.cursor.lock();
        self.client.cork();
        while let Some((&sequence, event)) = rest.first_key_value() {
            if cursor.has_waiting_before(sequence) {
                for (sequence, event) in std::mem::take(rest) {
                    self.hold_past(&mut cursor, hub, sequence, event);
                }
                break;
            }
            let Past::Read(broadcast) = event.clone() else {
                break;
            };
            if !self.client.has_room(broadcast.size()) {
                break;
            }
            rest.remove(&sequence);
            if let Some(held) = cursor.held.remove(&sequence) {
                cursor.uncount(&held);
            }
            cursor.last = cursor.last.max(sequence);
            *offset = (*offset).max(sequence);
            let is_followed = rest
                .first_key_value()
                .is_some_and(|(next, _)| *next <= cursor.last);
            if !is_followed {
                *offset = (*offset).max(cursor.last);
            }
            self.write(None, &broadcast, *offset);
        }
        self.client.uncork();
    }
}

/// Returns the places of what comes first and must be read again, about a page of it.
fn unread<'a>(events: impl Iterator<Item = (u64, &'a Past)>) -> Vec<(u64, Stub)> {
    let mut bytes = 0;
    events
        .map_while(|(sequence, event)| match event {
            Past::Stored(stub) => Some((sequence, stub.clone())),
            Past::Read(_) => None,
        })
        .take_while(|(_, stub)| {
            let fits = bytes < PAGE_BYTES;
            bytes += stub.size;
            fits
        })
        .collect()
}
