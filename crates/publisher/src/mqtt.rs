//! MQTT: one connection in the cluster for each `[[publisher.mqtt]]`.

mod acks;
mod broker;
mod message;
pub(crate) mod template;

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Bus, Lease};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, Packet, Publish, QoS};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::check::Checker;
use crate::config::Mqtt;
use crate::intake::Intake;
use crate::metrics;

use acks::Acks;
pub(crate) use broker::broker;
use broker::options;
use message::Writer;

/// Messages that were read and wait to be stored; the broker keeps the others.
const WAITING: usize = 16;
/// What they have together in bytes; a larger one waits alone.
const WAITING_BYTES: usize = 32 << 20;
/// Requests on their way to the broker.
const REQUESTS: usize = 256;
/// How soon an acknowledgement for which there was no place is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// A subscription that the broker has not confirmed by then is asked for anew.
const SUBSCRIBED: Duration = Duration::from_secs(10);

/// One broker's messages on their way into INGEST.
pub(crate) struct Source {
    pub(crate) index: usize,
    pub(crate) settings: Mqtt,
    pub(crate) bus: Bus,
    pub(crate) checker: Checker,
    pub(crate) intake: Intake,
    pub(crate) holder: Arc<str>,
    pub(crate) lease: Duration,
}

/// A message with the connection on which it came.
struct Arrived {
    publish: Publish,
    connection: u64,
    _place: OwnedSemaphorePermit,
}

impl Source {
    /// Reads from the broker whenever this publisher holds the source's lease, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let identity = self.identity();
        let source = Arc::new(self);
        source.own(identity, shutdown).await;
    }

    async fn own(self: Arc<Self>, identity: String, shutdown: CancellationToken) {
        loop {
            let name = format!("mqtt.{identity}");
            let acquired = Lease::acquire(&self.bus, &name, &self.holder, self.lease);
            let Some(lease) = shutdown.run_until_cancelled(acquired).await else {
                return;
            };
            tracing::info!(source = self.index, "MQTT source taken over");
            // A task of its own: a broker that confuses the client must not end the source for good.
            let reading = Arc::clone(&self).read(identity.clone());
            let reading = AbortOnDropHandle::new(tokio::spawn(reading));
            tokio::select! {
                ended = reading => if let Err(error) = ended {
                    tracing::error!(%error, source = self.index, "MQTT source failed and is begun anew");
                },
                () = lease.lost() => {}
                () = shutdown.cancelled() => {}
            }
            metrics::mqtt(self.index, false);
            lease.release().await;
            if shutdown.is_cancelled() {
                return;
            }
        }
    }

    /// The same for the same source in every publisher, whatever its place in the file.
    fn identity(&self) -> String {
        let Mqtt {
            url,
            topic,
            namespace,
            room,
            event,
            ..
        } = &self.settings;
        let digest = Sha256::digest(format!("{url}\n{topic}\n{namespace}\n{room:?}\n{event:?}"));
        digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn read(self: Arc<Self>, identity: String) {
        let options = match options(&self.settings, &identity).await {
            Ok(options) => options,
            Err(error) => {
                tracing::error!(%error, source = self.index, "MQTT source cannot be read");
                tokio::time::sleep(Duration::from_secs(5)).await;
                return;
            }
        };
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let (arrived, waiting) = mpsc::channel(WAITING);
        let (connection, current) = watch::channel(0);
        let writer = Writer {
            bus: &self.bus,
            checker: &self.checker,
            intake: &self.intake,
            settings: &self.settings,
        };
        tokio::join!(
            self.poll(client.clone(), events, arrived, connection),
            store(writer, Acks::new(client, current), waiting),
        );
    }

    /// Drives the connection, and makes it again whenever it breaks.
    async fn poll(
        &self,
        client: AsyncClient,
        mut events: EventLoop,
        arrived: mpsc::Sender<Arrived>,
        connection: watch::Sender<u64>,
    ) {
        let mut backoff = Backoff::new();
        let mut number = 0;
        let mut subscribed = false;
        let places = Arc::new(Semaphore::new(WAITING_BYTES));
        loop {
            let event = if subscribed {
                events.poll().await
            } else {
                let polled = tokio::time::timeout(SUBSCRIBED, events.poll()).await;
                polled.unwrap_or(Err(ConnectionError::NetworkTimeout))
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    number += 1;
                    connection.send_replace(number);
                    let qos = quality(self.settings.qos);
                    if let Err(error) = client.try_subscribe(&self.settings.topic, qos) {
                        tracing::warn!(%error, source = self.index, "cannot subscribe");
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let refused = answer
                        .return_codes
                        .contains(&rumqttc::SubscribeReasonCode::Failure);
                    if refused {
                        tracing::error!(
                            source = self.index,
                            topic = self.settings.topic,
                            "subscription refused"
                        );
                    }
                    subscribed = true;
                    backoff.reset();
                    metrics::mqtt(self.index, !refused);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    // Full: the broker waits, and keeps what is not acknowledged.
                    let size = publish.payload.len().clamp(1, WAITING_BYTES);
                    let size = u32::try_from(size).expect("the bound is a u32");
                    let place = Arc::clone(&places).acquire_many_owned(size).await;
                    let message = Arrived {
                        publish,
                        connection: number,
                        _place: place.expect("the semaphore is never closed"),
                    };
                    if arrived.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    subscribed = false;
                    connection.send_replace(0);
                    metrics::mqtt(self.index, false);
                    tracing::warn!(%error, source = self.index, "MQTT connection lost");
                    events.clean();
                    backoff.wait().await;
                }
            }
        }
    }
}

/// Stores messages in their order; each is acknowledged once it is stored.
async fn store(writer: Writer<'_>, mut acks: Acks, mut waiting: mpsc::Receiver<Arrived>) {
    loop {
        let arrived = tokio::select! {
            arrived = waiting.recv() => arrived,
            () = tokio::time::sleep(AGAIN), if acks.are_owed() => {
                acks.pay();
                continue;
            }
        };
        let Some(Arrived {
            publish, connection, ..
        }) = arrived
        else {
            return;
        };
        // A retained message is a state from before the subscription, and comes with each subscription.
        if !publish.retain && !acks.was_stored(&publish) {
            writer.write(&publish).await;
        }
        acks.stored(&publish, connection);
    }
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}
