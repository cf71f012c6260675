//! Why a service is not ready; each reason is held by a value and ends when that is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The reasons for which a service is not ready; ready when there are none.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Each reason with the number of gates that hold it.
    reasons: Arc<watch::Sender<BTreeMap<&'static str, usize>>>,
}

/// Keeps a service from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "a gate that is dropped holds nothing"]
pub struct Gate {
    reason: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// A service without a reason not to be ready.
    pub fn new() -> Self {
        Self {
            reasons: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// Holds readiness back for a reason such as `nats`, `resync` or `draining`.
    pub fn hold(&self, reason: &'static str) -> Gate {
        self.reasons
            .send_modify(|reasons| *reasons.entry(reason).or_default() += 1);
        Gate {
            reason,
            readiness: self.clone(),
        }
    }

    /// Tells whether nothing holds readiness back.
    pub fn is_ready(&self) -> bool {
        self.reasons.borrow().is_empty()
    }

    /// What holds readiness back, in the order of the names.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.reasons.borrow().keys().copied().collect()
    }

    /// Waits until nothing holds readiness back.
    pub async fn wait_ready(&self) {
        let mut changes = self.reasons.subscribe();
        // The sender lives as long as `self`, so this ends with readiness alone.
        let _ = changes.wait_for(BTreeMap::is_empty).await;
    }

    /// Waits until something holds readiness back.
    pub async fn wait_not_ready(&self) {
        let mut changes = self.reasons.subscribe();
        let _ = changes.wait_for(|reasons| !reasons.is_empty()).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.readiness.reasons.send_modify(|reasons| {
            if let Some(held) = reasons.get_mut(self.reason) {
                *held -= 1;
                if *held == 0 {
                    reasons.remove(self.reason);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_gate_must_fall() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (first, second) = (readiness.hold("nats"), readiness.hold("nats"));
        let draining = readiness.hold("draining");
        assert_eq!(readiness.reasons(), ["draining", "nats"]);
        drop(first);
        assert_eq!(readiness.reasons(), ["draining", "nats"]);
        drop(second);
        assert_eq!(readiness.reasons(), ["draining"]);

        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        drop(draining);
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
        assert!(readiness.is_ready());
    }
}
