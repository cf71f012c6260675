use serde::Deserialize;

use crate::config::bytes;

/// `[events]`: limits of an event on its way in.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Largest body of an event, with the copies of a list counted once.
    #[serde(with = "bytes")]
    pub max_bytes: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024,
        }
    }
}
