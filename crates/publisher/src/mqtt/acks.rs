//! Acknowledgements to a broker.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use rumqttc::{AsyncClient, Publish, QoS};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// What the broker is still to hear.
///
/// Acknowledging never waits: the connection may itself wait until messages are taken from it. What is kept
/// here is bounded by the 65535 packet ids of MQTT.
pub(super) struct Acks {
    client: AsyncClient,
    /// The number of the present connection.
    current: watch::Receiver<u64>,
    owed: VecDeque<(Publish, u64)>,
    /// Stored, but the connection broke before the acknowledgement: the broker sends these again.
    unconfirmed: HashMap<u16, [u8; 32]>,
}

impl Acks {
    pub(super) fn new(client: AsyncClient, current: watch::Receiver<u64>) -> Self {
        Self {
            client,
            current,
            owed: VecDeque::new(),
            unconfirmed: HashMap::new(),
        }
    }

    /// Returns whether the broker sends a message again that is stored already.
    pub(super) fn was_stored(&self, publish: &Publish) -> bool {
        publish.dup
            && self
                .unconfirmed
                .get(&publish.pkid)
                .is_some_and(|known| *known == digest(publish))
    }

    /// Acknowledges a message that came on a connection, as soon as there is place.
    pub(super) fn stored(&mut self, publish: &Publish, connection: u64) {
        if publish.qos == QoS::AtMostOnce {
            return;
        }
        self.unconfirmed.insert(publish.pkid, digest(publish));
        self.owed.push_back((
            Publish {
                payload: Bytes::new(),
                ..publish.clone()
            },
            connection,
        ));
        self.pay();
    }

    /// Returns whether an acknowledgement waits for its place.
    pub(super) fn are_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Acknowledges what there is place for.
    pub(super) fn pay(&mut self) {
        while let Some((publish, connection)) = self.owed.front() {
            if *self.current.borrow() == *connection {
                if self.client.try_ack(publish).is_err() {
                    return;
                }
                self.unconfirmed.remove(&publish.pkid);
            }
            // A packet id means nothing on another connection.
            self.owed.pop_front();
        }
    }
}

fn digest(publish: &Publish) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(publish.topic.as_bytes());
    hash.update([0]);
    hash.update(&publish.payload);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use rumqttc::MqttOptions;

    use super::*;

    fn message(pkid: u16, payload: &str, dup: bool) -> Publish {
        let mut publish = Publish::new("t", QoS::AtLeastOnce, payload);
        (publish.pkid, publish.dup) = (pkid, dup);
        publish
    }

    #[tokio::test]
    async fn acknowledgements_without_a_place_wait_and_those_of_another_connection_are_dropped() {
        let (client, _events) = AsyncClient::new(MqttOptions::new("c", "127.0.0.1", 1), 1);
        let (connection, current) = watch::channel(1);
        let mut acks = Acks::new(client, current);
        for pkid in 1..=3 {
            acks.stored(&message(pkid, "x", false), 1);
        }
        assert_eq!(acks.owed.len(), 2);
        connection.send_replace(2);
        acks.pay();
        assert!(!acks.are_owed());
        assert!(
            !acks.was_stored(&message(1, "x", true)),
            "this one was acknowledged"
        );
        assert!(acks.was_stored(&message(2, "x", true)));
        assert!(!acks.was_stored(&message(2, "y", true)) && !acks.was_stored(&message(3, "x", false)));
    }
}
