//! May a backend use an HTTP API?

use std::sync::Arc;

use crate::api_key::{ApiKey, ApiKeys, Scope};
use crate::claims::scopes;
use crate::config::{Config, ConfigError};
use crate::credentials::in_header;
use crate::jwks::FetchError;
use crate::verifier::{Verifier, VerifyError};

/// Knows the callers of the HTTP APIs by their API keys and tokens; clones share them.
#[derive(Clone)]
pub struct Authorizer {
    api_keys: Arc<ApiKeys>,
    verifier: Verifier,
}

/// A caller of an HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of the API key, or the user of the token.
    pub name: String,
    /// What the caller may do.
    pub scopes: Vec<Scope>,
    /// Where the caller may do it; empty is everywhere.
    pub namespaces: Vec<String>,
}

/// Why a caller may not use an HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// No good credentials were shown: 401.
    #[error("an API key or a token is required")]
    Unauthenticated,
    /// The caller lacks the scope or the namespace: 403.
    #[error("the scope or the namespace is not allowed")]
    Forbidden,
    /// The keys that the token needs cannot be reached: 503.
    #[error("the keys for the token are unavailable")]
    Unavailable(#[from] FetchError),
}

impl Authorizer {
    /// Reads the API keys; tokens are checked by `verifier`.
    pub fn new(config: &Config, verifier: Verifier) -> Result<Self, ConfigError> {
        Ok(Self {
            api_keys: Arc::new(ApiKeys::new(&config.api_keys)?),
            verifier,
        })
    }

    /// Returns the caller by the values of `X-API-Key` and `Authorization`.
    ///
    /// An API key may stand in either header; if both are there, `X-API-Key` counts.
    pub async fn authenticate(
        &self,
        authorization: Option<&[u8]>,
        api_key: Option<&[u8]>,
    ) -> Result<Principal, AuthorizeError> {
        if let Some(shown) = api_key.map(<[u8]>::trim_ascii).filter(|shown| !shown.is_empty()) {
            return self
                .api_keys
                .find(shown)
                .map(Principal::from)
                .ok_or(AuthorizeError::Unauthenticated);
        }
        let shown = authorization
            .and_then(in_header)
            .flatten()
            .ok_or(AuthorizeError::Unauthenticated)?;
        if let Some(key) = self.api_keys.find(shown.as_bytes()) {
            return Ok(key.into());
        }
        self.by_token(shown).await
    }

    async fn by_token(&self, token: &str) -> Result<Principal, AuthorizeError> {
        // A service's token need not name a user.
        let (claims, user) = self.verifier.claims(token).await.map_err(|error| match error {
            VerifyError::Unavailable(error) => AuthorizeError::Unavailable(error),
            VerifyError::Missing | VerifyError::Invalid(_) | VerifyError::Expired => {
                AuthorizeError::Unauthenticated
            }
        })?;
        Ok(Principal {
            name: user.map_or_else(|| "token".to_owned(), |user| user.as_ref().to_owned()),
            scopes: scopes(&claims)
                .iter()
                .filter_map(|name| Scope::from_name(name))
                .collect(),
            namespaces: Vec::new(),
        })
    }
}

impl Principal {
    /// Tells whether the caller has the scope, in some namespace.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || (scope == Scope::Read && self.scopes.contains(&Scope::Admin))
    }

    /// Tells whether the caller has the scope in this namespace.
    pub fn allows(&self, scope: Scope, namespace: &str) -> bool {
        self.has(scope)
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|name| name == namespace))
    }

    /// Refuses a caller without the scope in this namespace.
    pub fn require(&self, scope: Scope, namespace: &str) -> Result<(), AuthorizeError> {
        if self.allows(scope, namespace) {
            Ok(())
        } else {
            Err(AuthorizeError::Forbidden)
        }
    }
}

impl From<&ApiKey> for Principal {
    fn from(key: &ApiKey) -> Self {
        Self {
            name: key.name.clone(),
            scopes: key.scopes.clone(),
            namespaces: key.namespaces.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[Scope], namespaces: &[&str]) -> Principal {
        Principal {
            name: "orders".to_owned(),
            scopes: scopes.to_vec(),
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn admin_includes_read_and_nothing_else_does() {
        use Scope::{Admin, Publish, Read};
        for (has, wants, allowed) in [
            (Publish, Publish, true),
            (Publish, Admin, false),
            (Publish, Read, false),
            (Admin, Publish, false),
            (Admin, Admin, true),
            (Admin, Read, true),
            (Read, Publish, false),
            (Read, Admin, false),
            (Read, Read, true),
        ] {
            assert_eq!(
                principal(&[has], &[]).allows(wants, "/"),
                allowed,
                "{has:?} {wants:?}"
            );
        }
        assert!(!principal(&[], &[]).has(Read));
    }

    #[test]
    fn namespaces_limit_a_scope() {
        let limited = principal(&[Scope::Publish], &["/chat"]);
        assert_eq!(limited.require(Scope::Publish, "/chat"), Ok(()));
        assert_eq!(
            limited.require(Scope::Publish, "/"),
            Err(AuthorizeError::Forbidden)
        );
        assert_eq!(
            limited.require(Scope::Publish, "/chat/a"),
            Err(AuthorizeError::Forbidden)
        );
        assert!(limited.has(Scope::Publish));
        assert!(principal(&[Scope::Publish], &[]).allows(Scope::Publish, "/any"));
    }
}
