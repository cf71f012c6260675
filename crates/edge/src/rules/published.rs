//! Published events, as the clients of a namespace get them.

use carillon_protocol::event::Payload;

use super::context::rfc3339;
use super::sanitize::Fields;
use super::{Rules, data};

impl Rules {
    /// Tells whether published events are changed on their way to the clients.
    pub fn changes_published(&self, event: &str) -> bool {
        let enveloped = self.envelope && !self.own_events.contains(event);
        enveloped || !self.sanitize_published.is_empty()
    }

    /// Returns a published event's arguments as the clients get them: cleaned, and in the envelope.
    pub fn published(&self, event: &str, payload: &Payload, time_ms: u64) -> Payload {
        let mut payload = if self.sanitize_published.is_empty() {
            payload.clone()
        } else {
            clean(&self.sanitize_published, payload)
        };
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

/// Cleans the named fields. Backends are not refused what the rules would refuse a client, so nothing that is
/// hard to read may pass as it is.
fn clean(fields: &Fields, payload: &Payload) -> Payload {
    let strict = data::read(payload);
    let is_strict = strict.is_ok();
    let Ok(mut args) = strict.or_else(|_| data::read_last(payload)) else {
        return data::without_markup(payload);
    };
    let changed = fields.clean(&mut args);
    if changed || !is_strict {
        data::payload(&args)
    } else {
        payload.clone()
    }
}
