use axum::extract::{FromRequestParts, Path};
use axum::http::request;
use carillon_auth::Scope;
use carillon_protocol::names::{MAX_USER, Namespace, Room};
use carillon_service::problem::Problem;
use serde::Deserialize;

use super::caller::Caller;
use crate::presence::Part;
use crate::router::Router;

/// The part of the address behind the question mark.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    namespace: Option<String>,
    limit: Option<usize>,
    next: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<Self>::from_request_parts(parts, state).await;
        query
            .map(|query| query.0)
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

impl Query {
    /// Returns the namespace, `/` by default, if it exists and the caller may use it.
    pub(super) fn namespace(
        &self,
        router: &Router,
        caller: &Caller,
        scope: Scope,
    ) -> Result<Namespace, Problem> {
        let name = self.namespace.as_deref().unwrap_or("/");
        let namespace = Namespace::new(name)
            .map_err(|error| Problem::bad_request(error.to_string()).with_code("bad_namespace"))?;
        caller.require(scope, namespace.as_str())?;
        router.check(&namespace)?;
        Ok(namespace)
    }

    /// Returns which part of a list is asked for.
    pub(super) fn part(&self) -> Result<Part, Problem> {
        let next = self.next.as_deref().map(str::parse).transpose();
        let next =
            next.map_err(|_| Problem::bad_request("next is not what a list gave").with_code("bad_next"))?;
        Ok(Part::new(self.limit, next))
    }
}

/// Checks a user's id.
pub(super) fn user(id: String) -> Result<String, Problem> {
    if (1..=MAX_USER).contains(&id.len()) {
        return Ok(id);
    }
    Err(Problem::bad_request(format!("a user has 1 to {MAX_USER} bytes")).with_code("bad_user"))
}

/// Checks a room's name.
pub(super) fn room(name: &str) -> Result<Room, Problem> {
    Room::new(name).map_err(|error| Problem::bad_request(error.to_string()).with_code("bad_room"))
}

/// The one name in the path, decoded.
pub(super) struct Name(pub(super) String);

/// The two names in the path, decoded.
pub(super) struct Names(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((first, second))| Self(first, second))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}
