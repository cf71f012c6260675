//! Events for later: kept in INGEST until their time, then on the normal way.

use bytes::Bytes;
use carillon_bus::{Bus, StoreError};
use carillon_protocol::headers::{Headers, name};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::backoff::Backoff;
use crate::check::{Accepted, Refusal};
use crate::pipeline::tails::Origin;

/// Present where the time of delivery has come, whatever this machine's clock says.
pub(crate) const FIRED: &str = "Carillon-Fired";

/// The `Nats-Msg-Id` with which an event for later was published; the server removes that header when its time comes.
const PUBLISH_ID: &str = "Carillon-Msg-Id";
/// Which message of INGEST it was that has to wait.
const ORIGIN: &str = "Carillon-Origin";
const SCHEDULE: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";
/// Refusals after which the event is given up; others than a malformed schedule pass.
const ATTEMPTS: u32 = 20;

/// Returns whether an event has to wait.
pub(crate) fn is_due(at: Option<OffsetDateTime>, headers: &Headers, now: OffsetDateTime) -> bool {
    at.is_none_or(|at| at <= now) || headers.get(FIRED).is_some()
}

/// Returns the name that the outside gave a publish.
pub(crate) fn publish_id(headers: &Headers) -> Option<&str> {
    headers.get(PUBLISH_ID).or_else(|| headers.get(name::MSG_ID))
}

/// Names an event by the message of INGEST that it came with: the same name when its time has come, and when that
/// message comes again.
pub(crate) fn origin_id(headers: &Headers, own: Origin) -> String {
    match headers.get(ORIGIN) {
        Some(origin) => format!("ingest {origin}"),
        None => format!("ingest {} {}", own.sequence, own.time),
    }
}

/// Takes from an event's ttl what has passed since its time of delivery, or else since the publish; nothing is left of
/// one that has expired.
pub(crate) fn count_down(accepted: &mut Accepted, headers: &Headers, published: u64, now: OffsetDateTime) {
    let millis = |time: OffsetDateTime| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    // A time that had passed when the event was published means at once.
    let due = accepted.at.map(|at| millis(whole_second(at)));
    let due = due.filter(|due| headers.get(FIRED).is_some() || *due > published);
    let passed = millis(now).saturating_sub(due.unwrap_or(published));
    if let Some(ttl) = &mut accepted.draft.ttl {
        *ttl = ttl.saturating_mul(1000).saturating_sub(passed).div_ceil(1000);
    }
}

/// An event that waits for its time.
#[derive(Debug, Clone)]
pub(crate) struct Appointment {
    /// Names the appointment; a second one of the same name replaces the first.
    pub(crate) origin: Origin,
    pub(crate) at: OffsetDateTime,
    /// The subject on which it comes back.
    pub(crate) target: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Appointment {
    /// Keeps the event until its time, however long it takes to store that.
    pub(crate) async fn keep(&self, bus: &Bus) -> Result<(), Refusal> {
        let (subject, headers) = (bus.subjects().scheduled(&self.name()), self.headers());
        let mut backoff = Backoff::new();
        let mut refused = 0;
        loop {
            match bus.store(&subject, &headers, self.body.clone()).await {
                Ok(_) => return Ok(()),
                Err(StoreError::TooLarge) => {
                    return Err(Refusal::new("too_large", "the event does not fit into a message"));
                }
                Err(error) => {
                    tracing::warn!(%error, "event for later is not stored yet");
                    refused += u32::from(matches!(error, StoreError::Refused { code, .. } if code != 0));
                    if refused >= ATTEMPTS {
                        return Err(Refusal::new("not_storable", error.to_string()));
                    }
                }
            }
            backoff.wait().await;
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.origin.sequence, self.origin.time)
    }

    fn headers(&self) -> Headers {
        let mut headers = Headers::new()
            .with(SCHEDULE, format!("@at {}", seconds(self.at)))
            .with(TARGET, self.target.clone())
            .with(name::MSG_ID, format!("at:{}", self.name()))
            .with(ORIGIN, format!("{} {}", self.origin.sequence, self.origin.time))
            .with(FIRED, "1");
        if let Some(id) = self.headers.get(name::MSG_ID) {
            headers.push(PUBLISH_ID, id);
        }
        for (name, value) in self.headers.iter() {
            if !name.to_ascii_lowercase().starts_with("nats-") && headers.get(name).is_none() {
                headers.push(name, value);
            }
        }
        headers
    }
}

/// The server knows whole seconds; an event comes late rather than early.
fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    let utc = at.to_offset(time::UtcOffset::UTC);
    let up = if utc.nanosecond() == 0 {
        utc
    } else {
        utc.checked_add(time::Duration::SECOND).unwrap_or(utc)
    };
    up.replace_nanosecond(0).unwrap_or(up)
}

fn seconds(at: OffsetDateTime) -> String {
    whole_second(at)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "9999-12-31T23:59:59Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    #[test]
    fn times_are_rounded_up_to_seconds_of_utc() {
        assert_eq!(
            seconds(at("2030-01-01T02:00:00.25+02:00")),
            "2030-01-01T00:00:01Z"
        );
        assert_eq!(seconds(at("2030-01-01T00:00:59Z")), "2030-01-01T00:00:59Z");
        assert_eq!(seconds(at("9999-12-31T23:59:59.5Z")), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn an_event_waits_once() {
        let (now, later) = (at("2030-01-01T00:00:00Z"), Some(at("2030-01-01T00:00:01Z")));
        assert!(!is_due(later, &Headers::new(), now));
        assert!(is_due(later, &Headers::new().with(FIRED, "1"), now));
        assert!(is_due(Some(now), &Headers::new(), now) && is_due(None, &Headers::new(), now));
    }

    #[test]
    fn headers_of_the_server_are_not_taken_over() {
        let headers = Headers::new()
            .with("Nats-Rollup", "all")
            .with("Carillon-Fired", "2")
            .with("Nats-Msg-Id", "m")
            .with("Carillon-Msg-Id", "forged")
            .with("Carillon-Origin", "forged")
            .with("X", "1");
        let appointment = Appointment {
            origin: Origin {
                sequence: 7,
                time: 70,
            },
            at: at("2030-01-01T00:00:00Z"),
            target: "rt.pub.main.a".into(),
            headers,
            body: Bytes::new(),
        };
        let headers = appointment.headers();
        assert_eq!(headers.get("Nats-Rollup"), None);
        assert_eq!((headers.get("X"), headers.get(FIRED)), (Some("1"), Some("1")));
        assert_eq!(publish_id(&headers), Some("m"));
        let again = origin_id(&Headers::new(), appointment.origin);
        let own = Origin {
            sequence: 9,
            time: 90,
        };
        assert_eq!(
            (origin_id(&headers, own), again),
            ("ingest 7 70".into(), "ingest 7 70".into())
        );
        assert_eq!(headers.get(SCHEDULE), Some("@at 2030-01-01T00:00:00Z"));
    }
}
