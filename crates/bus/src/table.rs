//! A bucket: small values by key, with compare-and-set, time to live and one watch.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::connection::{Bus, LinkState};
use crate::history::{HistoryError, StoredMessage, now};
use crate::store::StoreError;
use crate::streams::stream_name;

/// In milliseconds: by how much the server's clock may differ when a value's time is judged.
const CLOCKS: u64 = 10_000;
/// Pause before a read that nothing answered is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The buckets of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// Records of sessions.
    Sessions,
    /// Leases of edges.
    Edges,
    /// Revoked users and tokens.
    Revoked,
    /// Leases of publishers and routers, and other small facts.
    Cluster,
}

impl Bucket {
    pub(crate) const ALL: [Self; 4] = [Self::Sessions, Self::Edges, Self::Revoked, Self::Cluster];

    pub(crate) fn name(self, bus: &Bus) -> String {
        let name = match self {
            Self::Sessions => "SESSIONS",
            Self::Edges => "EDGES",
            Self::Revoked => "REVOKED",
            Self::Cluster => "CLUSTER",
        };
        stream_name(bus.subjects().prefix(), name)
    }
}

/// A bucket of the cluster.
#[derive(Clone)]
pub struct Table {
    bus: Bus,
    stream: String,
    prefix: String,
}

/// A value with the revision that a compare-and-set names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub revision: u64,
    pub value: Bytes,
}

/// Why a bucket did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("the key has another revision")]
    Conflict,
    #[error("bucket: {0}")]
    Store(StoreError),
    #[error("NATS does not answer")]
    Away,
}

impl From<StoreError> for TableError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::WrongLastSequence => Self::Conflict,
            StoreError::Away | StoreError::Timeout => Self::Away,
            other => Self::Store(other),
        }
    }
}

impl Bus {
    /// Returns a bucket of the cluster.
    pub fn table(&self, bucket: Bucket) -> Table {
        let name = bucket.name(self);
        Table {
            bus: self.clone(),
            stream: format!("KV_{name}"),
            prefix: format!("$KV.{name}."),
        }
    }
}

impl Table {
    /// Returns the value of a key, as the bucket's leader has it.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, TableError> {
        let last = Box::pin(self.last(key)).await?;
        Ok(last.and_then(|(entry, gone)| (!gone).then_some(entry)))
    }

    /// Returns the values of all keys that match a pattern of NATS; a replica may be a little behind.
    pub async fn all(&self, pattern: &str) -> Result<Vec<Entry>, TableError> {
        let messages = self.bus.last(&self.stream, &[self.subject(pattern)], 0).await;
        let messages = messages.map_err(|_| TableError::Away)?;
        Ok(messages
            .into_iter()
            .filter(is_there)
            .map(|message| Entry {
                revision: message.sequence,
                value: message.body,
            })
            .collect())
    }

    /// Like [`Table::get`], asked again for as long as nothing answers, up to `patience`: a new bucket of a
    /// cluster has no leader yet.
    pub async fn get_within(&self, key: &str, patience: Duration) -> Result<Option<Entry>, TableError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.get(key).await {
                Err(TableError::Away) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Returns every key with its value, at one moment where 8 MiB hold them; a replica that is behind answers with an
    /// earlier one.
    ///
    /// For buckets of few keys: the server answers for some thousand at most.
    pub async fn entries(&self) -> Result<Vec<(String, Entry)>, HistoryError> {
        let all = [self.subject(">")];
        let messages = self.bus.last(&self.stream, &all, 0).await?;
        let entries = messages.into_iter().filter(is_there).filter_map(|message| {
            let key = message.subject.strip_prefix(&self.prefix)?.to_owned();
            let entry = Entry {
                revision: message.sequence,
                value: message.body,
            };
            Some((key, entry))
        });
        Ok(entries.collect())
    }

    /// Writes a key that does not exist, and returns its revision.
    pub async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, TableError> {
        match self.write(key, value.clone(), Some(0), ttl).await {
            // The key may have left a marker, which is then what must be the last.
            Err(TableError::Conflict) => match Box::pin(self.last(key)).await? {
                Some((entry, true)) => self.write(key, value, Some(entry.revision), ttl).await,
                _ => Err(TableError::Conflict),
            },
            written => written,
        }
    }

    /// Writes a key that has the given revision, and returns the new one.
    pub async fn update(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, TableError> {
        self.write(key, value, Some(revision), ttl).await
    }

    /// Writes a key whatever it has.
    pub async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, TableError> {
        self.write(key, value, None, ttl).await
    }

    /// Deletes a key, of the given revision where one is given.
    pub async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), TableError> {
        let mut headers = Headers::new()
            .with("KV-Operation", "PURGE")
            .with("Nats-Rollup", "sub")
            .with(name::TTL, "60s");
        if let Some(revision) = revision {
            headers.push(name::EXPECTED, revision.to_string());
        }
        self.bus.store(&self.subject(key), &headers, Bytes::new()).await?;
        Ok(())
    }

    /// Watches every key, from a snapshot of what is there.
    pub fn watch(&self) -> Watch {
        Watch {
            table: self.clone(),
            open: None,
            restarts: 0,
        }
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn write(
        &self,
        key: &str,
        value: Bytes,
        revision: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<u64, TableError> {
        let mut headers = Headers::new();
        if let Some(revision) = revision {
            headers.push(name::EXPECTED, revision.to_string());
        }
        if let Some(ttl) = ttl {
            headers.push(name::TTL, format!("{}s", ttl.as_secs().max(1)));
        }
        Ok(self
            .bus
            .store(&self.subject(key), &headers, value)
            .await?
            .sequence)
    }

    /// The last message of a key, and whether it says that the key is gone.
    async fn last(&self, key: &str) -> Result<Option<(Entry, bool)>, TableError> {
        use async_nats::jetstream::stream::LastRawMessageErrorKind;

        let stream = self
            .bus
            .inner
            .jetstream
            .get_stream_no_info(&self.stream)
            .await
            .map_err(|_| TableError::Away)?;
        match stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => {
                let gone = is_gone(&message.headers);
                Ok(Some((
                    Entry {
                        revision: message.sequence,
                        value: message.payload,
                    },
                    gone,
                )))
            }
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::JetStream(api) if api.error_code().0 == 10037 => Ok(None),
                _ => Err(TableError::Away),
            },
        }
    }
}

fn is_there(message: &StoredMessage) -> bool {
    let headers = &message.headers;
    let is_gone = headers.get(name::MARKER).is_some() || headers.get("KV-Operation").is_some();
    !is_gone && !has_expired(headers.get(name::TTL), message.time)
}

/// Tells whether a value should not be there any more: a server that was killed may keep some for ever whose time is
/// over. `stored` is in milliseconds since 1970.
fn has_expired(ttl: Option<&str>, stored: u64) -> bool {
    let seconds = ttl.and_then(|ttl| ttl.strip_suffix('s')?.parse::<u64>().ok());
    seconds.is_some_and(|seconds| {
        let end = stored.saturating_add(seconds.saturating_mul(1000));
        end.saturating_add(CLOCKS) < now()
    })
}

fn is_gone(headers: &async_nats::HeaderMap) -> bool {
    headers.get(name::MARKER).is_some()
        || headers
            .get("KV-Operation")
            .is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
}

/// What a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has a value.
    Put {
        key: String,
        revision: u64,
        value: Bytes,
    },
    /// A key was deleted or has expired.
    Gone { key: String, revision: u64 },
    /// The snapshot is complete: what was not seen since the start of the watch, or its restart, is not there.
    Loaded,
    /// Changes may have been missed: a new snapshot follows.
    Restarted,
}

/// The changes of a bucket; it survives breaks of the connection by itself.
pub struct Watch {
    table: Table,
    open: Option<Open>,
    restarts: u32,
}

struct Open {
    messages: pull::Stream,
    state: watch::Receiver<LinkState>,
    generation: u64,
    /// The consumer's sequence of the last message: a hole means that something was missed.
    seen: u64,
    loaded: bool,
    /// Nothing was there when the watch began, so `Loaded` is due at once.
    empty: bool,
    /// `Loaded` follows the change that was just returned.
    complete: bool,
}

impl Watch {
    /// Returns the next change. It never ends; a bucket that cannot be watched is tried again.
    pub async fn next(&mut self) -> Change {
        loop {
            let Some(open) = &mut self.open else {
                match Open::new(&self.table).await {
                    Ok(open) => self.open = Some(open),
                    Err(error) => {
                        tracing::debug!(%error, bucket = %self.table.stream, "bucket cannot be watched yet");
                        self.restarts += 1;
                        tokio::time::sleep(back_off(self.restarts)).await;
                    }
                }
                continue;
            };
            if (open.empty || open.complete) && !open.loaded {
                open.loaded = true;
                self.restarts = 0;
                return Change::Loaded;
            }
            match open.next().await {
                Some(change) => return change,
                None => {
                    self.open = None;
                    self.restarts += 1;
                    tokio::time::sleep(back_off(self.restarts)).await;
                    return Change::Restarted;
                }
            }
        }
    }
}

fn back_off(restarts: u32) -> Duration {
    Duration::from_millis(50 << restarts.min(5)).mul_f64(0.5 + fastrand::f64() / 2.0)
}

impl Open {
    async fn new(table: &Table) -> Result<Self, String> {
        let bus = &table.bus;
        let state = bus.link_state();
        let generation = state.borrow().generation;
        let config = pull::Config {
            name: Some(format!("watch-{:016x}", fastrand::u64(..))),
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: format!("{}>", table.prefix),
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = bus
            .inner
            .jetstream
            .create_consumer_on_stream(config, &table.stream)
            .await
            .map_err(|error| error.to_string())?;
        let empty = consumer.cached_info().num_pending == 0;
        let messages = consumer
            .stream()
            .max_messages_per_batch(1000)
            .expires(Duration::from_secs(10))
            .heartbeat(Duration::from_secs(4))
            .messages()
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            messages,
            state,
            generation,
            seen: 0,
            loaded: false,
            empty,
            complete: false,
        })
    }

    /// Returns the next change, or `None` when something may have been missed.
    async fn next(&mut self) -> Option<Change> {
        loop {
            let message = tokio::select! {
                message = self.messages.next() => message?.ok()?,
                _ = self.state.changed() => {
                    let state = *self.state.borrow_and_update();
                    if state.connected && state.generation == self.generation {
                        continue;
                    }
                    return None;
                }
            };
            let info = message.info().ok()?;
            if info.consumer_sequence != self.seen + 1 {
                return None;
            }
            self.seen = info.consumer_sequence;
            self.complete |= info.pending == 0;
            let revision = info.stream_sequence;
            // `$KV.<bucket>.<key>`, where the key may have dots.
            let key = message
                .subject
                .splitn(3, '.')
                .nth(2)
                .unwrap_or_default()
                .to_owned();
            let stored = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
            let is_over = |headers: &async_nats::HeaderMap| {
                is_gone(headers) || has_expired(headers.get(name::TTL).map(|ttl| ttl.as_str()), stored)
            };
            if message.headers.as_ref().is_some_and(is_over) {
                return Some(Change::Gone { key, revision });
            }
            return Some(Change::Put {
                key,
                revision,
                value: message.payload.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_whose_time_is_over_is_not_there_whatever_the_server_has() {
        let stored = now() - 30_000;
        assert!(has_expired(Some("12s"), stored));
        assert!(!has_expired(Some("25s"), stored), "clocks may differ");
        assert!(!has_expired(Some("60s"), stored) && !has_expired(None, stored));
    }
}
