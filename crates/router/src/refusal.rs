//! Requests that are not carried out, as NATS and HTTP tell them.

use std::borrow::Cow;

use axum::http::StatusCode;
use bytes::Bytes;
use carillon_bus::TableError;
use carillon_service::problem::Problem;
use serde::Serialize;

use crate::view::Behind;

/// Why a request was not carried out: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wrong,
    Away,
    Failed,
}

impl Refusal {
    /// The request is not one that can be answered.
    pub(crate) fn wrong(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            kind: Kind::Wrong,
        }
    }

    /// What is needed for an answer is away for now.
    pub(crate) fn away(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: "unavailable",
            message: message.into(),
            kind: Kind::Away,
        }
    }

    /// The answer failed for a reason of ours.
    pub(crate) fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: "internal",
            message: message.into(),
            kind: Kind::Failed,
        }
    }

    /// Returns the body of the answer over NATS.
    pub(crate) fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: &'a str,
        }
        let body = Body {
            error: Error {
                code: self.code,
                message: &self.message,
            },
        };
        serde_json::to_vec(&body).expect("strings are JSON").into()
    }
}

impl From<Behind> for Refusal {
    fn from(behind: Behind) -> Self {
        Self::away(behind.to_string())
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Conflict => Self::away("the session changes too often right now"),
            TableError::Away => Self::away("NATS is away"),
            TableError::Store(error) => Self::failed(error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            Kind::Wrong => Self::new(StatusCode::BAD_REQUEST, refusal.code, refusal.message),
            Kind::Away => Self::unavailable(refusal.message, 2),
            Kind::Failed => {
                tracing::error!(error = %refusal.message, "request failed");
                Self::internal()
            }
        }
    }
}
