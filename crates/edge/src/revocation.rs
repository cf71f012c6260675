//! Revoked users and tokens, as the bucket REVOKED has them.

use std::collections::HashSet;
use std::sync::Arc;

use carillon_bus::{Bucket, Change};
use carillon_protocol::message::Revoked;
use parking_lot::RwLock;

use crate::hub::Hub;
use crate::user::User;

/// Everything that is revoked now.
#[derive(Default)]
pub(crate) struct Revocations(RwLock<HashSet<String>>);

impl Revocations {
    /// Returns whether a user's token is void.
    pub(crate) fn covers(&self, user: &User) -> bool {
        let revoked = self.0.read();
        if revoked.is_empty() {
            return false;
        }
        let by_user = user
            .id()
            .is_some_and(|id| revoked.contains(&format!("user.{id}")));
        by_user
            || user
                .token_id
                .as_ref()
                .is_some_and(|id| revoked.contains(&format!("jti.{id}")))
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
        let mut keys: std::collections::HashMap<String, Revoked> = std::collections::HashMap::new();
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
                    self.revoke(&revoked);
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

    /// Notes a revocation, and disconnects whom it concerns.
    pub(crate) fn revoke(self: &Arc<Self>, revoked: &Revoked) {
        self.revocations.0.write().extend(names(revoked));
        for namespace in self.namespaces() {
            for session in namespace.sessions() {
                if self.revocations.covers(&session.user.load()) {
                    let (hub, session) = (Arc::clone(self), Arc::clone(&session));
                    tokio::spawn(async move { hub.disconnect(&session, "revoked").await });
                }
            }
        }
    }

    fn restore(&self, revoked: &Revoked) {
        let mut all = self.revocations.0.write();
        for name in names(revoked) {
            all.remove(&name);
        }
    }
}
