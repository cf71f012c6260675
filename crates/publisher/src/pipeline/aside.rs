//! What becomes of messages of INGEST that are not stored as events.

use carillon_bus::Bus;
use carillon_bus::durable::Delivered;
use time::OffsetDateTime;

use crate::check::{Accepted, Arrival, Kind, Refusal};
use crate::dead::Letter;
use crate::pipeline::Partition;
use crate::pipeline::store::Fate;
use crate::pipeline::tails::Origin;
use crate::receipt::Receipt;
use crate::schedule::Appointment;
use crate::{metrics, receipt, signal, trace};

/// A message that is not stored now.
pub(super) enum Aside {
    /// It is no event.
    Refused(Refusal),
    /// Its time has not come.
    Later(OffsetDateTime),
    /// Its ttl was over before it could be stored.
    Expired,
    /// It is a signal whose time has come.
    Signal(Accepted),
}

impl Aside {
    /// Puts the message where it belongs, however long that takes, and acknowledges it.
    pub(super) async fn settle(self, partition: &Partition, delivered: &Delivered) {
        let bus = &partition.bus;
        match self {
            Self::Refused(refusal) => {
                tracing::debug!(%refusal, ingest = delivered.sequence, "event refused");
                bury(partition, delivered, &refusal).await;
                receipt::send(bus, &delivered.headers, &Fate::Refused(refusal)).await;
            }
            Self::Later(at) => {
                let appointment = Appointment {
                    origin: Origin::of(delivered),
                    at,
                    target: published_subject(bus, &delivered.subject),
                    headers: delivered.headers.clone(),
                    body: delivered.body.clone(),
                };
                if let Err(refusal) = appointment.keep(bus).await {
                    bury(partition, delivered, &refusal).await;
                }
            }
            Self::Expired => {
                tracing::debug!(ingest = delivered.sequence, "event expired");
                metrics::expired();
                receipt::answer(bus, &delivered.headers, &Receipt::Expired).await;
            }
            Self::Signal(accepted) => pass_on(bus, delivered, accepted).await,
        }
        let _ = delivered.ack().await;
    }
}

async fn pass_on(bus: &Bus, delivered: &Delivered, accepted: Accepted) {
    let Accepted {
        namespace,
        rooms,
        draft,
        ..
    } = accepted;
    let span = tracing::debug_span!("signal", %namespace);
    trace::join(&span, &delivered.headers);
    let sent = signal::send(bus, &namespace, &rooms, &draft.event, &delivered.headers, &span).await;
    if let Err(error) = sent {
        tracing::warn!(%error, "signal is not passed on");
    }
}

/// Keeps a message as a dead letter, once.
pub(super) async fn bury(partition: &Partition, delivered: &Delivered, refusal: &Refusal) {
    let bus = &partition.bus;
    let subject = published_subject(bus, &delivered.subject);
    let once = format!("dead:{}:{}", delivered.sequence, delivered.time);
    let letter = Letter::new(bus.subjects(), arrival(delivered, &subject), refusal, Some(&once));
    letter.keep(bus).await;
}

/// A message as it was published.
pub(super) fn arrival<'a>(delivered: &'a Delivered, subject: &'a str) -> Arrival<'a> {
    Arrival {
        kind: Kind::Publish,
        subject,
        headers: &delivered.headers,
        body: &delivered.body,
        time: delivered.time,
    }
}

/// INGEST keeps `rt.pub.<ns>.<room>` as `rt.ingest.<partition>.<ns>.<room>`.
pub(super) fn published_subject(bus: &Bus, subject: &str) -> String {
    let subjects = bus.subjects();
    match subjects.tokens("ingest", subject).as_deref() {
        Some([_, rest @ ..]) => format!("{}.pub.{}", subjects.prefix(), rest.join(".")),
        Some([]) | None => subject.to_owned(),
    }
}
