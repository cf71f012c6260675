use std::borrow::Cow;
use std::fmt;

use super::fields::{Fields, given, name, number, text};
use crate::names::{MAX_EVENT, MAX_ROOM};
use crate::rawjson::{Arguments, MAX_DEPTH, check_depth};

/// What a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Joins a room; with `since`, from that offset on.
    Subscribe {
        topic: Cow<'a, str>,
        since: Option<Cow<'a, str>>,
    },
    Unsubscribe {
        topic: Cow<'a, str>,
    },
    Ping,
    /// An event; with an id it asks for an acknowledgement.
    Emit {
        event: Cow<'a, str>,
        arguments: Arguments<'a>,
        id: Option<u64>,
    },
    /// Asks who is in a room.
    Presence {
        topic: Cow<'a, str>,
        id: u64,
    },
    /// Answers an event that carried `ask`.
    Answer {
        ask: u64,
        arguments: Arguments<'a>,
    },
    /// Shows a newer token.
    Authenticate {
        token: Token<'a>,
    },
}

/// A token that is kept out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a>(Cow<'a, str>);

impl Token<'_> {
    /// Returns the token.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the message is not a json object with each member once")]
    NotJson,
    #[error("the message nests deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("binary messages are not understood here")]
    Binary,
    #[error("unknown message type")]
    UnknownType,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{name} must be {expected}")]
    Field {
        name: &'static str,
        expected: &'static str,
    },
    #[error("{name} must have 1 to {max} bytes")]
    Length { name: &'static str, max: usize },
    #[error("data and args exclude each other")]
    DataAndArgs,
}

impl Problem {
    /// Returns the code that the client is told.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "bad_json",
            Self::TooDeep => "too_deep",
            Self::Binary => "binary_message",
            Self::UnknownType => "unknown_type",
            Self::Missing(_) => "missing_field",
            Self::Field { .. } | Self::Length { .. } | Self::DataAndArgs => "bad_field",
        }
    }
}

/// A refused message, with the room or the id that it named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadMessage {
    pub problem: Problem,
    pub topic: Option<String>,
    pub id: Option<u64>,
}

impl From<Problem> for BadMessage {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            topic: None,
            id: None,
        }
    }
}

/// Reads a message.
pub fn parse(json: &str) -> Result<Message<'_>, BadMessage> {
    check_depth(json).map_err(|_| Problem::TooDeep)?;
    let fields: Fields<'_> = serde_json::from_str(json).map_err(|_| Problem::NotJson)?;
    message(&fields).map_err(|problem| BadMessage {
        problem,
        topic: text("topic", fields.topic).ok().map(Cow::into_owned),
        id: number("id", fields.id).ok(),
    })
}

fn message<'a>(fields: &Fields<'a>) -> Result<Message<'a>, Problem> {
    let topic = || name("topic", fields.topic, MAX_ROOM);
    Ok(match &*text("type", fields.kind)? {
        "sub" => {
            let since = given(fields.since)
                .map(|since| text("since", Some(since)))
                .transpose()?;
            Message::Subscribe {
                topic: topic()?,
                since,
            }
        }
        "unsub" => Message::Unsubscribe { topic: topic()? },
        "ping" => Message::Ping,
        "emit" => Message::Emit {
            event: name("event", fields.event, MAX_EVENT)?,
            arguments: arguments(fields)?,
            id: given(fields.id).map(|id| number("id", Some(id))).transpose()?,
        },
        "presence" => Message::Presence {
            topic: topic()?,
            id: number("id", fields.id)?,
        },
        "answer" => Message::Answer {
            ask: number("ask", fields.ask)?,
            arguments: arguments(fields)?,
        },
        "auth" | "auth:refresh" => Message::Authenticate {
            token: Token(text("token", fields.token)?),
        },
        _ => return Err(Problem::UnknownType),
    })
}

fn arguments<'a>(fields: &Fields<'a>) -> Result<Arguments<'a>, Problem> {
    match (fields.data, fields.args) {
        (Some(_), Some(_)) => Err(Problem::DataAndArgs),
        (Some(data), None) => Ok(Arguments::one(data)),
        (None, Some(args)) => Arguments::from_array(args.get()).map_err(|_| Problem::Field {
            name: "args",
            expected: "an array",
        }),
        (None, None) => Ok(Arguments::NONE),
    }
}
