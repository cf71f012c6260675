//! Word to the edges about deliveries in doubt.

use carillon_bus::Bus;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::{Namespace, Room};
use serde::Serialize;

/// Tells the edges that they may have missed what came to these rooms after a sequence.
#[derive(Debug, Serialize)]
pub(super) struct Sync {
    #[serde(skip)]
    pub(super) subject: String,
    pub(super) from: u64,
    pub(super) namespace: Namespace,
    pub(super) rooms: Vec<Room>,
}

impl Sync {
    /// Best effort: edges also look at every room once a minute.
    pub(super) async fn send(self, bus: &Bus) {
        if let Ok(body) = serde_json::to_vec(&self) {
            let _ = bus.publish(&self.subject, &Headers::new(), body.into()).await;
        }
    }
}
