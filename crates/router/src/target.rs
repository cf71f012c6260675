//! Whom an order is for.

use std::borrow::Cow;

use carillon_protocol::ids::Sid;
use carillon_protocol::names::MAX_USER;
use serde::{Deserialize, Deserializer};

use crate::refusal::Refusal;

/// A user or one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    User(String),
    Session(Sid),
}

impl Target {
    /// Takes exactly one of both. A sid that cannot be one is nobody's, which is no error.
    pub(crate) fn new(user: Option<UserId>, sid: Option<String>) -> Result<Option<Self>, Refusal> {
        match (user, sid) {
            (Some(user), None) => Ok(Some(Self::User(user.0))),
            (None, Some(sid)) => Ok(sid.parse().ok().map(Self::Session)),
            (None, None) => Err(Refusal::wrong("no_target", "expected \"user\" or \"sid\"")),
            (Some(_), Some(_)) => Err(Refusal::wrong(
                "bad_target",
                "\"user\" and \"sid\" exclude each other",
            )),
        }
    }
}

/// The id of a user: a string, or an integer as tokens may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserId(pub(crate) String);

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a user is a string or an integer")]
        enum Form<'a> {
            #[serde(borrow)]
            Text(Cow<'a, str>),
            Unsigned(u64),
            Signed(i64),
        }
        let id = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_owned(),
            Form::Unsigned(number) => number.to_string(),
            Form::Signed(number) => number.to_string(),
        };
        if id.is_empty() || id.len() > MAX_USER {
            return Err(serde::de::Error::custom(format!(
                "a user has 1 to {MAX_USER} bytes"
            )));
        }
        Ok(Self(id))
    }
}
