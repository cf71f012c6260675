//! Who a connection belongs to.

use std::sync::Arc;

use carillon_auth::Identity;
use serde::{Deserialize, Serialize};

use crate::rules;

/// The user of a connection, with what its token says about the connection itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) who: rules::User,
    /// Seconds since 1970 at which the token expires.
    pub(crate) expires_at: Option<u64>,
    /// The token's `jti`.
    pub(crate) token_id: Option<String>,
}

impl User {
    /// A user without a token, in a namespace that admits them.
    pub(crate) fn anonymous() -> Self {
        Self::default()
    }

    /// Returns the id.
    pub(crate) fn id(&self) -> Option<&Arc<str>> {
        self.who.id.as_ref()
    }
}

impl From<&Identity> for User {
    fn from(identity: &Identity) -> Self {
        Self {
            who: rules::User::from(identity),
            expires_at: identity.expires_at,
            token_id: identity.token_id.clone(),
        }
    }
}
