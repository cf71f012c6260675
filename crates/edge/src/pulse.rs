//! The application heartbeat of a namespace: an event that the client answers with another, or is closed.

use std::sync::Arc;
use std::time::Instant;

use carillon_protocol::event::Payload;

use crate::client::Closing;
use crate::namespace::Namespace;
use crate::rules::Emit;

/// Where one connection stands in its heartbeat.
#[derive(Default)]
pub(crate) struct Pulse {
    /// When it was last asked.
    asked: Option<Instant>,
    /// Whether it has answered since then.
    is_answered: bool,
    /// Whether it has ever answered: a client that never does may not know the heartbeat at all.
    has_answered: bool,
}

impl Pulse {
    pub(crate) fn answered(&mut self) {
        (self.is_answered, self.has_answered) = (true, true);
    }
}

impl Namespace {
    /// Asks who is due, and closes who did not answer.
    pub(crate) fn beat_hearts(&self) {
        let rules = self.rules.load();
        let Some(heartbeat) = rules.heartbeat() else {
            return;
        };
        let event: Arc<str> = heartbeat.event.as_str().into();
        for session in self.sessions() {
            let mut pulse = session.pulse.lock();
            let Some(asked) = pulse.asked else {
                // The first question comes one interval after the connection.
                (pulse.asked, pulse.is_answered) = (Some(Instant::now()), true);
                continue;
            };
            let must_answer = heartbeat.required || pulse.has_answered;
            if !pulse.is_answered && must_answer && asked.elapsed() >= heartbeat.timeout {
                drop(pulse);
                let reason = "heartbeat timeout".to_owned();
                session.client.close(Closing {
                    code: 1008,
                    reason,
                    flush: false,
                });
            } else if asked.elapsed() >= heartbeat.every {
                (pulse.asked, pulse.is_answered) = (Some(Instant::now()), false);
                drop(pulse);
                session.emit(Emit {
                    event: Arc::clone(&event),
                    payload: Payload::NONE,
                });
            }
        }
    }
}
