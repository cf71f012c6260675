//! Signals: checked, passed on to who is there now, never stored.

use carillon_bus::{Bus, Ending, PublishError};
use carillon_protocol::event::Event;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tracing::Span;

use crate::check::{Arrival, Checker, Kind};
use crate::dead::Letter;
use crate::intake::{Incoming, Intake, without_orders};
use crate::{metrics, schedule, trace};

/// Present on an event in INGEST that becomes a signal when its time comes.
pub(crate) const EPHEMERAL: &str = "Carillon-Ephemeral";
/// The queue group that shares signals among publishers.
pub(crate) const GROUP: &str = "publisher";
/// Refused signals, and signals for later, that may wait to be stored.
const ASIDE: usize = 1024;

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
    let set = fastrand::u64(..);
    for (index, room) in rooms.iter().enumerate() {
        let mut headers = headers.clone();
        if rooms.len() > 1 {
            // A connection that is in several of the rooms takes the first copy only.
            headers.push(name::SET, format!("{set:016x};{index};{}", rooms.len()));
        }
        let subject = bus.subjects().delivery(namespace, room);
        bus.publish(&subject, &headers, event.payload.json().clone())
            .await?;
    }
    metrics::signal();
    Ok(())
}

/// Passes on what comes on the subscription, in its order.
pub(crate) async fn run(bus: Bus, checker: Checker, intake: Intake, mut subscription: Ending) {
    let (aside, queue) = mpsc::channel(ASIDE);
    let keeper = keep(bus.clone(), intake, queue);
    let reader = async move {
        while let Some(message) = subscription.next().await {
            let arrival = Arrival {
                kind: Kind::Signal,
                subject: &message.subject,
                headers: &message.headers,
                body: &message.body,
                time: carillon_bus::history::now(),
            };
            if let Some(what) = take_in(&bus, &checker, arrival).await
                && aside.try_send(what).is_err()
            {
                // Signals must not wait for a store, and may be lost.
                tracing::warn!("too many signals wait to be stored, one is lost");
            }
        }
    };
    tokio::join!(reader, keeper);
}

/// Passes a signal on, or returns what has to be stored instead.
async fn take_in(bus: &Bus, checker: &Checker, arrival: Arrival<'_>) -> Option<Aside> {
    let accepted = match checker.check(arrival) {
        Ok(accepted) => accepted,
        Err(refusal) => return Some(Aside::Dead(Letter::new(bus.subjects(), arrival, &refusal, None))),
    };
    let namespace = &accepted.namespace;
    if !schedule::is_due(accepted.at, arrival.headers, OffsetDateTime::now_utc()) {
        let subject = match &accepted.rooms[..] {
            [room] => bus.subjects().publish(namespace, room),
            _ => bus.subjects().publish_list(namespace),
        };
        let headers = without_orders(arrival.headers).with(EPHEMERAL, "1");
        return Some(Aside::Later(Incoming {
            subject: subject.into(),
            headers,
            body: arrival.body.clone(),
        }));
    }
    let span = tracing::info_span!("signal", %namespace);
    trace::join(&span, arrival.headers);
    let event = &accepted.draft.event;
    if let Err(error) = send(bus, namespace, &accepted.rooms, event, arrival.headers, &span).await {
        tracing::warn!(%error, "signal is not passed on");
    }
    None
}

async fn keep(bus: Bus, intake: Intake, mut queue: mpsc::Receiver<Aside>) {
    while let Some(aside) = queue.recv().await {
        match aside {
            Aside::Dead(letter) => letter.keep(&bus).await,
            Aside::Later(incoming) => {
                if let Err(error) = intake.store(&incoming, intake.deadline()).await {
                    tracing::warn!(%error, "signal for later is lost");
                }
            }
        }
    }
}
