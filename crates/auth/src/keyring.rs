//! All keys of the configuration, and which of them a token is tried with.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::algorithm::Algorithm;
use crate::claims::InvalidToken;
use crate::clock::Clock;
use crate::compact::Compact;
use crate::config::{Config, ConfigError, KeyConfig};
use crate::jwks::Jwks;
use crate::key::{Key, KeyError};
use crate::verifier::VerifyError;

/// Fixed keys, and key sets that are fetched when a token needs them.
pub(crate) struct Keyring {
    keys: Vec<Key>,
    sets: Vec<Arc<Jwks>>,
}

/// What a list of keys says about a token.
#[derive(PartialEq, Eq)]
enum Verdict {
    Genuine,
    /// The key that the token names is there and did not sign it.
    Forged,
    /// No key of this name and algorithm is there, and no other signed it.
    UnknownKey,
}

impl Keyring {
    pub(crate) fn new(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        let mut sets = Vec::new();
        if let Some(secret) = &config.secret {
            let key = Key::from_secret(None, Algorithm::Hs256, secret.expose().as_bytes());
            keys.push(key.map_err(|error| ConfigError::new("auth.secret", error.to_string()))?);
        }
        for (index, key) in config.keys.iter().enumerate() {
            let path = format!("auth.keys[{index}]");
            match key.jwks_url.as_deref().filter(|_| key.sources() == 1) {
                Some(url) => sets.push(key_set(url, key, config.jwks_refresh, clock, &path)?),
                None => keys.push(static_key(key, &path)?),
            }
        }
        Ok(Self { keys, sets })
    }

    /// Checks the signature: first with the keys at hand, then with newer ones of the key sets.
    pub(crate) async fn authenticate(&self, token: &Compact<'_>) -> Result<(), VerifyError> {
        if judge(&self.keys, token) == Verdict::Genuine {
            return Ok(());
        }
        let mut undecided = Vec::new();
        for set in self.sets.iter().filter(|set| set.may_hold(token.algorithm)) {
            let seen = set.cached();
            match seen.as_ref().map(|seen| judge(&seen.keys, token)) {
                Some(Verdict::Genuine) => return Ok(()),
                Some(Verdict::Forged) => {}
                // Issuers do not know of each other: what is another's key id may be this one's too.
                Some(Verdict::UnknownKey) | None => undecided.push((set, seen)),
            }
        }
        let key_id = token.key_id.as_deref().unwrap_or_default();
        let mut unavailable = None;
        for (set, seen) in undecided {
            match set.newer(seen.as_ref(), key_id).await {
                Ok(Some(newer)) if judge(&newer.keys, token) == Verdict::Genuine => return Ok(()),
                Ok(_) => {}
                Err(error) => unavailable = Some(error),
            }
        }
        match unavailable {
            Some(error) => Err(VerifyError::Unavailable(error)),
            None => Err(InvalidToken::Signature.into()),
        }
    }
}

fn judge(keys: &[Key], token: &Compact<'_>) -> Verdict {
    let mut named = keys
        .iter()
        .filter(|key| key.id.is_some() && key.id == token.key_id)
        .peekable();
    if named.peek().is_some() {
        let mut verdict = Verdict::UnknownKey;
        for key in named.filter(|key| key.algorithm == token.algorithm) {
            if key.verifies(token) {
                return Verdict::Genuine;
            }
            verdict = Verdict::Forged;
        }
        return verdict;
    }
    if keys.iter().any(|key| key.verifies(token)) {
        Verdict::Genuine
    } else {
        Verdict::UnknownKey
    }
}

fn key_set(
    url: &str,
    key: &KeyConfig,
    refresh: Duration,
    clock: &Arc<dyn Clock>,
    path: &str,
) -> Result<Arc<Jwks>, ConfigError> {
    let url = Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let url =
        url.ok_or_else(|| ConfigError::new(format!("{path}.jwks_url"), "expected an http or https URL"))?;
    if key.id.is_some() {
        return Err(ConfigError::new(
            format!("{path}.id"),
            "a key set brings its own key ids",
        ));
    }
    let set = Jwks::new(url, key.algorithm, refresh, Arc::clone(clock))
        .map_err(|error| ConfigError::new(format!("{path}.jwks_url"), error.to_string()))?;
    if key.algorithm.is_some_and(|algorithm| !set.may_hold(algorithm)) {
        return Err(ConfigError::new(
            format!("{path}.algorithm"),
            KeyError::NotForPublicKeys.to_string(),
        ));
    }
    Ok(Arc::new(set))
}

fn static_key(key: &KeyConfig, path: &str) -> Result<Key, ConfigError> {
    if key.sources() != 1 {
        let problem = "expected exactly one of secret, public_key, public_key_file and jwks_url";
        return Err(ConfigError::new(path, problem));
    }
    let problem = |setting: &str, error: KeyError| {
        let setting = match error {
            KeyError::NotForSecrets | KeyError::NotForPublicKeys => "algorithm",
            _ => setting,
        };
        ConfigError::new(format!("{path}.{setting}"), error.to_string())
    };
    if let Some(secret) = &key.secret {
        let algorithm = key.algorithm.unwrap_or(Algorithm::Hs256);
        return Key::from_secret(key.id.clone(), algorithm, secret.expose().as_bytes())
            .map_err(|error| problem("secret", error));
    }
    let algorithm = key
        .algorithm
        .ok_or_else(|| problem("algorithm", KeyError::NotForPublicKeys))?;
    let (pem, setting) = match (&key.public_key, &key.public_key_file) {
        (Some(pem), _) => (pem.clone(), "public_key"),
        (None, file) => {
            let file = file.clone().unwrap_or_default();
            let pem = std::fs::read_to_string(&file).map_err(|error| {
                ConfigError::new(
                    format!("{path}.public_key_file"),
                    format!("cannot read {}: {error}", file.display()),
                )
            })?;
            (pem, "public_key_file")
        }
    };
    Key::from_pem(key.id.clone(), algorithm, &pem).map_err(|error| problem(setting, error))
}

impl KeyConfig {
    /// Counts the sources that are set, of which there must be one.
    fn sources(&self) -> usize {
        usize::from(self.secret.is_some())
            + usize::from(self.public_key.is_some())
            + usize::from(self.public_key_file.is_some())
            + usize::from(self.jwks_url.is_some())
    }
}
