//! Numbered events at a steady rate: each room has its own numbers, and the next one is published once the last
//! one was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use carillon_testkit::http;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::stage::{Stage, publish_token};

/// One of so many rooms is published to over HTTP.
const HTTP_SHARE: usize = 4;
/// After this time a publish is tried again, at the next publisher.
const PATIENCE: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_millis(200);

/// Publishers of all rooms.
pub(crate) struct Load {
    tasks: JoinSet<(String, u64)>,
    stop: CancellationToken,
    figures: Arc<Figures>,
}

/// What the publishers saw.
#[derive(Default)]
pub(crate) struct Figures {
    /// Publishes that were tried again.
    retries: AtomicU64,
    /// The longest time that one event took to be acknowledged, in milliseconds, since it was last asked.
    longest_wait: AtomicU64,
}

/// The rates: how long between two events of a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) shared: Duration,
    pub(crate) personal: Duration,
}

struct Way {
    jetstream: jetstream::Context,
    http: reqwest::Client,
    token: String,
    publishers: Vec<SocketAddr>,
}

impl Load {
    /// Begins to publish to these rooms; the names of personal ones begin with `user:`.
    pub(crate) async fn start<'a>(
        stage: &Stage,
        rooms: impl IntoIterator<Item = &'a String>,
        pace: Pace,
    ) -> Self {
        let mut jetstream = jetstream::new(stage.nats.connect().await);
        jetstream.set_timeout(PATIENCE);
        let way = Arc::new(Way {
            jetstream,
            http: http::client(),
            token: publish_token(),
            publishers: stage.publishers.iter().map(|node| node.listen).collect(),
        });
        let (stop, figures) = (CancellationToken::new(), Arc::<Figures>::default());
        let mut tasks = JoinSet::new();
        for (index, room) in rooms.into_iter().enumerate() {
            let publisher = Publisher {
                room: room.clone(),
                over_http: index % HTTP_SHARE == HTTP_SHARE - 1,
                way: way.clone(),
                stop: stop.clone(),
                figures: figures.clone(),
            };
            let interval = if room.starts_with("user:") {
                pace.personal
            } else {
                pace.shared
            };
            tasks.spawn(publisher.run(interval));
        }
        Self { tasks, stop, figures }
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Ends, once what is on its way was acknowledged: the last number of each room.
    pub(crate) async fn finish(self) -> BTreeMap<String, u64> {
        self.stop.cancel();
        self.tasks.join_all().await.into_iter().collect()
    }
}

impl Figures {
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The longest wait for an acknowledgement since the last call.
    pub(crate) fn take_longest_wait(&self) -> u64 {
        self.longest_wait.swap(0, Ordering::Relaxed)
    }
}

struct Publisher {
    room: String,
    over_http: bool,
    way: Arc<Way>,
    stop: CancellationToken,
    figures: Arc<Figures>,
}

impl Publisher {
    async fn run(self, interval: Duration) -> (String, u64) {
        // Not all rooms in the same moment.
        let first = tokio::time::Instant::now() + interval.mul_f64(fastrand::f64());
        let mut tick = tokio::time::interval_at(first, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return (self.room, last),
                _ = tick.tick() => {}
            }
            last += 1;
            self.publish(last).await;
        }
    }

    /// Publishes a number, again and again until it is acknowledged; the id makes one event of all attempts.
    async fn publish(&self, number: u64) {
        let begun = Instant::now();
        let id = format!("{}-{number}", self.room);
        let data = json!({ "s": self.room, "n": number });
        for attempt in 0.. {
            let sent = async {
                if self.over_http {
                    self.way
                        .post(attempt + number as usize, &self.room, &id, &data)
                        .await
                } else {
                    self.way.store(&self.room, &id, &data).await
                }
            };
            if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, sent).await {
                let wait = begun.elapsed().as_millis() as u64;
                self.figures.longest_wait.fetch_max(wait, Ordering::Relaxed);
                return;
            }
            self.figures.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Way {
    async fn store(&self, room: &str, id: &str, data: &Value) -> anyhow::Result<()> {
        let body = json!({ "event": "numbered", "data": data }).to_string();
        let message = PublishMessage::build().message_id(id).payload(body.into());
        let sent = self
            .jetstream
            .send_publish(format!("rt.pub.main.{room}"), message)
            .await;
        sent?.await?;
        Ok(())
    }

    async fn post(&self, turn: usize, room: &str, id: &str, data: &Value) -> anyhow::Result<()> {
        let publisher = self.publishers[turn % self.publishers.len()];
        let request = self
            .http
            .post(format!("http://{publisher}/v1/events"))
            .bearer_auth(&self.token)
            .header("Idempotency-Key", id)
            .json(&json!({ "rooms": [room], "event": "numbered", "data": data }));
        let response = request.send().await?;
        anyhow::ensure!(response.status() == 202, "{}", response.status());
        Ok(())
    }
}
