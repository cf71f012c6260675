//! Acknowledgements to a broker.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use rumqttc::{AsyncClient, Publish, QoS};
use tokio::sync::watch;

use super::{AGAIN, Fingerprint};

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
    unconfirmed: HashMap<u16, Fingerprint>,
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
    pub(super) fn was_stored(&self, publish: &Publish, fingerprint: &Fingerprint) -> bool {
        publish.dup
            && self
                .unconfirmed
                .get(&publish.pkid)
                .is_some_and(|known| known == fingerprint)
    }

    /// Acknowledges a message that came on a connection, as soon as there is place.
    pub(super) fn stored(&mut self, publish: &Publish, fingerprint: Fingerprint, connection: u64) {
        if publish.qos == QoS::AtMostOnce {
            return;
        }
        self.unconfirmed.insert(publish.pkid, fingerprint);
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

    /// Acknowledges what is owed and ends the connection; the broker keeps the session.
    pub(super) async fn part(mut self) {
        loop {
            self.pay();
            if !self.are_owed() && self.client.try_disconnect().is_ok() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::MqttOptions;

    use super::super::fingerprint;
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
            let message = message(pkid, "x", false);
            acks.stored(&message, fingerprint(&message), 1);
        }
        assert_eq!(acks.owed.len(), 2);
        connection.send_replace(2);
        acks.pay();
        assert!(!acks.are_owed());
        let was_stored = |message: Publish| acks.was_stored(&message, &fingerprint(&message));
        assert!(!was_stored(message(1, "x", true)), "this one was acknowledged");
        assert!(was_stored(message(2, "x", true)));
        assert!(!was_stored(message(2, "y", true)) && !was_stored(message(3, "x", false)));
    }
}
