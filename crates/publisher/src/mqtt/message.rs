//! From an MQTT message to an event.

use bytes::Bytes;
use carillon_bus::{Bus, Stored};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use rumqttc::{Publish, QoS};
use serde_json::value::RawValue;

use crate::backoff::Backoff;
use crate::check::{Accepted, Arrival, Checker, Kind, Refusal};
use crate::config::Mqtt;
use crate::dead::Letter;
use crate::intake::{Incoming, Intake};
use crate::mqtt::{Fingerprint, template};
use crate::{metrics, signal};

/// The topic of a message that became a dead letter.
const TOPIC: &str = "Carillon-Topic";
/// What is kept of a topic in a header.
const MOST_TOPIC: usize = 1024;

/// Writes messages into INGEST, or passes them on as signals.
pub(super) struct Writer<'a> {
    pub(super) bus: &'a Bus,
    pub(super) checker: &'a Checker,
    pub(super) intake: &'a Intake,
    pub(super) settings: &'a Mqtt,
    /// What names the source in the cluster.
    pub(super) source: &'a str,
    /// The highest sequence that was stored.
    pub(super) last: Option<u64>,
}

impl Writer<'_> {
    /// Returns once the message is in a stream, as an event or as a dead letter, however long that takes.
    pub(super) async fn write(&mut self, publish: &Publish, fingerprint: &Fingerprint) {
        let Mqtt {
            namespace,
            topic: filter,
            ..
        } = self.settings;
        let levels = template::levels(filter, &publish.topic);
        let room = Room::new(&self.settings.room.fill(&publish.topic, &levels));
        let event = self.settings.event.fill(&publish.topic, &levels);
        let subjects = self.bus.subjects();
        let subject = match &room {
            Ok(room) => subjects.publish(namespace, room),
            Err(_) => format!("{}.pub.{}", subjects.prefix(), namespace.token()),
        };
        // One that is too large is not looked at: it may be very large.
        let sized = self.checker.size(publish.payload.len());
        let body = match sized.and_then(|()| body(&event, &publish.payload)) {
            Ok(body) => body,
            Err(refusal) => return self.bury(&subject, publish, &refusal).await,
        };
        let body = Bytes::from(body);
        let headers = Headers::new();
        let time = carillon_bus::history::now();
        let arrival = Arrival {
            kind: Kind::Publish,
            subject: &subject,
            headers: &headers,
            body: &body,
            time,
        };
        match self.checker.check(arrival) {
            Err(refusal) => self.bury(&subject, publish, &refusal).await,
            Ok(accepted) if self.settings.ephemeral => self.signal(&accepted).await,
            Ok(_) => {
                self.store(publish, fingerprint, &subject, body).await;
                metrics::accepted("mqtt", 1);
            }
        }
    }

    /// Stores a message once, however often and to whichever publisher the broker sends it.
    async fn store(&mut self, publish: &Publish, fingerprint: &Fingerprint, subject: &str, body: Bytes) {
        let once = match publish.qos {
            QoS::AtMostOnce => random(),
            _ => format!(
                "mqtt:{}:{}:{}",
                self.source,
                publish.pkid,
                hex(&fingerprint[..16])
            ),
        };
        let mut stored = self.take_in(subject, once, &body).await;
        // Sent for the first time, and there before the last one was: another message that looks the same.
        let is_older = self.last.is_none_or(|last| stored.sequence <= last);
        if stored.duplicate && !publish.dup && is_older {
            stored = self.take_in(subject, random(), &body).await;
        }
        self.last = self.last.max(Some(stored.sequence));
    }

    /// Puts a message into INGEST; its name makes a repeated attempt the same publish.
    async fn take_in(&self, subject: &str, once: String, body: &Bytes) -> Stored {
        let incoming = Incoming {
            subject: subject.into(),
            headers: Headers::new().with(name::MSG_ID, once),
            body: body.clone(),
        };
        let mut backoff = Backoff::new();
        loop {
            match self.intake.store(&incoming, self.intake.deadline()).await {
                Ok(stored) => return stored,
                Err(error) => tracing::warn!(%error, subject, "MQTT message is not stored yet"),
            }
            backoff.wait().await;
        }
    }

    async fn signal(&self, accepted: &Accepted) {
        let span = tracing::debug_span!("signal", namespace = %accepted.namespace);
        let event = &accepted.draft.event;
        let headers = Headers::new();
        let sent = signal::send(
            self.bus,
            &accepted.namespace,
            &accepted.rooms,
            event,
            &headers,
            &span,
        )
        .await;
        if let Err(error) = sent {
            tracing::warn!(%error, "signal is not passed on");
        }
    }

    async fn bury(&self, subject: &str, publish: &Publish, refusal: &Refusal) {
        let topic: String = publish
            .topic
            .chars()
            .filter(|char| !char.is_control())
            .take(MOST_TOPIC)
            .collect();
        let headers = Headers::new().with(TOPIC, topic);
        let arrival = Arrival {
            kind: Kind::Publish,
            subject,
            headers: &headers,
            body: &publish.payload,
            time: carillon_bus::history::now(),
        };
        Letter::new(self.bus.subjects(), arrival, refusal, None)
            .keep(self.bus)
            .await;
    }
}

fn random() -> String {
    format!("mqtt:{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the event's body: a JSON payload is the data as it came, other text a string.
fn body(event: &str, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let text =
        std::str::from_utf8(payload).map_err(|_| Refusal::new("not_utf8", "the payload is not UTF-8"))?;
    let mut body = b"{\"event\":".to_vec();
    body.extend(serde_json::to_vec(event).expect("a string is JSON"));
    body.extend_from_slice(b",\"data\":");
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => body.extend_from_slice(json.get().as_bytes()),
        Err(_) => body.extend(serde_json::to_vec(text).expect("a string is JSON")),
    }
    body.push(b'}');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_become_data() {
        for (payload, expected) in [
            (r#" {"t": 21.50} "#, r#"{"event":"t","data":{"t": 21.50}}"#),
            ("21.5", r#"{"event":"t","data":21.5}"#),
            ("warm", r#"{"event":"t","data":"warm"}"#),
            ("", r#"{"event":"t","data":""}"#),
            ("{\"a", r#"{"event":"t","data":"{\"a"}"#),
        ] {
            assert_eq!(body("t", payload.as_bytes()).unwrap(), expected.as_bytes());
        }
        assert_eq!(body("t", &[0xff]).unwrap_err().code, "not_utf8");
    }
}
