//! MQTT: one connection in the cluster for each `[[publisher.mqtt]]`.

mod acks;
mod broker;
mod message;
pub(crate) mod template;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bus, Lease};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, Outgoing, Packet, Publish, QoS};
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
/// What the last acknowledgements may take when the publisher stops.
const PARTING: Duration = Duration::from_secs(2);

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
            let reading = Arc::clone(&self).read(identity.clone(), shutdown.clone());
            let reading = AbortOnDropHandle::new(tokio::spawn(reading));
            tokio::select! {
                ended = reading => if let Err(error) = ended {
                    tracing::error!(%error, source = self.index, "MQTT source failed and is begun anew");
                },
                () = lease.lost() => {}
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

    /// Reads until shutdown; what is being stored then is stored and acknowledged.
    async fn read(self: Arc<Self>, identity: String, shutdown: CancellationToken) {
        let options = match options(&self.settings, &identity).await {
            Ok(options) => options,
            Err(error) => {
                tracing::error!(%error, source = self.index, "MQTT source cannot be read");
                let pause = tokio::time::sleep(Duration::from_secs(5));
                shutdown.run_until_cancelled(pause).await;
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
            source: &identity,
            last: None,
        };
        let acks = Acks::new(client.clone(), current);
        let storing = async {
            let acks = store(writer, acks, waiting, &shutdown).await;
            let _ = tokio::time::timeout(PARTING, acks.part()).await;
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            () = self.poll(client, events, arrived, connection) => {}
            () = storing => {}
        }
    }

    /// Drives the connection, and makes it again whenever it breaks, until it has said goodbye.
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
                    expect_releases(&mut events);
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
                    // Nobody takes it after shutdown, and the broker gives it to the next publisher.
                    let _ = arrived.send(message).await;
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
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

/// Lets the broker release messages of QoS 2 that another publisher, or an earlier connection, has received.
///
/// The client takes the release of a message that it does not know for an error, and would never get past it.
fn expect_releases(events: &mut EventLoop) {
    for pkid in 1..=u16::MAX {
        let received = Publish {
            pkid,
            ..Publish::new("", QoS::ExactlyOnce, Bytes::new())
        };
        let _ = events.state.handle_incoming_packet(Packet::Publish(received));
        events.state.events.clear();
    }
}

/// Stores messages in their order, until shutdown; each is acknowledged once it is stored.
async fn store(
    mut writer: Writer<'_>,
    mut acks: Acks,
    mut waiting: mpsc::Receiver<Arrived>,
    shutdown: &CancellationToken,
) -> Acks {
    loop {
        let arrived = tokio::select! {
            biased;
            () = shutdown.cancelled() => return acks,
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
            return acks;
        };
        let fingerprint = fingerprint(&publish);
        // A retained message is a state from before the subscription, and comes with each subscription.
        if !publish.retain && !acks.was_stored(&publish, &fingerprint) {
            writer.write(&publish, &fingerprint).await;
        }
        acks.stored(&publish, fingerprint, connection);
    }
}

/// What a message says, and about what.
type Fingerprint = [u8; 32];

fn fingerprint(publish: &Publish) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(publish.topic.as_bytes());
    hash.update([0]);
    hash.update(&publish.payload);
    hash.finalize().into()
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}
