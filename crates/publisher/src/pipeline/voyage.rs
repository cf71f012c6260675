//! A shipment on its way: the same copies again and again until EVENTS has them, in order and once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_bus::history::now;
use carillon_bus::{Outgoing, StoreError, Stored};
use carillon_protocol::before::Before;
use carillon_protocol::headers::name;
use futures_util::future::join_all;

use crate::backoff::Backoff;
use crate::check::Refusal;
use crate::metrics;
use crate::pipeline::doubts::Doubts;
use crate::pipeline::store::{Copy, Fate, Outcome, Shipment, Store};
use crate::pipeline::tails::Tail;

/// An acknowledgement after this time counts as late: its delivery is in doubt, since another server may lead the stream
/// by then, or have lost a part of what was sent to it.
const LATE: Duration = Duration::from_secs(1);
/// In place of the sequence of a batch's first message, which is known when the batch is stored.
const BATCH: u64 = 1 << 62;
/// Names asked for at once.
const QUESTIONS: usize = 32;

/// A shipment on its way.
pub(super) struct Voyage<'a> {
    store: &'a Store,
    shipment: Shipment,
    fates: Vec<Fate>,
    /// Whether the copies are one event for several rooms.
    list: bool,
    /// How many copies at the front are sent by themselves: something in the batch is not taken.
    alone: usize,
    /// What may have been stored without being delivered.
    doubts: Doubts,
}

impl<'a> Voyage<'a> {
    pub(super) fn new(store: &'a Store, shipment: Shipment) -> Self {
        Self {
            store,
            fates: vec![Fate::Stored(None); shipment.entries],
            list: shipment.entries == 1 && shipment.copies.len() > 1,
            shipment,
            alone: 0,
            doubts: Doubts::default(),
        }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let mut backoff = Backoff::new();
        loop {
            self.look_up(true, &mut backoff).await;
            self.drop_covered();
            self.tell_doubts().await;
            if self.shipment.copies.is_empty() {
                break;
            }
            let (begun, sent) = (Instant::now(), now());
            let error = match self.attempt(sent).await {
                Ok(stored) => {
                    let is_late = begun.elapsed() > LATE && !self.store.bus.is_single();
                    if stored.duplicate || is_late {
                        self.doubt(Some(stored));
                    }
                    self.landed(stored, sent);
                    backoff.reset();
                    continue;
                }
                Err(error) => error,
            };
            self.failed(error, &mut backoff).await;
        }
        Outcome {
            tails: self.shipment.tails,
            fates: self.fates,
        }
    }

    /// Reads the ends of rooms: of those that are not known, or of all.
    async fn look_up(&mut self, missing: bool, backoff: &mut Backoff) {
        let tails = &self.shipment.tails;
        let is_known = |room: &str| tails.get(room).is_some_and(|tail| !tail.is_behind);
        let rooms = self.shipment.copies.iter().map(|copy| &copy.room);
        let mut rooms: Vec<String> = rooms
            .filter(|room| !missing || !is_known(room))
            .map(|room| room.to_string())
            .collect();
        rooms.sort_unstable();
        rooms.dedup();
        if rooms.is_empty() {
            return;
        }
        let found = loop {
            match self.store.bus.last(&self.shipment.stream, &rooms, 0).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::debug!(%error, stream = self.shipment.stream, "rooms cannot be read yet")
                }
            }
            backoff.wait().await;
        };
        let mut found: HashMap<&str, Tail> = found
            .iter()
            .map(|message| (message.subject.as_str(), Tail::of(message)))
            .collect();
        for room in &rooms {
            let tail = self.shipment.tails.entry(room.as_str().into()).or_default();
            *tail = std::mem::take(tail).again(found.remove(room.as_str()));
        }
    }

    /// Forgets what the rooms already have.
    fn drop_covered(&mut self) {
        let Self {
            shipment,
            fates,
            doubts,
            ..
        } = self;
        let before = shipment.copies.len();
        shipment.copies.retain(|copy| {
            let Some(tail) = shipment
                .tails
                .get(&copy.room)
                .filter(|tail| tail.covers(copy.content.origin))
            else {
                return true;
            };
            if tail.ends_with(copy.content.origin) {
                fates[copy.entry].stored_at(tail.sequence);
                // Whoever stored it may have died before it could tell a doubt.
                doubts.add(&copy.room, tail.sequence.saturating_sub(1));
            }
            false
        });
        metrics::duplicates((before - shipment.copies.len()) as u64);
        if before > shipment.copies.len() {
            // Whatever stood apart is looked for anew.
            self.alone = 0;
        }
    }

    /// The copies that the next attempt sends.
    fn next(&self) -> &[Copy] {
        let count = if self.alone > 0 {
            1
        } else {
            self.shipment.copies.len()
        };
        &self.shipment.copies[..count]
    }

    async fn attempt(&self, sent: u64) -> Result<Stored, StoreError> {
        let copies = self.next();
        let mut messages = Vec::with_capacity(copies.len());
        let mut last: Option<&Arc<str>> = None;
        let mut before = Before::default();
        for (own, (index, copy)) in (BATCH..).zip(copies.iter().enumerate()) {
            let mut headers = copy.content.headers.clone();
            if let Some(id) = copy.message_id() {
                headers.push(name::MSG_ID, id);
            }
            if self.list && copies.len() > 1 {
                let set = format!("{};{index};{}", copy.content.origin.sequence, copies.len());
                headers.push(name::SET, set);
            }
            // Within a batch the server checks a room once, at its first message.
            if last != Some(&copy.room) {
                let tail = self.shipment.tails.get(&copy.room).cloned().unwrap_or_default();
                headers.push(name::EXPECTED, tail.sequence.to_string());
                before = tail.before;
            }
            last = Some(&copy.room);
            headers.push(name::BEFORE, before.to_header(own, BATCH));
            before.push(own, copy.content.expires(sent));
            messages.push(Outgoing {
                subject: copy.room.to_string(),
                headers,
                body: copy.content.body.clone(),
            });
        }
        if messages.len() > 1 {
            return self.store.store_batch(messages).await;
        }
        let Some(only) = messages.pop() else {
            return Err(StoreError::Timeout);
        };
        self.store
            .bus
            .store(&only.subject, &only.headers, only.body)
            .await
    }

    /// Takes an acknowledgement for what was sent.
    fn landed(&mut self, stored: Stored, sent: u64) {
        let count = self.next().len();
        if stored.duplicate {
            metrics::duplicates(1);
        } else {
            metrics::stored(count as u64);
        }
        self.alone = self.alone.saturating_sub(count);
        let copies = self.shipment.copies.drain(..count);
        for (index, copy) in copies.enumerate() {
            let sequence = stored.sequence.saturating_sub((count - 1 - index) as u64);
            let tail = self.shipment.tails.entry(copy.room).or_default();
            let (known, origin) = (std::mem::take(tail), copy.content.origin);
            *tail = if stored.duplicate {
                known.after_duplicate(sequence, origin)
            } else {
                known.after(sequence, origin, copy.content.expires(sent))
            };
            self.fates[copy.entry].stored_at(sequence);
        }
    }

    async fn failed(&mut self, error: StoreError, backoff: &mut Backoff) {
        tracing::debug!(%error, stream = self.shipment.stream, copies = self.next().len(), "store has to be repeated");
        metrics::retry();
        self.doubt(None);
        match error {
            StoreError::WrongLastSequence => {
                // Either an earlier attempt was stored, or another writer was here, or history has expired.
                let before = self.shipment.tails.clone();
                self.look_up(false, backoff).await;
                if self.shipment.tails == before {
                    backoff.wait().await;
                }
            }
            StoreError::DuplicateInBatch => {
                self.look_up(false, backoff).await;
                self.drop_covered();
                self.set_duplicates_apart().await;
                backoff.wait().await;
            }
            StoreError::TooLarge => {
                self.refuse(&Refusal::new(
                    "too_large",
                    "the event does not fit into a message",
                ));
            }
            StoreError::Refused {
                code,
                ref description,
            } if error.is_permanent() => {
                self.refuse(&Refusal::new("not_storable", format!("{description} ({code})")));
            }
            StoreError::Refused { .. } | StoreError::Timeout | StoreError::NoStream | StoreError::Away => {
                tracing::warn!(%error, stream = self.shipment.stream, "events are not stored yet");
                backoff.wait().await;
            }
        }
    }

    /// Lets the copies that the stream remembers go first and by themselves, so that the acknowledgement of each
    /// tells where it is. Copies for one room keep their order: all of them go by themselves.
    async fn set_duplicates_apart(&mut self) {
        if !self.list {
            self.alone = self.shipment.copies.len();
            return;
        }
        let mut known = Vec::with_capacity(self.shipment.copies.len());
        for copies in self.shipment.copies.chunks(QUESTIONS) {
            known.extend(join_all(copies.iter().map(|copy| self.store.remembers(copy))).await);
        }
        let copies = std::mem::take(&mut self.shipment.copies);
        let (known, new): (Vec<_>, Vec<_>) = copies.into_iter().zip(known).partition(|(_, known)| *known);
        self.alone = known.len();
        self.shipment.copies = known.into_iter().chain(new).map(|(copy, _)| copy).collect();
    }

    /// Gives up what the server will never take, once it is clear which event that is.
    fn refuse(&mut self, refusal: &Refusal) {
        if !self.list && self.alone == 0 && self.shipment.copies.len() > 1 {
            self.alone = self.shipment.copies.len();
            return;
        }
        let count = if self.list {
            self.shipment.copies.len()
        } else {
            self.next().len()
        };
        self.alone = self.alone.saturating_sub(count);
        for copy in self.shipment.copies.drain(..count) {
            self.fates[copy.entry] = Fate::Refused(refusal.clone());
        }
    }

    /// Notes that what was attempted may be stored, or was, without a delivery.
    fn doubt(&mut self, stored: Option<Stored>) {
        let count = self.next().len();
        for copy in &self.shipment.copies[..count] {
            let tail = self
                .shipment
                .tails
                .get(&copy.room)
                .map_or(0, |tail| tail.sequence);
            let before = stored.map_or(tail, |stored| {
                tail.min(stored.sequence.saturating_sub(count as u64))
            });
            self.doubts.add(&copy.room, before);
        }
    }

    /// Stores the doubts about rooms whose events are stored by now, before anything else is.
    async fn tell_doubts(&mut self) {
        let waiting = &self.shipment.copies;
        let settled = self
            .doubts
            .take(|room| !waiting.iter().any(|copy| *copy.room == *room));
        if let Some(doubt) = settled {
            doubt.store(&self.store.bus, &self.shipment.namespace).await;
        }
    }
}
