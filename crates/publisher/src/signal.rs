//! Signals: checked, passed on to who is there now, never stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bus, Ending, PublishError};
use carillon_protocol::event::Event;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use futures_util::StreamExt;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Span;

use crate::check::{Arrival, Checker, Kind};
use crate::dead::Letter;
use crate::intake::{Incoming, Intake, without_orders};
use crate::{metrics, schedule, trace};

/// Present on an event in INGEST that becomes a signal when its time comes.
pub(crate) const EPHEMERAL: &str = "Carillon-Ephemeral";
/// The queue group that shares signals among publishers.
pub(crate) const GROUP: &str = "publisher";
/// Bytes of refused signals, and of signals for later, that may wait to be stored.
const ASIDE_BYTES: u32 = 64 << 20;
/// What a signal that waits costs beside its text.
const ASIDE_COST: usize = 1024;
/// Stores that await their acknowledgement at once.
const AT_ONCE: usize = 256;
/// How long the signals behind it wait until one that has to be stored finds a place.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a signal needs a stream for.
enum Aside {
    Dead(Letter),
    Later(Incoming),
}

/// Passes an event on to its rooms.
pub(crate) async fn send(
    bus: &Bus,
    namespace: &Namespace,
    rooms: &[Room],
    event: &Event,
    incoming: &Headers,
    span: &Span,
) -> Result<(), PublishError> {
    let mut headers = event.headers();
    trace::pass_on(span, incoming, &mut headers);
    if let [room] = rooms {
        let subject = bus.subjects().delivery(namespace, room);
        bus.publish(&subject, &headers, event.payload.json().clone())
            .await?;
    } else {
        // A connection that is in several of the rooms takes the first copy only.
        let set = fastrand::u64(..);
        for (index, room) in rooms.iter().enumerate() {
            let copy = format!("{set:016x};{index};{}", rooms.len());
            let headers = headers.clone().with(name::SET, copy);
            let subject = bus.subjects().delivery(namespace, room);
            bus.publish(&subject, &headers, event.payload.json().clone())
                .await?;
        }
    }
    metrics::signal();
    Ok(())
}

/// Passes on what comes on the subscription, in its order.
pub(crate) async fn run(bus: Bus, checker: Checker, intake: Intake, mut subscription: Ending) {
    let (waiting, queue) = mpsc::unbounded_channel();
    let keeper = keep(bus.clone(), intake, queue);
    let reader = async move {
        let mut shelf = Shelf {
            places: Arc::new(Semaphore::new(ASIDE_BYTES as usize)),
            waiting,
            patient: true,
        };
        while let Some(message) = subscription.next().await {
            let arrival = Arrival {
                kind: Kind::Signal,
                subject: &message.subject,
                headers: &message.headers,
                body: &message.body,
                time: carillon_bus::history::now(),
            };
            if let Some(aside) = take_in(&bus, &checker, arrival).await {
                let bytes = message.subject.len() + message.body.len() + ASIDE_COST;
                shelf.put(aside, bytes).await;
            }
        }
    };
    tokio::join!(reader, keeper);
}

/// Passes a signal on, or returns what has to be stored instead.
async fn take_in(bus: &Bus, checker: &Checker, arrival: Arrival<'_>) -> Option<Aside> {
    // Names what is stored, so that it is stored once however often it is sent.
    let once = || format!("signal:{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let accepted = match checker.check(arrival) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            let letter = Letter::new(bus.subjects(), arrival, &refusal, Some(&once()));
            return Some(Aside::Dead(letter));
        }
    };
    let namespace = &accepted.namespace;
    if !schedule::is_due(accepted.at, arrival.headers, OffsetDateTime::now_utc()) {
        let subject = match &accepted.rooms[..] {
            [room] => bus.subjects().publish(namespace, room),
            _ => bus.subjects().publish_list(namespace),
        };
        let headers = without_orders(arrival.headers)
            .with(EPHEMERAL, "1")
            .with(name::MSG_ID, once());
        return Some(Aside::Later(Incoming {
            subject: subject.into(),
            headers,
            body: arrival.body.clone(),
        }));
    }
    let span = tracing::debug_span!("signal", %namespace);
    trace::join(&span, arrival.headers);
    let event = &accepted.draft.event;
    if let Err(error) = send(bus, namespace, &accepted.rooms, event, arrival.headers, &span).await {
        tracing::warn!(%error, "signal is not passed on");
    }
    None
}

/// Where signals wait to be stored, bounded in bytes.
struct Shelf {
    places: Arc<Semaphore>,
    /// Each with its places.
    waiting: mpsc::UnboundedSender<(Aside, OwnedSemaphorePermit)>,
    /// Whether the last one found a place.
    patient: bool,
}

impl Shelf {
    /// Puts a signal where it waits to be stored.
    ///
    /// A burst waits for its places, and the signals behind it do too. While JetStream takes nothing for longer than
    /// that, good signals pass on without another wait, and what finds no place is lost.
    async fn put(&mut self, aside: Aside, bytes: usize) {
        let places = u32::try_from(bytes).unwrap_or(ASIDE_BYTES).min(ASIDE_BYTES);
        let free = Arc::clone(&self.places).acquire_many_owned(places);
        let limit = if self.patient { PATIENCE } else { Duration::ZERO };
        let free = tokio::time::timeout(limit, free).await;
        self.patient = free.is_ok();
        match free {
            Ok(Ok(places)) => {
                let _ = self.waiting.send((aside, places));
            }
            _ => {
                metrics::signal_lost();
                tracing::warn!("too many signals wait to be stored, one is lost");
            }
        }
    }
}

impl Aside {
    fn message(&self) -> (&str, &Headers, &Bytes) {
        match self {
            Self::Dead(letter) => (&letter.subject, &letter.headers, &letter.body),
            Self::Later(incoming) => (&incoming.subject, &incoming.headers, &incoming.body),
        }
    }

    /// Stores what was not acknowledged at once.
    async fn store_again(self, bus: &Bus, intake: &Intake) {
        match self {
            Self::Dead(letter) => letter.keep(bus).await,
            Self::Later(incoming) => {
                if let Err(error) = intake.store(&incoming, intake.deadline()).await {
                    tracing::warn!(%error, "signal for later is lost");
                }
            }
        }
    }
}

/// Stores what waits, until no more comes.
async fn keep(bus: Bus, intake: Intake, waiting: mpsc::UnboundedReceiver<(Aside, OwnedSemaphorePermit)>) {
    let streams = Arc::new((bus, intake));
    let waiting = futures_util::stream::unfold(waiting, async |mut waiting| {
        Some((waiting.recv().await?, waiting))
    });
    // Sent one after the other; only the acknowledgements are awaited side by side.
    let sent = waiting.then(|(aside, places)| {
        let streams = Arc::clone(&streams);
        async move {
            let (subject, headers, body) = aside.message();
            let sent = streams.0.store_later(subject, headers, body.clone()).await;
            (streams, aside, places, sent)
        }
    });
    let stored = sent.map(|(streams, aside, places, sent)| async move {
        let stored = match sent {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        if stored.is_err() {
            let (bus, intake) = &*streams;
            aside.store_again(bus, intake).await;
        }
        drop(places);
    });
    stored
        .buffer_unordered(AT_ONCE)
        .for_each(|()| std::future::ready(()))
        .await;
}
