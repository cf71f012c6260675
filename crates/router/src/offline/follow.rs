//! Following the events of all users' rooms, in the order in which they were stored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::durable::{Delivered, Durable, DurableError, Memory, Start};
use carillon_bus::{Bucket, Lease, Limit, StoredMessage, Table, TableError};
use carillon_protocol::names::{Class, Namespace};
use futures_util::future::FutureExt;
use futures_util::stream::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keep::{KeepError, keep};
use crate::metrics;
use crate::router::Router;

/// The name of the consumer and the lease.
const NAME: &str = "offline";
/// Events that are looked at together.
const TOGETHER: usize = 256;
/// Events that wait for a second look; beyond it the oldest get it early.
const MOST: usize = 65_536;
/// Users whose copies are written at once.
const AT_ONCE: usize = 64;
/// How often the position is written down.
const CHECKPOINT: Duration = Duration::from_millis(500);
/// How often second looks are taken.
const LOOK: Duration = Duration::from_millis(100);

/// Follows each stream of events while this replica holds the lease.
pub(crate) async fn run(router: Arc<Router>, stop: CancellationToken) {
    let mut streams: BTreeMap<String, (u32, Vec<Namespace>)> = BTreeMap::new();
    for (namespace, stream) in &router.streams.events {
        streams
            .entry(stream.name.clone())
            .or_insert((stream.epoch, Vec::new()))
            .1
            .push(namespace.clone());
    }
    let holder = router.leases.own().to_string();
    let ttl = router.session.lease;
    loop {
        let acquire = Lease::acquire(&router.bus, "router.offline", &holder, ttl);
        let Some(lease) = stop.run_until_cancelled(acquire).await else {
            return;
        };
        tracing::info!("following the events of offline users");
        let followers = streams.iter().map(|(stream, (epoch, namespaces))| {
            Follower::new(Arc::clone(&router), stream.clone(), *epoch, namespaces).run()
        });
        tokio::select! {
            () = stop.cancelled() => {
                lease.release().await;
                return;
            }
            () = lease.lost() => tracing::info!("another router follows the events of offline users"),
            _ = futures_util::future::join_all(followers) => {}
        }
    }
}

/// Up to where a stream was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    epoch: u32,
    sequence: u64,
}

/// An event that a session hears. It gets a second look, since the session may have ended just then.
struct Heard {
    at: Instant,
    namespace: Namespace,
    user: String,
    subject: String,
    sequence: u64,
    time: u64,
}

struct Follower {
    router: Arc<Router>,
    stream: String,
    epoch: u32,
    filters: Vec<String>,
    cluster: Table,
    key: String,
    heard: VecDeque<Heard>,
    /// The last event that was looked at.
    seen: Option<u64>,
    written: Option<Position>,
}

impl Follower {
    fn new(router: Arc<Router>, stream: String, epoch: u32, namespaces: &[Namespace]) -> Self {
        let prefix = router.bus.subjects().prefix();
        let class = Class::User.token();
        let filters = namespaces
            .iter()
            .map(|namespace| format!("{prefix}.event.{}.{class}.*", namespace.token()));
        Self {
            filters: filters.collect(),
            cluster: router.bus.table(Bucket::Cluster),
            key: format!("offline.{stream}"),
            router,
            stream,
            epoch,
            heard: VecDeque::new(),
            seen: None,
            written: None,
        }
    }

    async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, stream = self.stream, "events of users cannot be followed yet");
            }
            tokio::time::sleep(Duration::from_millis(200).mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn follow(&mut self) -> Result<(), FollowError> {
        let start = match self.seen {
            Some(sequence) => Start::After(sequence),
            None => match self.position().await? {
                Some(position) if position.epoch == self.epoch => Start::After(position.sequence),
                _ => Start::All,
            },
        };
        Durable::delete(&self.router.bus, &self.stream, NAME).await?;
        let filters = self.filters.clone();
        let mut events = Durable::open(
            &self.router.bus,
            &self.stream,
            NAME,
            filters,
            start,
            Memory::Reader,
        )
        .await?;
        let mut looks = tokio::time::interval(LOOK);
        let mut checkpoints = tokio::time::interval(CHECKPOINT);
        loop {
            tokio::select! {
                event = events.next() => {
                    let mut together = vec![event?];
                    while together.len() < TOGETHER {
                        let Some(event) = events.next().now_or_never() else { break };
                        together.push(event?);
                    }
                    self.look_at(together).await?;
                }
                _ = looks.tick() => self.look_again().await?,
                _ = checkpoints.tick() => self.write_position().await?,
            }
        }
    }

    /// Decides about events by a view that has all records from before they came.
    async fn look_at(&mut self, events: Vec<Delivered>) -> Result<(), FollowError> {
        self.router
            .view
            .catch_up()
            .await
            .map_err(|_| FollowError::Behind)?;
        metrics::offline_pending(events.last().map_or(0, |event| event.pending));
        let at = Instant::now() + self.router.config.offline_margin;
        let seen = events.last().map(|event| event.sequence);
        let mut heard = Vec::new();
        let mut missed: BTreeMap<(Namespace, String), Vec<StoredMessage>> = BTreeMap::new();
        for event in &events {
            let Ok(address) = self.router.bus.subjects().read_classed("event", &event.subject) else {
                continue;
            };
            let Some(user) = address.room.user() else { continue };
            if self.is_heard(&address.namespace, user, event.sequence, event.time) {
                heard.push(Heard {
                    at,
                    namespace: address.namespace.clone(),
                    user: user.to_owned(),
                    subject: event.subject.clone(),
                    sequence: event.sequence,
                    time: event.time,
                });
                continue;
            }
            let stored = StoredMessage {
                subject: event.subject.clone(),
                sequence: event.sequence,
                time: event.time,
                headers: event.headers.clone(),
                body: event.body.clone(),
            };
            let of_user = (address.namespace.clone(), user.to_owned());
            missed.entry(of_user).or_default().push(stored);
        }
        let router = &self.router;
        // Side by side, but those of one user in their order.
        let copies = missed.into_iter().map(|((namespace, user), events)| async move {
            for stored in events {
                keep(router, &namespace, &user, stored).await?;
            }
            Ok::<_, KeepError>(())
        });
        let mut copies = futures_util::stream::iter(copies).buffer_unordered(AT_ONCE);
        while let Some(copied) = copies.next().await {
            copied?;
        }
        // What failed before comes again as a whole.
        self.heard.extend(heard);
        self.seen = seen.or(self.seen);
        Ok(())
    }

    /// Keeps what was heard by a session that has ended right after.
    async fn look_again(&mut self) -> Result<(), FollowError> {
        let now = Instant::now();
        let ripe = |heard: &Heard, waiting: usize| heard.at <= now || waiting > MOST;
        if !self
            .heard
            .front()
            .is_some_and(|first| ripe(first, self.heard.len()))
        {
            return Ok(());
        }
        self.router
            .view
            .catch_up()
            .await
            .map_err(|_| FollowError::Behind)?;
        while let Some(first) = self.heard.front().filter(|first| ripe(first, self.heard.len())) {
            if !self.is_heard(&first.namespace, &first.user, first.sequence, first.time) {
                let (after, up_to) = (first.sequence - 1, first.sequence);
                let bus = &self.router.bus;
                let read = bus.read(&self.stream, &first.subject, after, up_to, Limit::NONE);
                for stored in read.await.map_err(KeepError::from)?.messages {
                    keep(&self.router, &first.namespace, &first.user, stored).await?;
                }
            }
            self.heard.pop_front();
        }
        Ok(())
    }

    fn is_heard(&self, namespace: &Namespace, user: &str, sequence: u64, time: u64) -> bool {
        self.router
            .view
            .table()
            .covered(namespace, user, self.epoch, sequence, time)
    }

    async fn position(&self) -> Result<Option<Position>, FollowError> {
        let entry = self.cluster.get(&self.key).await?;
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }

    /// Writes down up to where everything is decided for good.
    async fn write_position(&mut self) -> Result<(), FollowError> {
        let first = self.heard.front().map(|first| first.sequence - 1);
        let Some(sequence) = first.or(self.seen) else {
            return Ok(());
        };
        let position = Position {
            epoch: self.epoch,
            sequence,
        };
        if self.written != Some(position) {
            let value = Bytes::from(serde_json::to_vec(&position).expect("numbers are JSON"));
            self.cluster.put(&self.key, value, None).await?;
            self.written = Some(position);
        }
        Ok(())
    }
}

/// Why events cannot be followed for now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Consumer(#[from] DurableError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the view of the sessions is behind")]
    Behind,
}
