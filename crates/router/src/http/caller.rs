use axum::extract::FromRequestParts;
use axum::http::{header, request};
use carillon_auth::{AuthorizeError, Principal, Scope};
use carillon_service::problem::Problem;

use super::Api;

/// Who asks; a request without good credentials goes no further.
pub(super) struct Caller(Principal);

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, api: &Api) -> Result<Self, Problem> {
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let api_key = parts.headers.get("x-api-key").map(|value| value.as_bytes());
        let principal = api
            .authorizer
            .authenticate(authorization, api_key)
            .await
            .map_err(problem)?;
        let scope = if parts.method == axum::http::Method::GET {
            Scope::Read
        } else {
            Scope::Admin
        };
        if !principal.has(scope) {
            return Err(problem(AuthorizeError::Forbidden));
        }
        Ok(Self(principal))
    }
}

impl Caller {
    /// Refuses a caller without the scope in this namespace.
    pub(super) fn require(&self, scope: Scope, namespace: &str) -> Result<(), Problem> {
        self.0.require(scope, namespace).map_err(problem)
    }

    /// Refuses a caller that has the scope in some namespaces only.
    pub(super) fn everywhere(&self, scope: Scope) -> Result<(), Problem> {
        if self.0.has(scope) && self.0.namespaces.is_empty() {
            Ok(())
        } else {
            Err(problem(AuthorizeError::Forbidden))
        }
    }
}

fn problem(error: AuthorizeError) -> Problem {
    match error {
        AuthorizeError::Unauthenticated => Problem::unauthorized(error.to_string()),
        AuthorizeError::Forbidden => Problem::forbidden(error.to_string()),
        AuthorizeError::Unavailable(_) => Problem::unavailable(error.to_string(), 2),
    }
}
