//! Whose token it is.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The user that a good token names.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The user's id; an integer is its decimal text.
    pub user: Arc<str>,
    /// The user's role, where the token has one that is a string.
    pub role: Option<String>,
    /// The user's name, where the token has one that is a string.
    pub name: Option<String>,
    /// All claims, as signed.
    pub claims: Arc<Map<String, Value>>,
    /// `exp` in whole seconds since 1970; the token is accepted for the leeway longer.
    pub expires_at: Option<u64>,
    /// `jti`, by which a single token can be revoked.
    pub token_id: Option<String>,
    /// The scopes in `scope`.
    pub scopes: Vec<String>,
}
