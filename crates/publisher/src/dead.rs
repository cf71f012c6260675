//! Dead letters: bodies that were refused, kept unchanged with the reason.

use bytes::Bytes;
use carillon_bus::{Bus, StoreError};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::subject::Subjects;
use carillon_protocol::token;
use sha2::{Digest, Sha256};

use crate::backoff::Backoff;
use crate::check::{Arrival, Refusal};
use crate::metrics;

/// Size of the whole body, where only its beginning is kept.
pub(crate) const SIZE: &str = "Carillon-Size";
/// SHA-256 of the whole body in hex, where only its beginning is kept.
pub(crate) const SHA256: &str = "Carillon-SHA256";
/// What is kept of a body that is too large for a dead letter.
const KEPT: usize = 64 * 1024;
/// Other headers are kept up to this size together; JetStream takes 64 KiB.
const MOST_HEADERS: usize = 32 * 1024;
/// Longest subject of a letter; whatever it says stands in a header too.
const MOST_SUBJECT: usize = 1500;
/// Characters of a reason's text.
const MOST_REASON: usize = 300;

/// A refused body on its way to the stream of dead letters.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) subject: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Letter {
    /// Writes a letter; `once` names it, so that it is kept once however often it is sent.
    pub(crate) fn new(
        subjects: &Subjects,
        arrival: Arrival<'_>,
        refusal: &Refusal,
        once: Option<&str>,
    ) -> Self {
        metrics::refused(refusal.code);
        let mut headers = Headers::new()
            .with(name::REASON, reason(refusal))
            .with(name::SUBJECT, arrival.subject.to_owned());
        if let Some(once) = once {
            headers.push(name::MSG_ID, once);
        }
        let mut size = 0;
        for (name, value) in arrival.headers.iter() {
            // The server's own headers would be orders to it again.
            let known = headers.get(name).is_some() || name.to_ascii_lowercase().starts_with("nats-");
            size += name.len() + value.len() + 4;
            if !known && size <= MOST_HEADERS {
                headers.push(name, value);
            }
        }
        Self {
            subject: subject(subjects, arrival),
            headers,
            body: arrival.body.clone(),
        }
    }

    /// Keeps only the beginning of the body.
    fn cut(self) -> Self {
        let digest = Sha256::digest(&self.body);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = self
            .headers
            .with(SIZE, self.body.len().to_string())
            .with(SHA256, hex);
        Self {
            headers,
            body: self.body.slice(..self.body.len().min(KEPT)),
            ..self
        }
    }

    /// Sends the letter until the stream has it.
    pub(crate) async fn keep(mut self, bus: &Bus) {
        let mut cut = false;
        let mut backoff = Backoff::new();
        loop {
            match bus.store(&self.subject, &self.headers, self.body.clone()).await {
                Ok(_) => return,
                Err(StoreError::TooLarge) if !cut => {
                    cut = true;
                    self = self.cut();
                    continue;
                }
                Err(error) => tracing::warn!(%error, subject = self.subject, "dead letter is not stored yet"),
            }
            backoff.wait().await;
        }
    }
}

/// The namespace and room tokens stand as they came; what cannot be two tokens is encoded into them.
fn subject(subjects: &Subjects, arrival: Arrival<'_>) -> String {
    /// No name has such a token.
    const NONE: &str = "%none";
    let subject = match subjects.tokens(arrival.kind.token(), arrival.subject).as_deref() {
        Some([namespace, room]) => subjects.dead(&whole(namespace), &whole(room)),
        Some([namespace]) => subjects.dead(&whole(namespace), NONE),
        Some([namespace, rest @ ..]) => subjects.dead(&whole(namespace), &token::encode(&rest.join("."))),
        Some([]) | None => subjects.dead(NONE, &token::encode(arrival.subject)),
    };
    // The server bounds the line that a subject stands in.
    if subject.len() > MOST_SUBJECT {
        subjects.dead(NONE, "%long")
    } else {
        subject
    }
}

/// A token stands as it came, unless it is not one line of ASCII.
fn whole(token: &str) -> std::borrow::Cow<'_, str> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        token.into()
    } else {
        token::encode(token)
    }
}

/// A header is one line, and what a parser says may quote the body.
fn reason(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(MOST_REASON)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Kind;

    fn letter(subject: &str, headers: Headers, body: &str) -> Letter {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let arrival = Arrival {
            kind: Kind::Publish,
            subject,
            headers: &headers,
            body: &body,
            time: 0,
        };
        Letter::new(
            &Subjects::new("rt"),
            arrival,
            &Refusal::new("not_json", "line\n\"2\""),
            Some("x"),
        )
    }

    #[test]
    fn any_subject_has_a_dead_one() {
        for (subject, dead) in [
            ("rt.pub.main.a%2Eb", "rt.dead.main.a%2Eb"),
            ("rt.pub.main.%zz", "rt.dead.main.%zz"),
            ("rt.pub.main.é", "rt.dead.main.%C3%A9"),
            ("rt.pub.main", "rt.dead.main.%none"),
            ("rt.pub.main.a.b", "rt.dead.main.a%2Eb"),
            ("mqtt", "rt.dead.%none.mqtt"),
            (
                &format!("rt.pub.main.{}", "%".repeat(2000)),
                "rt.dead.%none.%long",
            ),
        ] {
            assert_eq!(letter(subject, Headers::new(), "x").subject, dead);
        }
    }

    #[test]
    fn headers_are_kept_but_not_the_servers() {
        let headers = Headers::new()
            .with("X-A", "1")
            .with("nats-msg-id", "2")
            .with("Carillon-Reason", "forged");
        let letter = letter("rt.pub.main.a", headers, "x");
        assert_eq!(letter.headers.get("x-a"), Some("1"));
        assert_eq!(letter.headers.get(name::MSG_ID), Some("x"));
        assert_eq!(letter.headers.get(name::REASON), Some("not_json: line \"2\""));
        assert_eq!(letter.headers.get(name::SUBJECT), Some("rt.pub.main.a"));
    }

    #[test]
    fn a_body_that_is_cut_is_told_by_size_and_hash() {
        let letter = letter("rt.pub.main.a", Headers::new(), &"x".repeat(100_000)).cut();
        assert_eq!(letter.body.len(), KEPT);
        assert_eq!(letter.headers.get(SIZE), Some("100000"));
        assert_eq!(letter.headers.get(SHA256).unwrap().len(), 64);
    }
}
