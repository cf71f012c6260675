//! What the owner of a partition does: read, check, store, acknowledge.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use carillon_bus::durable::{Delivered, DurableError};
use carillon_bus::ingest::Ingest;
use carillon_protocol::event::Event;
use carillon_protocol::headers::name;
use carillon_protocol::names::Namespace;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::backoff::Backoff;
use crate::check::Accepted;
use crate::pipeline::Partition;
use crate::pipeline::aside::{self, Aside};
use crate::pipeline::queue::{Bounds, Entry, Job, Load, Queue};
use crate::pipeline::store::{Content, Copy, Fate, Outcome, Shipment, Store};
use crate::pipeline::tails::{Origin, Tail, Tails};
use crate::{metrics, receipt, schedule, signal, trace};

/// What a partition holds in memory, and how much goes into one atomic batch.
const BOUNDS: Bounds = Bounds {
    copies: 8192,
    bytes: 64 << 20,
    job_entries: 100,
    job_bytes: 1 << 20,
};
/// Stores at once, each for other rooms.
const JOBS: usize = 256;
/// Refused and scheduled events at once, and their size together.
const ASIDES: usize = 64;
const ASIDE_BYTES: usize = 64 << 20;
/// Half of the rooms whose ends are remembered.
const ROOMS: usize = 50_000;
/// Ten years; a number that JetStream cannot read as a duration would be refused for ever.
const LONGEST_TTL: u64 = 10 * 365 * 24 * 3600;
/// Messages between two looks at how many wait.
const PENDING_EVERY: u64 = 64;

/// A message of INGEST that is an event.
struct Item {
    delivered: Delivered,
    namespace: Namespace,
    content: Arc<Content>,
    span: Span,
}

/// Work that has ended.
enum Done {
    Stored {
        load: Load,
        tails: HashMap<Arc<str>, Tail>,
        sequences: Vec<u64>,
    },
    Aside {
        sequence: u64,
        bytes: usize,
    },
}

type Work<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

/// The owner of a partition for one term.
pub(super) struct Owner<'a> {
    partition: &'a Partition,
    store: Store,
    term: u64,
}

/// What is on its way while the partition is read.
struct Reading<'a> {
    owner: &'a Owner<'a>,
    queue: Queue<Item>,
    tails: Tails,
    work: FuturesUnordered<Work<'a>>,
    asides: usize,
    aside_bytes: usize,
    /// Sequences of INGEST that are waiting or being stored.
    known: HashSet<u64>,
}

impl<'a> Owner<'a> {
    pub(super) fn new(partition: &'a Partition, store: Store, term: u64) -> Self {
        Self {
            partition,
            store,
            term,
        }
    }

    /// Stores the partition's events until another publisher owns it, or until shutdown.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let Partition {
            bus, streams, index, ..
        } = self.partition;
        let mut backoff = Backoff::new();
        while !shutdown.is_cancelled() {
            let ended = match Ingest::open(bus, &streams.ingest, *index, self.term).await {
                Ok(mut ingest) => {
                    backoff.reset();
                    Reading::new(self).run(&mut ingest, shutdown).await
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return,
                Err(DurableError::Lost) => {
                    tracing::info!(partition = index, "another publisher reads the partition");
                    return;
                }
                Err(error) => tracing::warn!(%error, partition = index, "partition has to be read anew"),
            }
            if shutdown.run_until_cancelled(backoff.wait()).await.is_none() {
                return;
            }
        }
    }
}

impl<'a> Reading<'a> {
    fn new(owner: &'a Owner<'a>) -> Self {
        Self {
            owner,
            queue: Queue::new(BOUNDS),
            tails: Tails::new(ROOMS),
            work: FuturesUnordered::new(),
            asides: 0,
            aside_bytes: 0,
            known: HashSet::new(),
        }
    }

    /// Reads until the consumer fails; at shutdown, until what is being stored is stored.
    async fn run(mut self, ingest: &mut Ingest, shutdown: &CancellationToken) -> Result<(), DurableError> {
        let mut read: u64 = 0;
        loop {
            let stopping = shutdown.is_cancelled();
            if stopping && self.work.is_empty() {
                return Ok(());
            }
            while !stopping && self.work.len() < JOBS + self.asides {
                let Some(job) = self.queue.take() else { break };
                let work = self.ship(job);
                self.work.push(work);
            }
            let may_read =
                !stopping && !self.queue.is_full() && self.asides < ASIDES && self.aside_bytes < ASIDE_BYTES;
            tokio::select! {
                Some(done) = self.work.next(), if !self.work.is_empty() => self.finish(done),
                delivered = ingest.next(), if may_read => {
                    let delivered = delivered?;
                    if read.is_multiple_of(PENDING_EVERY) || delivered.pending == 0 {
                        metrics::pending(self.owner.partition.index, delivered.pending);
                    }
                    read += 1;
                    self.take_in(delivered);
                }
                () = shutdown.cancelled(), if !stopping => {}
            }
        }
    }

    fn take_in(&mut self, delivered: Delivered) {
        if !self.known.insert(delivered.sequence) {
            // Delivered again while it is being stored; its acknowledgement counts for both.
            return;
        }
        let bus = &self.owner.partition.bus;
        let subject = aside::published_subject(bus, &delivered.subject);
        let now = OffsetDateTime::now_utc();
        let mut checked = self
            .owner
            .partition
            .checker
            .check(aside::arrival(&delivered, &subject));
        if let Ok(accepted) = &mut checked {
            schedule::count_down(accepted, &delivered.headers, delivered.time, now);
        }
        match checked {
            Err(refusal) => self.put_aside(delivered, Aside::Refused(refusal)),
            Ok(Accepted { at: Some(at), .. }) if !schedule::is_due(Some(at), &delivered.headers, now) => {
                self.put_aside(delivered, Aside::Later(at));
            }
            Ok(accepted) if accepted.draft.ttl == Some(0) => self.put_aside(delivered, Aside::Expired),
            Ok(accepted) if delivered.headers.get(signal::EPHEMERAL).is_some() => {
                self.put_aside(delivered, Aside::Signal(accepted));
            }
            Ok(accepted) => self.enqueue(delivered, accepted),
        }
    }

    fn enqueue(&mut self, delivered: Delivered, accepted: Accepted) {
        let Accepted {
            namespace,
            rooms,
            draft,
            at,
        } = accepted;
        let event = draft.event;
        let span = tracing::info_span!("store", namespace = %namespace, ingest = delivered.sequence);
        trace::join(&span, &delivered.headers);
        let subjects = self.owner.partition.bus.subjects();
        let rooms: Vec<Arc<str>> = rooms
            .iter()
            .map(|room| subjects.event(&namespace, room).into())
            .collect();
        let bytes = delivered.body.len();
        let content = Arc::new(content(&event, at.is_some(), draft.ttl, &delivered, &span));
        let once: Option<Arc<str>> = content.once.as_deref().map(Arc::from);
        let value = Item {
            delivered,
            namespace,
            content,
            span,
        };
        self.queue.push(Entry {
            value,
            rooms,
            bytes,
            once,
        });
    }

    fn put_aside(&mut self, delivered: Delivered, aside: Aside) {
        let (sequence, bytes) = (delivered.sequence, delivered.body.len());
        self.asides += 1;
        self.aside_bytes += bytes;
        let partition = self.owner.partition;
        self.work.push(Box::pin(async move {
            aside.settle(partition, &delivered).await;
            Done::Aside { sequence, bytes }
        }));
    }

    /// Begins to store a job.
    fn ship(&self, job: Job<Item>) -> Work<'a> {
        let (entries, load) = job.split();
        let streams = &self.owner.partition.streams;
        let namespace = entries[0].value.namespace.clone();
        let stream = streams
            .of(&namespace)
            .map(|stream| stream.name.clone())
            .unwrap_or_default();
        let mut copies = Vec::new();
        let mut tails = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            for room in &entry.rooms {
                if let Some(tail) = self.tails.get(room) {
                    tails.insert(Arc::clone(room), tail);
                }
                let content = Arc::clone(&entry.value.content);
                copies.push(Copy {
                    room: Arc::clone(room),
                    content,
                    entry: index,
                });
            }
        }
        let shipment = Shipment {
            namespace,
            stream,
            copies,
            entries: entries.len(),
            tails,
        };
        let (store, partition) = (&self.owner.store, self.owner.partition);
        let items: Vec<Item> = entries.into_iter().map(|entry| entry.value).collect();
        let span = items[0].span.clone();
        let work = async move {
            let Outcome { tails, fates } = store.deliver(shipment).await;
            let mut sequences = Vec::with_capacity(items.len());
            for (item, fate) in items.into_iter().zip(fates) {
                let delivered = &item.delivered;
                if let Fate::Refused(refusal) = &fate {
                    aside::bury(partition, delivered, refusal).await;
                }
                metrics::store_time(delivered.time);
                receipt::send(&partition.bus, &delivered.headers, &fate).await;
                let _ = delivered.ack().await;
                sequences.push(delivered.sequence);
            }
            Done::Stored {
                load,
                tails,
                sequences,
            }
        };
        Box::pin(work.instrument(span))
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Stored {
                load,
                tails,
                sequences,
            } => {
                for (room, tail) in tails {
                    self.tails.set(room, tail);
                }
                self.queue.finish(load);
                for sequence in sequences {
                    self.known.remove(&sequence);
                }
            }
            Done::Aside { sequence, bytes } => {
                self.asides -= 1;
                self.aside_bytes -= bytes;
                self.known.remove(&sequence);
            }
        }
    }
}

fn content(event: &Event, has_time: bool, ttl: Option<u64>, delivered: &Delivered, span: &Span) -> Content {
    let origin = Origin::of(delivered);
    let mut headers = event.headers().with(name::INGEST, delivered.sequence.to_string());
    trace::pass_on(span, &delivered.headers, &mut headers);
    // INGEST forgets the names of messages that are gone when its server restarts; EVENTS keeps its messages.
    let mut once = match &event.id {
        Some(id) => Some(format!("id {id}")),
        None => schedule::publish_id(&delivered.headers).map(|id| format!("publish {id}")),
    };
    let ttl = ttl.map(|ttl| ttl.min(LONGEST_TTL));
    if let Some(ttl) = ttl {
        headers.push(name::TTL, format!("{ttl}s"));
    }
    // One with a ttl may be gone before a new owner looks whether it was stored; one with a time comes again beside
    // itself where its first owner died before it could acknowledge it.
    if ttl.is_some() || has_time {
        once = once.or_else(|| Some(schedule::origin_id(&delivered.headers, origin)));
    }
    Content {
        headers,
        body: event.payload.json().clone(),
        origin,
        once,
        ttl,
    }
}
