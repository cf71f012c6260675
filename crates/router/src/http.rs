//! The HTTP interface.

mod caller;
mod query;

use std::sync::Arc;
use std::time::Duration;

use axum::Router as Routes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use carillon_auth::{Authorizer, Scope};
use carillon_protocol::message::OrderKind;
use carillon_protocol::names::Room;
use carillon_service::problem::{Body, Json, Problem, no_method, no_route};
use carillon_service::readiness::Readiness;
use serde::Deserialize;
use tokio::time::Instant;

use caller::Caller;
use query::{Name, Names, Query};

use crate::orders::{self, Command};
use crate::presence::{self, Members, User};
use crate::router::Router;
use crate::target::Target;
use crate::{metrics, requests, revocation};

/// Largest body of a request.
const MAX_BODY: usize = 64 * 1024;
/// Longest time that a request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    router: Arc<Router>,
    authorizer: Authorizer,
}

/// Returns the routes of the HTTP interface.
pub(crate) fn routes(router: Arc<Router>, authorizer: Authorizer, readiness: Readiness) -> Routes {
    Routes::new()
        .route("/v1/users/{id}", get(user))
        .route("/v1/users/{id}/disconnect", post(disconnect))
        .route("/v1/rooms/{room}", get(room))
        .route(
            "/v1/rooms/{room}/members/{user}",
            post(join_user).delete(leave_user),
        )
        .route(
            "/v1/rooms/{room}/connections/{sid}",
            post(join_session).delete(leave_session),
        )
        .route("/v1/revocations", post(revoke))
        .route_layer(middleware::from_fn(measured))
        .route("/openapi.json", get(openapi))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || ready(&readiness)))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Api { router, authorizer })
}

fn ready(readiness: &Readiness) -> StatusCode {
    if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn openapi() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("http/openapi.json"),
    )
        .into_response()
}

/// Bounds the time of a request, and records it.
async fn measured(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let response = match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the request took too long", 2).into_response(),
    };
    let outcome = match response.status().as_u16() / 100 {
        2 => "done",
        4 => "refused",
        _ => "failed",
    };
    metrics::answered("http", outcome, started.elapsed());
    response
}

async fn user(
    State(api): State<Api>,
    caller: Caller,
    Name(id): Name,
    query: Query,
) -> Result<Json<User>, Problem> {
    let namespace = query.namespace(&api.router, &caller, Scope::Read)?;
    let id = query::user(id)?;
    Ok(Json(
        presence::user(&api.router, &namespace, &id, query.part()?).await?,
    ))
}

async fn room(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    query: Query,
) -> Result<Json<Members>, Problem> {
    let namespace = query.namespace(&api.router, &caller, Scope::Read)?;
    let room = query::room(&name)?;
    Ok(Json(
        presence::members(&api.router, &namespace, &room, query.part()?).await?,
    ))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    reason: Option<String>,
}

impl Why {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        Ok(requests::read(body)?)
    }
}

async fn disconnect(
    State(api): State<Api>,
    caller: Caller,
    Name(id): Name,
    query: Query,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let target = Target::User(query::user(id)?);
    order(
        &api,
        &caller,
        &query,
        OrderKind::Disconnect,
        Some(target),
        None,
        Why::read(&body)?,
    )
    .await
}

async fn revoke(State(api): State<Api>, caller: Caller, Body(body): Body) -> Result<StatusCode, Problem> {
    caller.everywhere(Scope::Admin)?;
    revocation::revoke(&api.router, requests::read(&body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn join_user(
    State(api): State<Api>,
    caller: Caller,
    Names(room, user): Names,
    query: Query,
) -> Result<StatusCode, Problem> {
    change_user(api, caller, room, user, query, OrderKind::Join).await
}

async fn leave_user(
    State(api): State<Api>,
    caller: Caller,
    Names(room, user): Names,
    query: Query,
) -> Result<StatusCode, Problem> {
    change_user(api, caller, room, user, query, OrderKind::Leave).await
}

async fn join_session(
    State(api): State<Api>,
    caller: Caller,
    Names(room, sid): Names,
    query: Query,
) -> Result<StatusCode, Problem> {
    change_session(api, caller, room, sid, query, OrderKind::Join).await
}

async fn leave_session(
    State(api): State<Api>,
    caller: Caller,
    Names(room, sid): Names,
    query: Query,
) -> Result<StatusCode, Problem> {
    change_session(api, caller, room, sid, query, OrderKind::Leave).await
}

async fn change_user(
    api: Api,
    caller: Caller,
    room: String,
    user: String,
    query: Query,
    kind: OrderKind,
) -> Result<StatusCode, Problem> {
    let (room, target) = (query::room(&room)?, Target::User(query::user(user)?));
    order(
        &api,
        &caller,
        &query,
        kind,
        Some(target),
        Some(room),
        Why::default(),
    )
    .await
}

async fn change_session(
    api: Api,
    caller: Caller,
    room: String,
    sid: String,
    query: Query,
    kind: OrderKind,
) -> Result<StatusCode, Problem> {
    let (room, target) = (query::room(&room)?, Target::new(None, Some(sid))?);
    order(&api, &caller, &query, kind, target, Some(room), Why::default()).await
}

async fn order(
    api: &Api,
    caller: &Caller,
    query: &Query,
    kind: OrderKind,
    target: Option<Target>,
    room: Option<Room>,
    why: Why,
) -> Result<StatusCode, Problem> {
    let namespace = query.namespace(&api.router, caller, Scope::Admin)?;
    let command = Command::new(kind, namespace, room, why.reason)?;
    orders::carry_out(&api.router, target, &command).await?;
    Ok(StatusCode::NO_CONTENT)
}
