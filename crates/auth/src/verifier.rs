//! Is a token good, and whose is it?

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::claims::{ClaimRules, Claims, InvalidToken};
use crate::clock::{Clock, SystemClock};
use crate::compact::Compact;
use crate::config::{Config, ConfigError};
use crate::credentials::Credential;
use crate::identity::Identity;
use crate::jwks::FetchError;
use crate::keyring::Keyring;

/// Checks tokens with the configured keys; clones share them.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    keyring: Keyring,
    rules: ClaimRules,
    clock: Arc<dyn Clock>,
}

/// Why a client is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No token was shown.
    #[error("a token is required")]
    Missing,
    /// The token is bad.
    #[error("the token is invalid")]
    Invalid(#[from] InvalidToken),
    /// The token was good once.
    #[error("the token has expired")]
    Expired,
    /// A key set that is needed cannot be reached, so that nothing is known about the token.
    #[error("the keys for the token are unavailable")]
    Unavailable(#[from] FetchError),
}

impl Verifier {
    /// Reads the configured keys; key sets are fetched when a token needs them.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// Like [`Verifier::new`], with another clock.
    pub fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        config.check()?;
        let keyring = Keyring::new(config, &clock)?;
        let rules = ClaimRules::new(config);
        Ok(Self {
            inner: Arc::new(Inner {
                keyring,
                rules,
                clock,
            }),
        })
    }

    /// Returns the user of a token, at the clock's time.
    pub async fn verify(&self, token: &str) -> Result<Identity, VerifyError> {
        self.verify_at(token, self.inner.clock.unix_seconds()).await
    }

    /// Returns the user of a token at a time in seconds since 1970.
    pub async fn verify_at(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        let claims = self.checked_claims(token, now).await?;
        Ok(self.inner.rules.identity(claims)?)
    }

    /// Returns the user of what [`credentials::find`](crate::credentials::find) found.
    pub async fn verify_credential(
        &self,
        credential: Option<&Credential<'_>>,
    ) -> Result<Identity, VerifyError> {
        let token = credential
            .ok_or(VerifyError::Missing)?
            .token()
            .ok_or(InvalidToken::Malformed)?;
        self.verify(token).await
    }

    /// Returns how long after its `exp` a token is still accepted.
    pub fn leeway(&self) -> Duration {
        self.inner.rules.leeway
    }

    /// Returns the claims of a genuine and timely token, which need not name a user, and the user.
    pub(crate) async fn claims(
        &self,
        token: &str,
    ) -> Result<(Map<String, Value>, Option<Arc<str>>), VerifyError> {
        let claims = self
            .checked_claims(token, self.inner.clock.unix_seconds())
            .await?;
        let user = self.inner.rules.user(&claims)?;
        Ok((claims.values, user))
    }

    async fn checked_claims(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        let token = Compact::parse(token)?;
        self.inner.keyring.authenticate(&token).await?;
        let claims = token.claims()?;
        self.inner.rules.check(&claims, now)?;
        Ok(claims)
    }
}
