use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Problem;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body, in or out; one that does not fit is refused with a problem document.
///
/// The content type is not looked at. The size is bounded by axum's `DefaultBodyLimit`.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// A body as it came, within the same bounds.
#[derive(Clone, Debug)]
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::too_large("the body is larger than the limit"))
            }
            Ok(Err(_)) => Err(Problem::bad_request("the body ended early")),
            Err(_) => Err(Problem::timeout("the body did not arrive in time")),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Body(body) = Body::from_request(request, state).await?;
        parse(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(Problem::bad_request("expected a JSON body, got none"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() {
            ""
        } else {
            "the body is not JSON: "
        };
        Problem::bad_request(format!("{what}{error}"))
    })
}
