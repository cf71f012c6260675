use std::time::Duration;

use serde::Deserialize;

use crate::config::duration;

/// `[session]`: how long a client may be away.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// A client that returns within this time is recovered, and its user is not offline before it.
    #[serde(with = "duration")]
    pub recovery: Duration,
    /// Age at which an edge's lease counts as lost.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often an edge renews its lease.
    #[serde(with = "duration")]
    pub renewal: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            recovery: Duration::from_secs(120),
            lease: Duration::from_secs(12),
            renewal: Duration::from_secs(2),
        }
    }
}
