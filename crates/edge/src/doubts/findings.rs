//! What edges have found, as the bucket CLUSTER keeps it, and whether they live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_bus::history::now;
use carillon_bus::{Bucket, HistoryError, Limit, TableError};
use carillon_protocol::doubt::{Findings, Lack};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::Room;
use serde::{Deserialize, Serialize};

use super::MOST;
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::repair::PATIENCE;

/// Where each edge writes that it lives.
const ALIVE: &str = "alive.";
/// How often an edge writes that it lives.
const TELL: Duration = Duration::from_secs(5);
/// Pause between two looks at the findings of others.
const LOOK: Duration = Duration::from_millis(50);
/// In milliseconds: an edge that wrote nothing for so long was dead then. It writes that it lives every few seconds, and
/// clocks differ a little.
pub(super) const SILENT: u64 = 15_000;
/// For so long an edge that is silent is waited for: NATS may have been away.
const HOPE: u64 = 60_000;

/// That an edge lives, beside its findings, which may be many.
#[derive(Serialize, Deserialize)]
struct Alive {
    edge: EdgeId,
    /// Milliseconds since 1970.
    at: u64,
}

/// Whose word counts for a client that comes back.
pub(crate) enum Former<'a> {
    /// The client was at these edges.
    Edges(&'a [EdgeId]),
    /// It may have been at any.
    Any,
}

impl Hub {
    /// Returns the findings of all edges, once those that live have looked at a doubt. Where some have not in time, the
    /// time is left out for those that live.
    pub(super) async fn findings_of_all(
        &self,
        namespace: &Namespace,
        doubt: u64,
    ) -> Result<Vec<Findings>, HistoryError> {
        let deadline = Instant::now() + PATIENCE;
        let mut findings = loop {
            let findings = self.read_findings(namespace).await?.to_vec();
            let now = now();
            let waits = |findings: &Findings| {
                findings.through < doubt && findings.at.is_some_and(|at| at + HOPE >= now)
            };
            if !findings.iter().any(waits) {
                return Ok(findings);
            }
            if Instant::now() >= deadline {
                break findings;
            }
            tokio::time::sleep(LOOK).await;
        };
        let leases = self.bus.table(Bucket::Edges).entries().await?;
        let living: HashSet<EdgeId> = leases.iter().filter_map(|(key, _)| key.parse().ok()).collect();
        for findings in &mut findings {
            if findings.edge.is_some_and(|edge| living.contains(&edge)) {
                findings.at = None;
            }
        }
        Ok(findings)
    }

    /// Reads the findings of all edges; who asks while others wait for the same shares what they get.
    async fn read_findings(&self, namespace: &Namespace) -> Result<Arc<[Findings]>, HistoryError> {
        let asked = Instant::now();
        let mut read = namespace.doubts.findings.lock().await;
        if let Some((begun, findings)) = &*read
            && *begun >= asked
        {
            return Ok(Arc::clone(findings));
        }
        let begun = Instant::now();
        let table = self.bus.table(Bucket::Cluster);
        let entries = table.all(&key(namespace, "*")).await;
        let entries = entries.map_err(|_| HistoryError::Away)?;
        let alive = table
            .all(&format!("{ALIVE}*"))
            .await
            .map_err(|_| HistoryError::Away)?;
        let alive = alive
            .iter()
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok());
        let alive: HashMap<EdgeId, u64> = alive.map(|Alive { edge, at }| (edge, at)).collect();
        let findings = entries.iter().map(|entry| {
            let mut findings: Findings = serde_json::from_slice(&entry.value).unwrap_or_default();
            let later = findings.edge.and_then(|edge| alive.get(&edge));
            findings.at = findings.at.map(|at| at.max(later.copied().unwrap_or(0)));
            findings
        });
        let findings: Arc<[Findings]> = findings.collect();
        *read = Some((begun, Arc::clone(&findings)));
        Ok(findings)
    }

    /// Writes down that this edge lives, until it stops: whoever asks for its findings waits for them.
    pub(crate) async fn tell_alive(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TELL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.write_alive().await;
        }
    }

    async fn write_alive(&self) {
        let alive = Alive {
            edge: self.id,
            at: now(),
        };
        let value = serde_json::to_vec(&alive).expect("an id and a number are JSON");
        let table = self.bus.table(Bucket::Cluster);
        let key = format!("{ALIVE}{}", self.id);
        if let Err(error) = table.put(&key, value.into(), Some(self.memory())).await {
            tracing::debug!(%error, "that this edge lives cannot be written, the next time it will be");
        }
    }

    /// Writes down that this edge has looked at every doubt up to a sequence, and what it had missed.
    pub(crate) async fn write_findings(&self, namespace: &Namespace, through: u64) {
        let memory = self.memory();
        let findings = namespace.doubts.looked(self.id, through, memory);
        let value = serde_json::to_vec(&findings).expect("findings are JSON");
        let written = self
            .bus
            .table(Bucket::Cluster)
            .put(&key(namespace, self.id.as_str()), value.into(), Some(memory))
            .await;
        if let Err(error) = written {
            tracing::debug!(%error, "findings cannot be written, the next ones will be");
        }
    }

    /// Reads the doubts that came while nobody listened; all rooms were compared with the stream since.
    pub(crate) async fn catch_up_with_doubts(
        &self,
        namespace: &Namespace,
        up_to: u64,
    ) -> Result<(), HistoryError> {
        let subject = self.bus.subjects().doubts(&namespace.name);
        let read = namespace.doubts.known.lock().read;
        let last = self
            .bus
            .last(&namespace.stream.name, std::slice::from_ref(&subject), 0);
        let Some(last) = last.await?.first().map(|last| last.sequence.min(up_to)) else {
            return Ok(());
        };
        let limit = Limit {
            messages: MOST,
            ..Limit::NONE
        };
        let stored = self
            .bus
            .read(&namespace.stream.name, &subject, read, last, limit)
            .await?
            .messages;
        let mut known = namespace.doubts.known.lock();
        for message in stored {
            if let Ok(doubt) = serde_json::from_slice(&message.body) {
                known
                    .doubts
                    .entry(message.sequence)
                    .or_insert_with(|| (Instant::now(), Arc::new(doubt)));
            }
        }
        known.read = known.read.max(last);
        Ok(())
    }

    /// Returns what a client that comes back with an offset may lack below it.
    pub(crate) async fn lacks(
        &self,
        namespace: &Namespace,
        rooms: &[Room],
        offset: u64,
        former: Former<'_>,
    ) -> Result<Vec<Lack>, TableError> {
        let table = self.bus.table(Bucket::Cluster);
        let findings = match former {
            Former::Edges([]) => return Ok(Vec::new()),
            Former::Edges(edges) => {
                let mut findings = Vec::new();
                for edge in edges {
                    let entry = table.get(&key(namespace, edge.as_str())).await?;
                    let read = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
                    // The client was there, so the edge lived.
                    findings.push(Findings {
                        at: None,
                        ..read.unwrap_or_default()
                    });
                }
                findings
            }
            Former::Any => {
                let doubt = namespace.doubts.last(rooms, offset).unwrap_or(0);
                self.findings_of_all(namespace, doubt)
                    .await
                    .map_err(|_| TableError::Away)?
            }
        };
        let mut lacks = Vec::new();
        for findings in findings {
            lacks.extend(namespace.doubts.lacks(rooms, offset, &findings));
            let late = findings
                .late
                .into_iter()
                .filter(|lack| lack.concerns(offset) && rooms.contains(&lack.room));
            lacks.extend(late);
        }
        Ok(lacks)
    }

    /// How long doubts and findings matter: a client that was away for longer begins anew.
    fn memory(&self) -> Duration {
        self.session.recovery * 2 + Duration::from_secs(60)
    }
}

/// Returns whether an edge may have delivered something at a time, in milliseconds since 1970.
pub(super) fn may_have_lived(findings: &Findings, time: u64) -> bool {
    findings.at.is_none_or(|at| at + SILENT >= time)
}

/// The key of an edge's findings; the namespace's token may hold what a key may not.
pub(super) fn key(namespace: &Namespace, edge: &str) -> String {
    use base64::Engine;

    let name = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(namespace.name.as_str());
    format!("findings.{name}.{edge}")
}
