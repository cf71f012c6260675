//! Bodies of requests and responses.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What the edge answers with: a whole body or a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, Broken>;

/// Ends a response before it is complete, and with it the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was broken off")]
pub(crate) struct Broken;

/// Why the body of a request was not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body did not arrive in time")]
    Timeout,
    #[error("the body ended early")]
    Broken,
}

impl ReadError {
    /// Returns the answer, which the client may not wait for.
    pub(crate) fn response(self) -> Response<Body> {
        let (status, code) = match self {
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            Self::Broken => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        error(status, code, &self.to_string())
    }
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A body in one piece, with its length told.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body that goes on until the stream ends, or breaks the transport.
pub(crate) fn stream(stream: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(stream.map(|bytes| bytes.map(Frame::data))))
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(body).expect("only structures with text keys are answered");
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal: `{"code","message"}`.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "code": code, "message": message }))
}

/// 503 with the seconds after which another attempt makes sense.
pub(crate) fn unavailable(code: &str, message: &str, retry_after: u32) -> Response<Body> {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, code, message);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after));
    response
}

/// Reads the body of a request, of a size and within a time.
pub(crate) async fn read<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, ReadError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What is announced is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Err(_) => Err(ReadError::Timeout),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Ok(Err(_)) => Err(ReadError::Broken),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_size_and_time() {
        let time = Duration::from_secs(5);
        assert_eq!(read(full("12345"), 5, time).await.unwrap(), "12345");
        assert_eq!(read(full("123456"), 5, time).await, Err(ReadError::TooLarge));
        let pieces = || stream::iter([Ok(Bytes::from("123")), Ok(Bytes::from("456"))]);
        assert_eq!(read(super::stream(pieces()), 6, time).await.unwrap(), "123456");
        assert_eq!(
            read(super::stream(pieces()), 5, time).await,
            Err(ReadError::TooLarge)
        );
        assert_eq!(
            read(super::stream(stream::pending()), 5, time).await,
            Err(ReadError::Timeout)
        );
        let broken = stream::iter([Ok(Bytes::from("1")), Err(Broken)]);
        assert_eq!(read(super::stream(broken), 5, time).await, Err(ReadError::Broken));
    }

    #[tokio::test]
    async fn a_refusal_names_its_code_and_when_to_come_back() {
        let response = unavailable("overloaded", "try later", 7);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"code":"overloaded","message":"try later"}"#);
    }
}
