//! What the claims of a genuine token must say, and whose token it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::identity::Identity;
use crate::verifier::VerifyError;

const MAX_USER_ID_BYTES: usize = 200;

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The token is too long to look at.
    #[error("the token is longer than 16 KiB")]
    TooLarge,
    /// The token is not a compact JWS with JSON objects in it.
    #[error("the token is not well-formed")]
    Malformed,
    /// The header names an algorithm that is not accepted, such as `none`.
    #[error("the algorithm is not accepted")]
    Algorithm,
    /// The header names extensions that must be understood.
    #[error("the token has critical extensions")]
    Critical,
    /// No configured key fits the token, or none that fits signed it.
    #[error("no known key signed the token")]
    Signature,
    /// A claim is missing, or not of its type.
    #[error("the claim {0} is missing or not of its type")]
    Claim(&'static str),
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is not an accepted issuer.
    #[error("the issuer is not accepted")]
    Issuer,
    /// `aud` names no accepted audience.
    #[error("the audience is not accepted")]
    Audience,
    /// The claim with the user's id is missing, or neither a string of 1 to 200 bytes nor an integer.
    #[error("the token has no usable user id")]
    UserId,
}

/// The claims of a genuine token.
pub(crate) struct Claims {
    pub(crate) values: Map<String, Value>,
    /// What the values were read from.
    json: Vec<u8>,
}

impl Claims {
    pub(crate) fn parse(json: Vec<u8>) -> Result<Self, InvalidToken> {
        let values = serde_json::from_slice(&json).map_err(|_| InvalidToken::Malformed)?;
        Ok(Self { values, json })
    }

    /// Reads a string as it is, an integer as its decimal text.
    fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            Value::Number(_) => self.digits(name),
            _ => None,
        }
    }

    /// Reads an integer that is too large for the value of a number to hold all its digits.
    fn digits(&self, name: &str) -> Option<String> {
        let texts: HashMap<String, &RawValue> = serde_json::from_slice(&self.json).ok()?;
        let text = texts.get(name)?.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.to_owned())
    }
}

/// The configured expectations.
pub(crate) struct ClaimRules {
    issuer: Vec<String>,
    audience: Vec<String>,
    id_claims: Vec<String>,
    role_claims: Vec<String>,
    name_claims: Vec<String>,
    pub(crate) leeway: Duration,
}

impl ClaimRules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            issuer: config.issuer.0.clone(),
            audience: config.audience.0.clone(),
            id_claims: config.id_claims.clone(),
            role_claims: config.role_claims.clone(),
            name_claims: config.name_claims.clone(),
            leeway: config.leeway,
        }
    }

    /// Checks issuer, audience and the times; a token is called expired only if all else is right.
    pub(crate) fn check(&self, claims: &Claims, now: u64) -> Result<(), VerifyError> {
        let claims = &claims.values;
        if !self.issuer.is_empty() {
            let issuer = claims
                .get("iss")
                .and_then(Value::as_str)
                .ok_or(InvalidToken::Issuer)?;
            if !self.issuer.iter().any(|accepted| accepted == issuer) {
                return Err(InvalidToken::Issuer.into());
            }
        }
        if !self.audience.is_empty() && !self.is_audience(claims.get("aud")) {
            return Err(InvalidToken::Audience.into());
        }
        let (now, leeway) = (now as f64, self.leeway.as_secs_f64());
        let expires = numeric_date(claims, "exp")?;
        if numeric_date(claims, "nbf")?.is_some_and(|not_before| now + leeway < not_before) {
            return Err(InvalidToken::NotYetValid.into());
        }
        // RFC 7519, 4.1.4: not accepted on or after the expiration time.
        if expires.is_some_and(|expires| now >= expires + leeway) {
            return Err(VerifyError::Expired);
        }
        Ok(())
    }

    /// Reads the user from checked claims.
    pub(crate) fn identity(&self, claims: Claims) -> Result<Identity, InvalidToken> {
        let user = self.user(&claims)?.ok_or(InvalidToken::UserId)?;
        let token_id = claims.text("jti");
        let claims = claims.values;
        Ok(Identity {
            user,
            role: first_present(&claims, &self.role_claims)
                .and_then(Value::as_str)
                .map(str::to_owned),
            name: first_present(&claims, &self.name_claims)
                .and_then(Value::as_str)
                .map(str::to_owned),
            // The conversion saturates, so a date in a far future is the end of time.
            expires_at: claims
                .get("exp")
                .and_then(Value::as_f64)
                .map(|seconds| seconds as u64),
            token_id,
            scopes: scopes(&claims),
            claims: Arc::new(claims),
        })
    }

    /// Reads the user's id; a token without any is `None`, one with a bad id an error.
    pub(crate) fn user(&self, claims: &Claims) -> Result<Option<Arc<str>>, InvalidToken> {
        let mut names = self.id_claims.iter();
        let Some(name) = names.find(|&name| claims.values.contains_key(name)) else {
            return Ok(None);
        };
        let user = claims.text(name).ok_or(InvalidToken::UserId)?;
        if user.is_empty() || user.len() > MAX_USER_ID_BYTES {
            return Err(InvalidToken::UserId);
        }
        Ok(Some(user.into()))
    }

    fn is_audience(&self, claim: Option<&Value>) -> bool {
        let accepts = |value: &str| self.audience.iter().any(|accepted| accepted == value);
        match claim {
            Some(Value::String(audience)) => accepts(audience),
            Some(Value::Array(audiences)) => {
                audiences.iter().all(Value::is_string)
                    && audiences.iter().filter_map(Value::as_str).any(accepts)
            }
            _ => false,
        }
    }
}

/// Reads the space-separated `scope`.
pub(crate) fn scopes(claims: &Map<String, Value>) -> Vec<String> {
    let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    scope.split_ascii_whitespace().map(str::to_owned).collect()
}

fn first_present<'a>(claims: &'a Map<String, Value>, names: &[String]) -> Option<&'a Value> {
    names.iter().find_map(|name| claims.get(name))
}

fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, InvalidToken> {
    let Some(claim) = claims.get(name) else {
        return Ok(None);
    };
    claim
        .as_f64()
        .filter(|date| date.is_finite())
        .map(Some)
        .ok_or(InvalidToken::Claim(name))
}
