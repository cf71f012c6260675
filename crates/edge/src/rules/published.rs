//! Published events, as the clients of a namespace get them.

use carillon_protocol::event::Payload;

use super::context::rfc3339;
use super::{Rules, data};

impl Rules {
    /// Tells whether published events are changed on their way to the clients.
    pub fn changes_published(&self, event: &str) -> bool {
        let enveloped = self.envelope && !self.own_events.contains(event);
        enveloped || !self.sanitize_published.is_empty()
    }

    /// Returns a published event's arguments as the clients get them: cleaned, and in the envelope.
    pub fn published(&self, event: &str, payload: &Payload, time_ms: u64) -> Payload {
        let mut payload = payload.clone();
        if !self.sanitize_published.is_empty()
            && let Ok(mut args) = data::read(&payload)
            && args
                .iter_mut()
                .fold(false, |changed, arg| self.sanitize_published.clean(arg) | changed)
        {
            payload = data::payload(&args);
        }
        if self.envelope && !self.own_events.contains(event) {
            let data = match &payload {
                Payload::Many(_) if payload.arguments().is_empty() => "null",
                payload => payload.text(),
            };
            let name = serde_json::Value::from(event);
            let time = rfc3339(time_ms);
            payload =
                Payload::One(format!(r#"{{"event":{name},"data":{data},"timestamp":"{time}"}}"#).into());
        }
        payload
    }
}
