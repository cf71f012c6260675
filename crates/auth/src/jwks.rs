//! A key set kept from a URL.
//!
//! Keys are fetched when the first token needs them, again in the background once they are old, and again
//! for a key id that is unknown. At most one fetch runs at a time and whoever needs it waits for the same
//! one. A set that was fetched once is served for as long as its issuer cannot be reached, but what it does not
//! hold is then not called unknown.

mod document;
mod fetch;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Url;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use crate::algorithm::{Algorithm, Family};
use crate::clock::Clock;
use crate::key::Key;

pub use fetch::FetchError;
use pace::Pace;

/// The keys of one URL.
pub(crate) struct Jwks {
    source: fetch::Source,
    only: Option<Algorithm>,
    refresh: Duration,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<KeySet>,
    /// Held while a fetch runs, by its task.
    pace: Arc<Mutex<Pace>>,
}

/// The usable keys of one fetch.
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Key>,
    fetched: Duration,
}

impl Jwks {
    pub(crate) fn new(
        url: Url,
        only: Option<Algorithm>,
        refresh: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            source: fetch::Source::new(url)?,
            only,
            refresh,
            clock,
            current: ArcSwapOption::empty(),
            pace: Arc::default(),
        })
    }

    /// Tells whether the set may hold keys of this algorithm.
    pub(crate) fn may_hold(&self, algorithm: Algorithm) -> bool {
        algorithm.family() != Family::Hmac && self.only.is_none_or(|only| only == algorithm)
    }

    /// Returns the keys at hand, and starts a refresh if they are old.
    pub(crate) fn cached(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let current = self.current.load_full()?;
        let now = self.clock.monotonic();
        if now.saturating_sub(current.fetched) >= self.refresh
            && let Ok(pace) = Arc::clone(&self.pace).try_lock_owned()
            && pace.recent_failure(now).is_none()
        {
            self.start_fetch(pace);
        }
        Some(current)
    }

    /// Returns keys newer than `seen` for a token that those did not verify, `None` if there are none.
    ///
    /// Without an answer to the latest fetch nobody knows whether there are any: that is an error.
    pub(crate) async fn newer(
        self: &Arc<Self>,
        seen: Option<&Arc<KeySet>>,
        key_id: &str,
    ) -> Result<Option<Arc<KeySet>>, FetchError> {
        let mut pace = Arc::clone(&self.pace).lock_owned().await;
        let current = self.current.load_full();
        if let Some(keys) = &current
            && seen.is_none_or(|seen| !Arc::ptr_eq(seen, keys))
        {
            return Ok(current);
        }
        let now = self.clock.monotonic();
        if let Some(failure) = pace.recent_failure(now) {
            return Err(failure.clone());
        }
        if current.is_some() && !pace.is_failing() && !pace.may_ask_for(key_id, now) {
            return Ok(None);
        }
        pace.asking_for(current.is_some().then_some(key_id));
        self.start_fetch(pace)
            .await
            .unwrap_or(Err(FetchError::Interrupted))
            .map(Some)
    }

    /// Fetches in a task of its own, so that a client that leaves does not stop what others wait for.
    fn start_fetch(
        self: &Arc<Self>,
        mut pace: OwnedMutexGuard<Pace>,
    ) -> JoinHandle<Result<Arc<KeySet>, FetchError>> {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let result = this.source.fetch(this.only).await;
            let now = this.clock.monotonic();
            match result {
                Ok(keys) => {
                    let keys = Arc::new(KeySet { keys, fetched: now });
                    this.current.store(Some(Arc::clone(&keys)));
                    pace.succeeded(now);
                    Ok(keys)
                }
                Err(error) => {
                    tracing::warn!(url = %this.source, %error, "key set could not be fetched");
                    pace.failed(now, error.clone());
                    Err(error)
                }
            }
        })
    }
}
