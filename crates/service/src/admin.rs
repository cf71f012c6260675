//! The listener for operators: `/healthz`, `/readyz` and `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listen::{self, BindError, Limits};
use crate::metrics::Metrics;
use crate::readiness::Readiness;

const LIMITS: Limits = Limits {
    connections: 256,
    header_timeout: Duration::from_secs(10),
    drain: Duration::from_secs(1),
};

/// Serves one service's health and the process's metrics.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    app: Router,
}

impl AdminServer {
    /// Binds the address; nothing is answered before [`run`](Self::run).
    pub fn bind(address: SocketAddr, readiness: Readiness, metrics: Metrics) -> Result<Self, BindError> {
        let listener = listen::bind("admin listener", address, listen::DEFAULT_BACKLOG)?;
        let app = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready).with_state(readiness))
            .route("/metrics", get(scrape).with_state(metrics));
        Ok(Self { listener, app })
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until shutdown, which should come after everything else has stopped.
    pub async fn run(self, shutdown: CancellationToken) {
        listen::serve(self.listener, self.app, LIMITS, shutdown).await;
    }
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<&'static str>,
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Json(Ready {
        ready: reasons.is_empty(),
        reasons,
    });
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}

async fn scrape(State(metrics): State<Metrics>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}
