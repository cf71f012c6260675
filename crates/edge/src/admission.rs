//! Who is this client: its token, checked without asking anyone, and whether it was revoked.

use std::sync::Arc;

use carillon_auth::credentials::{self, Credential};
use carillon_auth::{Verifier, VerifyError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::user::User;

/// What a request showed beside a Socket.IO payload, kept for the namespaces that are entered later.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) authorization: Option<Vec<u8>>,
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) query: Option<String>,
    pub(crate) subprotocols: Option<String>,
}

/// Why a client is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("no token")]
    Missing,
    #[error("bad token")]
    Invalid,
    #[error("keys cannot be reached")]
    Unavailable,
}

impl Unknown {
    /// Returns what the client is told.
    pub(crate) fn text(&self, hub: &Hub, namespace: &Namespace) -> String {
        let settings = namespace.settings.load();
        match self {
            Self::Missing => settings
                .missing_token
                .clone()
                .unwrap_or_else(|| hub.auth.missing_text.clone()),
            _ => settings
                .invalid_token
                .clone()
                .unwrap_or_else(|| hub.auth.invalid_text.clone()),
        }
    }
}

impl Shown {
    /// Takes what counts from a request's headers and address.
    pub(crate) fn of(headers: &axum::http::HeaderMap, query: Option<&str>) -> Self {
        let bytes = |name| {
            headers
                .get(name)
                .map(|value: &axum::http::HeaderValue| value.as_bytes().to_vec())
        };
        // RFC 6455, section 11.3.4: several lines are one list.
        let protocols: Vec<&str> = headers
            .get_all("sec-websocket-protocol")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        Self {
            authorization: bytes("authorization"),
            cookie: bytes("cookie"),
            query: query.map(str::to_owned),
            subprotocols: (!protocols.is_empty()).then(|| protocols.join(",")),
        }
    }

    /// Returns the token that counts, with a Socket.IO payload before everything else.
    pub(crate) fn credential<'a>(
        &'a self,
        auth: Option<&'a Value>,
        cookie_name: &str,
    ) -> Option<Credential<'a>> {
        let request = credentials::Request {
            auth,
            subprotocols: self.subprotocols.as_deref().map(str::as_bytes),
            authorization: self.authorization.as_deref(),
            cookie: self.cookie.as_deref(),
            query: self.query.as_deref(),
        };
        credentials::find(&request, cookie_name)
    }
}

impl Hub {
    /// Checks a client's token for a namespace; where it is anonymous, a missing or bad one is no hindrance.
    pub(crate) async fn identify(
        &self,
        namespace: &Namespace,
        shown: &Shown,
        auth: Option<&Value>,
    ) -> Result<Arc<User>, Unknown> {
        let credential = shown.credential(auth, &self.auth.cookie);
        let known = match verify(&self.verifier, credential.as_ref()).await {
            Ok(user) if self.revocations.covers(&user) => Err(Unknown::Invalid),
            known => known,
        };
        match known {
            Ok(user) => Ok(Arc::new(user)),
            Err(Unknown::Unavailable) => Err(Unknown::Unavailable),
            Err(_) if namespace.settings.load().anonymous => Ok(Arc::new(User::anonymous())),
            Err(unknown) => Err(unknown),
        }
    }

    /// Checks a newer token of the same user.
    pub(crate) async fn reidentify(&self, user: &User, token: &str) -> Result<Arc<User>, Unknown> {
        let identity = self.verifier.verify(token).await.map_err(unknown)?;
        let newer = User::from(&identity);
        if newer.id() != user.id() || self.revocations.covers(&newer) {
            return Err(Unknown::Invalid);
        }
        Ok(Arc::new(newer))
    }
}

async fn verify(verifier: &Verifier, credential: Option<&Credential<'_>>) -> Result<User, Unknown> {
    let identity = verifier.verify_credential(credential).await.map_err(unknown)?;
    Ok(User::from(&identity))
}

fn unknown(error: VerifyError) -> Unknown {
    match error {
        VerifyError::Missing => Unknown::Missing,
        VerifyError::Unavailable(reason) => {
            tracing::warn!(%reason, "token cannot be checked");
            Unknown::Unavailable
        }
        VerifyError::Invalid(_) | VerifyError::Expired => Unknown::Invalid,
    }
}
