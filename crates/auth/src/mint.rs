//! Tokens for development, signed with a configured secret.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, Family};
use crate::config::Config;
use crate::secret::Secret;

/// What a token shall say.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// The user's id.
    pub user: String,
    /// The user's role.
    pub role: Option<String>,
    /// Further claims; they override all others.
    pub claims: Map<String, Value>,
    /// Time until the token expires; without one it never does.
    pub ttl: Option<Duration>,
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Nothing to sign with is configured.
    #[error("no secret is configured to sign with; public keys and key sets can only verify")]
    NoSecret,
    /// The token could not be signed.
    #[error("the token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Makes a token that this configuration accepts, at a time in seconds since 1970.
pub fn mint(config: &Config, request: &TokenRequest, now: u64) -> Result<String, MintError> {
    let (algorithm, key_id, secret) = signing_secret(config).ok_or(MintError::NoSecret)?;
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set(
        config.id_claims.first().map_or("sub", String::as_str),
        request.user.as_str().into(),
    );
    if let Some(role) = &request.role {
        set(
            config.role_claims.first().map_or("role", String::as_str),
            role.as_str().into(),
        );
    }
    if let Some(issuer) = config.issuer.0.first() {
        set("iss", issuer.as_str().into());
    }
    if let Some(audience) = config.audience.0.first() {
        set("aud", audience.as_str().into());
    }
    set("iat", now.into());
    if let Some(ttl) = request.ttl {
        set("exp", now.saturating_add(ttl.as_secs()).into());
    }
    claims.extend(request.claims.clone());
    let header = Header {
        kid: key_id.map(str::to_owned),
        ..Header::new(algorithm.for_signing())
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

fn signing_secret(config: &Config) -> Option<(Algorithm, Option<&str>, &Secret)> {
    let short_form = config
        .secret
        .as_ref()
        .map(|secret| (Algorithm::Hs256, None, secret));
    short_form.or_else(|| {
        config.keys.iter().find_map(|key| {
            let algorithm = key.algorithm.unwrap_or(Algorithm::Hs256);
            let secret = key
                .secret
                .as_ref()
                .filter(|_| algorithm.family() == Family::Hmac)?;
            Some((algorithm, key.id.as_deref(), secret))
        })
    })
}
