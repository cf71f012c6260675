//! API keys, of which only hashes are kept.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{ApiKeyConfig, ConfigError};

/// What a caller of the HTTP APIs may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read and change who is connected and in which room; includes `read`.
    Admin,
    /// Read who is connected and in which room.
    Read,
}

impl Scope {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "publish" => Some(Self::Publish),
            "admin" => Some(Self::Admin),
            "read" => Some(Self::Read),
            _ => None,
        }
    }
}

/// A key with what it allows.
pub(crate) struct ApiKey {
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) namespaces: Vec<String>,
    hash: [u8; 32],
}

/// All configured API keys.
pub(crate) struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    pub(crate) fn new(keys: &[ApiKeyConfig]) -> Result<Self, ConfigError> {
        let keys = keys
            .iter()
            .enumerate()
            .map(|(index, key)| ApiKey::new(key, &format!("auth.api_keys[{index}]")));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the key that was shown. Every key is compared in full, so that the time tells nothing.
    pub(crate) fn find(&self, shown: &[u8]) -> Option<&ApiKey> {
        let hash: [u8; 32] = Sha256::digest(shown).into();
        self.0.iter().fold(None, |found, key| {
            let matches = bool::from(key.hash.ct_eq(&hash));
            if matches { Some(key) } else { found }
        })
    }
}

impl ApiKey {
    fn new(config: &ApiKeyConfig, path: &str) -> Result<Self, ConfigError> {
        let hash = match (&config.key, &config.key_sha256) {
            (Some(key), None) if key.expose().is_empty() => {
                return Err(ConfigError::new(
                    format!("{path}.key"),
                    "expected a key that is not empty",
                ));
            }
            (Some(key), None) => Sha256::digest(key.expose()).into(),
            (None, Some(hex)) => sha256_from_hex(hex).ok_or_else(|| {
                ConfigError::new(format!("{path}.key_sha256"), "expected 64 hexadecimal digits")
            })?,
            _ => {
                return Err(ConfigError::new(
                    path,
                    "expected exactly one of key_sha256 and key",
                ));
            }
        };
        if config.name.is_empty() {
            return Err(ConfigError::new(format!("{path}.name"), "expected a name"));
        }
        if config.scopes.is_empty() {
            return Err(ConfigError::new(
                format!("{path}.scopes"),
                "expected publish, admin or read",
            ));
        }
        if !config
            .namespaces
            .iter()
            .all(|namespace| namespace.starts_with('/'))
        {
            let problem = "expected namespaces that begin with a slash";
            return Err(ConfigError::new(format!("{path}.namespaces"), problem));
        }
        Ok(Self {
            name: config.name.clone(),
            scopes: config.scopes.clone(),
            namespaces: config.namespaces.clone(),
            hash,
        })
    }
}

fn sha256_from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |index: usize| {
            char::from(digits[index])
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf dev-key | sha256sum
    const DEV_KEY_SHA256: &str = "7e9f8fd111802be56c379d597842e29b2cebd35ff2133d431a49fa556a18704e";

    fn config() -> ApiKeyConfig {
        ApiKeyConfig {
            name: "orders".to_owned(),
            key_sha256: None,
            key: Some("dev-key".into()),
            scopes: vec![Scope::Publish],
            namespaces: Vec::new(),
        }
    }

    #[test]
    fn a_stored_hash_is_that_of_the_key() {
        for hex in [DEV_KEY_SHA256.to_owned(), DEV_KEY_SHA256.to_uppercase()] {
            let stored = ApiKeyConfig {
                key: None,
                key_sha256: Some(hex),
                ..config()
            };
            let keys = ApiKeys::new(&[stored]).unwrap();
            assert_eq!(keys.find(b"dev-key").map(|key| key.name.as_str()), Some("orders"));
            assert!(keys.find(b"dev-kez").is_none());
            assert!(keys.find(b"").is_none());
            assert!(keys.find(DEV_KEY_SHA256.as_bytes()).is_none());
        }
    }

    #[test]
    fn finds_the_right_one_of_several() {
        let other = ApiKeyConfig {
            name: "mail".to_owned(),
            key: Some("other".into()),
            ..config()
        };
        let keys = ApiKeys::new(&[config(), other]).unwrap();
        assert_eq!(keys.find(b"dev-key").map(|key| key.name.as_str()), Some("orders"));
        assert_eq!(keys.find(b"other").map(|key| key.name.as_str()), Some("mail"));
    }

    #[test]
    fn refuses_keys_that_cannot_work() {
        let hash = |text: &str| ApiKeyConfig {
            key: None,
            key_sha256: Some(text.to_owned()),
            ..config()
        };
        for (key, path) in [
            (
                ApiKeyConfig {
                    key: None,
                    ..config()
                },
                "auth.api_keys[0]",
            ),
            (
                ApiKeyConfig {
                    key_sha256: Some(DEV_KEY_SHA256.to_owned()),
                    ..config()
                },
                "auth.api_keys[0]",
            ),
            (
                ApiKeyConfig {
                    key: Some("".into()),
                    ..config()
                },
                "auth.api_keys[0].key",
            ),
            (hash("abc"), "auth.api_keys[0].key_sha256"),
            (hash(&"g".repeat(64)), "auth.api_keys[0].key_sha256"),
            (hash(&"é".repeat(32)), "auth.api_keys[0].key_sha256"),
            (
                ApiKeyConfig {
                    name: String::new(),
                    ..config()
                },
                "auth.api_keys[0].name",
            ),
            (
                ApiKeyConfig {
                    scopes: Vec::new(),
                    ..config()
                },
                "auth.api_keys[0].scopes",
            ),
            (
                ApiKeyConfig {
                    namespaces: vec!["chat".to_owned()],
                    ..config()
                },
                "auth.api_keys[0].namespaces",
            ),
        ] {
            assert_eq!(ApiKeys::new(&[key]).err().unwrap().key, path);
        }
    }
}
