//! The HTTP interface: `POST /v1/events`, `POST /v1/events/batch`.

mod body;
mod once;
mod publish;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use carillon_auth::Scope;
use carillon_auth::{AuthorizeError, Authorizer, Principal};
use carillon_bus::{Bus, Streams, Table};
use carillon_service::problem::{self, Problem};
use carillon_service::readiness::Readiness;

use crate::check::Checker;
use crate::intake::Intake;
use crate::metrics;
use crate::receipt::Receipts;

/// What a request is answered from.
pub(crate) struct Api {
    pub(crate) bus: Bus,
    pub(crate) streams: Arc<Streams>,
    pub(crate) authorizer: Authorizer,
    pub(crate) checker: Checker,
    pub(crate) intake: Intake,
    pub(crate) receipts: Receipts,
    /// The bucket in which an `Idempotency-Key` is remembered with its request, and the signals that were sent.
    pub(crate) sent: Table,
    /// How long.
    pub(crate) dedupe: Duration,
    pub(crate) receipt_timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) max_rooms: usize,
    pub(crate) max_batch: usize,
}

/// The interface's description.
const OPENAPI: &str = include_str!("http/openapi.json");

/// Returns the routes.
pub(crate) fn routes(api: Arc<Api>, readiness: Readiness) -> Router {
    let json = [(header::CONTENT_TYPE, "application/json")];
    Router::new()
        .route("/v1/events", post(publish::one))
        .route("/v1/events/batch", post(publish::batch))
        .with_state(api)
        .route("/openapi.json", get(async move || (json, OPENAPI)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(readiness))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::from_fn(count))
}

async fn count(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    metrics::http(response.status().as_u16());
    response
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    status.into_response()
}

/// Finds out who asks, and that they may publish somewhere.
async fn caller(api: &Api, headers: &HeaderMap) -> Result<Principal, Problem> {
    let value = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let caller = api
        .authorizer
        .authenticate(value("authorization"), value("x-api-key"))
        .await;
    let caller = caller.map_err(refusal)?;
    if !caller.has(Scope::Publish) {
        return Err(Problem::forbidden("the scope publish is required"));
    }
    Ok(caller)
}

fn refusal(error: AuthorizeError) -> Problem {
    match error {
        AuthorizeError::Unauthenticated => Problem::unauthorized("an API key or a token is required"),
        AuthorizeError::Forbidden => Problem::forbidden("the scope or the namespace is not allowed"),
        AuthorizeError::Unavailable(error) => {
            tracing::warn!(%error, "tokens cannot be checked");
            Problem::unavailable("the keys for the token are unavailable", 5)
        }
    }
}
