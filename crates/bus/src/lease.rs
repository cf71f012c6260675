//! Leases: one holder at a time of a duty in the cluster.
//!
//! A lease is a key with a TTL in the bucket CLUSTER. Its holder also answers on a subject, so that its death is
//! noticed at once: nobody listens there any more. A lease is a hint for who does the work; what must not be
//! done twice is guarded by compare-and-set where it is done.

use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::headers::Headers;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::connection::{Bus, RequestError};
use crate::table::{Bucket, Entry, Table, TableError};

/// How often a candidate looks whether the holder lives.
const LOOK: Duration = Duration::from_millis(400);

#[derive(Serialize, Deserialize)]
struct Value {
    holder: String,
    renewal: u64,
}

/// A lease that this process holds; dropping it gives it back.
pub struct Lease {
    term: u64,
    lost: CancellationToken,
    released: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Lease {
    /// Waits until the lease is free, and takes it.
    pub async fn acquire(bus: &Bus, name: &str, holder: &str, ttl: Duration) -> Self {
        let table = bus.table(Bucket::Cluster);
        let key = format!("lease.{name}");
        let subject = format!("{}.lease.{name}", bus.subjects().prefix());
        loop {
            match take(bus, &table, &key, &subject, holder, ttl).await {
                Ok(Some(revision)) => return Self::hold(bus, table, key, subject, holder, revision, ttl),
                Ok(None) | Err(TableError::Conflict) => {}
                Err(error) => tracing::debug!(%error, lease = name, "lease cannot be taken yet"),
            }
            tokio::time::sleep(LOOK.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Returns a number that rises with each holder.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Waits until the lease is held no more.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Returns whether the lease is held, as far as this process knows.
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Gives the lease back, and waits until it is free for another.
    pub async fn release(mut self) {
        self.released.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.task).await;
    }

    fn hold(
        bus: &Bus,
        table: Table,
        key: String,
        subject: String,
        holder: &str,
        revision: u64,
        ttl: Duration,
    ) -> Self {
        let (lost, released) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Keeper {
            bus: bus.clone(),
            table,
            key,
            subject,
            holder: holder.to_owned(),
            ttl,
        };
        let task = tokio::spawn(keeper.run(revision, lost.clone(), released.clone()));
        Self {
            term: revision,
            lost,
            released,
            task,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.released.cancel();
    }
}

/// Takes a lease that nobody holds; `None` where its holder lives.
async fn take(
    bus: &Bus,
    table: &Table,
    key: &str,
    subject: &str,
    holder: &str,
    ttl: Duration,
) -> Result<Option<u64>, TableError> {
    let value = value(holder, 0);
    let Some(entry) = table.get(key).await? else {
        return table.create(key, value, Some(ttl)).await.map(Some);
    };
    for _ in 0..2 {
        let answer = bus.request(subject, &Headers::new(), Bytes::new(), LOOK).await;
        if !matches!(answer, Err(RequestError::NoResponders)) {
            return Ok(None);
        }
        tokio::time::sleep(LOOK / 2).await;
    }
    match table.get(key).await? {
        // Not renewed since it was seen, and nobody answers for it.
        Some(now) if now.revision == entry.revision || is_same_holder(&now, &entry) => {
            table.update(key, value, now.revision, Some(ttl)).await.map(Some)
        }
        _ => Ok(None),
    }
}

fn is_same_holder(left: &Entry, right: &Entry) -> bool {
    let holder = |entry: &Entry| {
        serde_json::from_slice::<Value>(&entry.value)
            .map(|value| value.holder)
            .ok()
    };
    holder(left) == holder(right)
}

fn value(holder: &str, renewal: u64) -> Bytes {
    let value = Value {
        holder: holder.to_owned(),
        renewal,
    };
    serde_json::to_vec(&value).expect("a lease is JSON").into()
}

struct Keeper {
    bus: Bus,
    table: Table,
    key: String,
    subject: String,
    holder: String,
    ttl: Duration,
}

impl Keeper {
    async fn run(self, mut revision: u64, lost: CancellationToken, released: CancellationToken) {
        let _lost = lost.drop_guard();
        let Ok(mut questions) = self.bus.subscribe(&self.subject, None).await else {
            return;
        };
        let mut renewed = tokio::time::Instant::now();
        let mut tick = tokio::time::interval(self.ttl / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for renewal in 1u64.. {
            tokio::select! {
                () = released.cancelled() => {
                    let _ = self.table.delete(&self.key, Some(revision)).await;
                    return;
                }
                Some(question) = questions.next() => {
                    if let Some(reply) = question.reply {
                        let _ = self.bus.publish(&reply, &Headers::new(), Bytes::from_static(b"held")).await;
                    }
                    continue;
                }
                _ = tick.tick() => {}
            }
            let now = tokio::time::Instant::now();
            match self
                .table
                .update(&self.key, value(&self.holder, renewal), revision, Some(self.ttl))
                .await
            {
                Ok(next) => (revision, renewed) = (next, now),
                Err(TableError::Conflict) => match self.table.get(&self.key).await {
                    // A renewal whose acknowledgement was lost is still ours.
                    Ok(Some(entry))
                        if is_same_holder(
                            &entry,
                            &Entry {
                                revision: 0,
                                value: value(&self.holder, 0),
                            },
                        ) =>
                    {
                        (revision, renewed) = (entry.revision, now);
                    }
                    Ok(_) => return,
                    Err(_) => {}
                },
                Err(_) => {}
            }
            if renewed.elapsed() >= self.ttl {
                return;
            }
        }
    }
}
