//! Revoked users and tokens, as the bucket REVOKED has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Bucket, Change};
use carillon_protocol::ids::Sid;
use carillon_protocol::message::Revoked;
use parking_lot::RwLock;

use crate::hub::Hub;
use crate::user::User;

/// How long connections may take to end before the answer says how many there were.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that is revoked now.
#[derive(Default)]
pub(crate) struct Revocations(RwLock<HashMap<String, Ended>>);

/// The connections that a revocation ended here.
#[derive(Default)]
struct Ended {
    /// Tells revocations of the same name apart.
    at: u64,
    sids: HashSet<Sid>,
}

impl Revocations {
    /// Returns whether a user's token is void.
    pub(crate) fn covers(&self, user: &User) -> bool {
        let revoked = self.0.read();
        if revoked.is_empty() {
            return false;
        }
        let by_user = user
            .id()
            .is_some_and(|id| revoked.contains_key(&format!("user.{id}")));
        by_user
            || user
                .token_id
                .as_ref()
                .is_some_and(|id| revoked.contains_key(&format!("jti.{id}")))
    }

    /// Notes a revocation; the bucket and a router both tell it.
    fn note(&self, revoked: &Revoked) {
        let mut all = self.0.write();
        for name in names(revoked) {
            let ended = all.entry(name).or_default();
            if ended.at != revoked.at {
                *ended = Ended {
                    at: revoked.at,
                    sids: HashSet::new(),
                };
            }
        }
    }

    /// Notes that a revocation ends a connection; `true` for the first caller, who has to do it.
    fn takes(&self, revoked: &Revoked, sid: Sid) -> bool {
        let Some(name) = names(revoked).next() else {
            return true;
        };
        let mut all = self.0.write();
        all.get_mut(&name).is_none_or(|ended| ended.sids.insert(sid))
    }

    fn count(&self, revoked: &Revoked) -> usize {
        let all = self.0.read();
        let ended = names(revoked).next().and_then(|name| all.get(&name));
        ended.map_or(0, |ended| ended.sids.len())
    }
}

fn names(revoked: &Revoked) -> impl Iterator<Item = String> {
    let user = revoked.user.iter().map(|user| format!("user.{user}"));
    user.chain(revoked.jti.iter().map(|jti| format!("jti.{jti}")))
}

impl Hub {
    /// Follows the bucket until the edge stops; the gate is released once it is loaded.
    pub(crate) async fn follow_revocations(self: Arc<Self>, gate: carillon_service::readiness::Gate) {
        let mut gate = Some(gate);
        let mut watch = self.bus.table(Bucket::Revoked).watch();
        // What a key stands for, since a key that is gone comes without its value.
        let mut keys: HashMap<String, Revoked> = HashMap::new();
        let mut seen: HashSet<String> = HashSet::new();
        loop {
            let change = tokio::select! {
                () = self.stop.cancelled() => return,
                change = watch.next() => change,
            };
            match change {
                Change::Put { key, value, .. } => {
                    let Ok(revoked) = serde_json::from_slice::<Revoked>(&value) else {
                        continue;
                    };
                    seen.insert(key.clone());
                    // Noted at once, since a removal may be the next change.
                    self.revocations.note(&revoked);
                    let (hub, told) = (Arc::clone(&self), revoked.clone());
                    tokio::spawn(async move { hub.revoke(&told).await });
                    keys.insert(key, revoked);
                }
                Change::Gone { key, .. } => {
                    if let Some(revoked) = keys.remove(&key) {
                        self.restore(&revoked);
                    }
                }
                Change::Restarted => seen.clear(),
                Change::Loaded => {
                    let gone: Vec<String> = keys.keys().filter(|key| !seen.contains(*key)).cloned().collect();
                    for revoked in gone.iter().filter_map(|key| keys.remove(key)) {
                        self.restore(&revoked);
                    }
                    gate.take();
                }
            }
        }
    }

    /// Notes a revocation and disconnects whom it concerns; returns how many connections it has ended here.
    pub(crate) async fn revoke(self: &Arc<Self>, revoked: &Revoked) -> usize {
        self.revocations.note(revoked);
        let sessions = self
            .namespaces()
            .iter()
            .flat_map(|namespace| namespace.sessions());
        let concerned: Vec<_> = sessions
            .filter(|session| self.revocations.covers(&session.user.load()))
            .collect();
        let ends = concerned.iter().map(|session| async move {
            if self.revocations.takes(revoked, session.sid) {
                self.disconnect(session, "revoked").await;
            }
            while !session.has_ended() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let _ = tokio::time::timeout(PATIENCE, futures_util::future::join_all(ends)).await;
        self.revocations.count(revoked)
    }

    fn restore(&self, revoked: &Revoked) {
        let mut all = self.revocations.0.write();
        for name in names(revoked) {
            all.remove(&name);
        }
    }
}
