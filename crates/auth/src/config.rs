//! The `[auth]` section of the configuration.

mod duration;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::algorithm::Algorithm;
use crate::api_key::Scope;
use crate::secret::Secret;

/// Which tokens and API keys are accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Shared secrets, public keys and key sets, in any number.
    pub keys: Vec<KeyConfig>,
    /// Short form of one more key: an HS256 secret.
    pub secret: Option<Secret>,
    /// Accepted values of `iss`; with none, `iss` is not looked at.
    pub issuer: OneOrMany,
    /// Accepted values of `aud`, one of which must be among the token's; with none, any `aud` passes.
    pub audience: OneOrMany,
    /// Name of the cookie that may hold a token.
    pub cookie: String,
    /// Claims that may hold the user's id; the first present counts.
    pub id_claims: Vec<String>,
    /// Claims that may hold the user's role; the first present counts.
    pub role_claims: Vec<String>,
    /// Claims that may hold the user's name; the first present counts.
    pub name_claims: Vec<String>,
    /// Allowed difference between this clock and the issuer's.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leeway: Duration,
    /// Age at which a key set is fetched again in the background.
    #[serde(deserialize_with = "duration::deserialize")]
    pub jwks_refresh: Duration,
    /// What a client without a token is told.
    pub missing_text: String,
    /// What a client with a bad or expired token is told.
    pub invalid_text: String,
    /// Keys for the HTTP APIs.
    pub api_keys: Vec<ApiKeyConfig>,
}

/// One source of keys: exactly one of `secret`, `public_key`, `public_key_file` and `jwks_url`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyConfig {
    /// The `kid` of tokens that this key signs.
    pub id: Option<String>,
    /// The key's algorithm: HS256 by default for a secret, required for a public key. For a key set it
    /// restricts the set to one algorithm.
    pub algorithm: Option<Algorithm>,
    /// A shared secret.
    pub secret: Option<Secret>,
    /// A public key in PEM.
    pub public_key: Option<String>,
    /// A file with a public key in PEM.
    pub public_key_file: Option<PathBuf>,
    /// The address of a JSON Web Key Set.
    pub jwks_url: Option<String>,
}

/// One API key: exactly one of `key_sha256` and `key`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Who uses the key, for logs.
    pub name: String,
    /// The SHA-256 of the key, in hex.
    #[serde(default)]
    pub key_sha256: Option<String>,
    /// The key itself, for development; it is hashed when loaded.
    #[serde(default)]
    pub key: Option<Secret>,
    /// What the key may do.
    pub scopes: Vec<Scope>,
    /// The namespaces in which it may do it; empty is all.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// A list that may be written as a single string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrManyForm")]
pub struct OneOrMany(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrManyForm {
    One(String),
    Many(Vec<String>),
}

/// A setting that cannot be used, with the key that holds it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The path of the setting, such as `auth.keys[0].algorithm`.
    pub key: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

impl Config {
    /// Tells whether any token could be accepted.
    pub fn has_token_keys(&self) -> bool {
        self.secret.is_some() || !self.keys.is_empty()
    }

    /// Checks what needs no file and no network.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.id_claims.is_empty() {
            return Err(ConfigError::new("auth.id_claims", "expected at least one claim"));
        }
        if self.cookie.is_empty() || !self.cookie.bytes().all(is_cookie_name_byte) {
            return Err(ConfigError::new("auth.cookie", "expected a cookie name"));
        }
        if self.jwks_refresh.is_zero() {
            return Err(ConfigError::new("auth.jwks_refresh", "expected more than zero"));
        }
        Ok(())
    }
}

/// RFC 6265 makes a cookie's name a token of RFC 2616.
fn is_cookie_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

impl Default for Config {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Self {
            keys: Vec::new(),
            secret: None,
            issuer: OneOrMany::default(),
            audience: OneOrMany::default(),
            cookie: "token".to_owned(),
            id_claims: names(&["sub", "userId", "id"]),
            role_claims: names(&["role", "rol"]),
            name_claims: names(&["name", "nombre"]),
            leeway: Duration::from_secs(30),
            jwks_refresh: Duration::from_secs(10 * 60),
            missing_text: "Authentication required".to_owned(),
            invalid_text: "Invalid token".to_owned(),
            api_keys: Vec::new(),
        }
    }
}

impl From<OneOrManyForm> for OneOrMany {
    fn from(form: OneOrManyForm) -> Self {
        match form {
            OneOrManyForm::One(value) => Self(vec![value]),
            OneOrManyForm::Many(values) => Self(values),
        }
    }
}

impl From<&str> for OneOrMany {
    fn from(value: &str) -> Self {
        Self(vec![value.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_setting() {
        let config: Config = toml::from_str(
            r#"
            secret = "s"
            issuer = "https://issuer"
            audience = ["a", "b"]
            cookie = "jwt"
            id_claims = ["email"]
            leeway = "5s"
            jwks_refresh = 60
            missing_text = "No autorizado"
            [[keys]]
            id = "k1"
            algorithm = "EdDSA"
            public_key_file = "key.pem"
            [[keys]]
            jwks_url = "https://issuer/jwks"
            [[api_keys]]
            name = "orders"
            key = "k"
            scopes = ["publish", "read"]
            namespaces = ["/chat"]
            "#,
        )
        .unwrap();
        assert_eq!(config.issuer, OneOrMany::from("https://issuer"));
        assert_eq!(config.audience.0, ["a", "b"]);
        assert_eq!(config.leeway, Duration::from_secs(5));
        assert_eq!(config.jwks_refresh, Duration::from_secs(60));
        assert_eq!(config.keys[0].algorithm, Some(Algorithm::EdDsa));
        assert_eq!(config.api_keys[0].scopes, [Scope::Publish, Scope::Read]);
        assert_eq!(config.invalid_text, "Invalid token");
        assert!(config.check().is_ok());
    }

    #[test]
    fn refuses_unknown_keys_and_wrong_types() {
        for text in [
            "secrets = 'x'",
            "secret = 7",
            "issuer = 7",
            "audience = [7]",
            "leeway = '5 parsecs'",
            "keys = [{ algorithm = 'none', secret = 'x' }]",
            "keys = [{ algorithm = 'PS256', secret = 'x' }]",
            "keys = [{ hmac = 'x' }]",
            "api_keys = [{ name = 'x', key = 'y', scopes = ['root'] }]",
            "api_keys = [{ name = 'x', key = 'y' }]",
        ] {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_the_setting_that_contradicts() {
        for (text, key) in [
            ("id_claims = []", "auth.id_claims"),
            ("cookie = ''", "auth.cookie"),
            ("cookie = 'a b'", "auth.cookie"),
            ("jwks_refresh = 0", "auth.jwks_refresh"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert_eq!(config.check().unwrap_err().key, key);
        }
    }
}
