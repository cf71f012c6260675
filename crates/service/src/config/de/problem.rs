//! What is wrong with a value, in words.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};

use super::words::{in_words, is_secret, one_of, quoted, reworded};
use crate::config::ConfigError;
use crate::config::suggest::closest;
use crate::config::tree::{Node, Origin, Segment, Value};

/// A problem on its way out of the tree: each level adds its part of the path.
#[derive(Debug)]
pub(in crate::config) struct Error(Box<Report>);

#[derive(Debug)]
struct Report {
    problem: Problem,
    origin: Option<Origin>,
    /// From the value up to the root.
    path: Vec<Segment>,
}

#[derive(Debug)]
enum Problem {
    Value {
        expected: String,
        got: Got,
    },
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    RepeatedKey(&'static str),
    Custom {
        message: String,
        got: Option<Got>,
    },
}

#[derive(Debug)]
struct Got {
    /// How the value looks, and what may be said of it where it is a secret.
    shown: String,
    kind: &'static str,
}

impl Error {
    /// Says which value the problem is about, unless a deeper level did.
    pub(super) fn place(self, node: &Node) -> Self {
        self.place_value(node, false)
    }

    /// The same for the value under a key, whose name may tell that it is a secret.
    pub(super) fn place_secret(self, node: &Node, key: &str) -> Self {
        self.place_value(node, is_secret(key))
    }

    fn place_value(mut self, node: &Node, secret: bool) -> Self {
        if self.0.origin.is_some() {
            return self;
        }
        self.0.origin = Some(node.origin.clone());
        if let Problem::Custom { got, .. } = &mut self.0.problem {
            *got = Some(Got::of(node)).filter(|got| !got.shown.is_empty());
        }
        if let Problem::UnknownKey { key, .. } = &self.0.problem
            && let Value::Table(entries) = &node.value
            && let Some(entry) = entries.iter().find(|entry| entry.key == *key)
        {
            self.0.origin = Some(entry.origin.clone());
            self.0.path.push(Segment::Key(entry.key.clone()));
        }
        if secret || matches!(node.value, Value::Text { hidden: true, .. }) {
            self.hide();
        }
        self
    }

    /// Places a problem with a key itself.
    pub(super) fn place_at(mut self, origin: &Origin) -> Self {
        self.0.origin.get_or_insert_with(|| origin.clone());
        self
    }

    pub(super) fn under(mut self, segment: Segment) -> Self {
        self.0.path.push(segment);
        self
    }

    /// Ends the way at the root of the tree.
    pub(in crate::config) fn at_root(self, root: &Node) -> ConfigError {
        let mut error = self.place(root);
        error.0.path.reverse();
        let origin = error.0.origin.take().unwrap_or(Origin::Nowhere);
        ConfigError::new(&origin, &error.0.path, error.0.problem.to_string())
    }

    fn hide(&mut self) {
        match &mut self.0.problem {
            Problem::Value { got, .. } | Problem::Custom { got: Some(got), .. } => {
                got.shown = got.kind.to_owned();
            }
            _ => {}
        }
    }

    fn new(problem: Problem) -> Self {
        Self(Box::new(Report {
            problem,
            origin: None,
            path: Vec::new(),
        }))
    }
}

impl serde::de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        // The form in which serde tells keys that are left over after a flattened field.
        let unknown = message
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.strip_suffix('`'));
        if let Some(key) = unknown {
            return Self::new(Problem::UnknownKey {
                key: key.to_owned(),
                known: &[],
            });
        }
        Self::new(Problem::Custom { message, got: None })
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::Value {
            expected: in_words(&expected.to_string()),
            got: Got::from(unexpected),
        })
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let got = Got {
            shown: format!("{length} items"),
            kind: "another number of items",
        };
        Self::new(Problem::Value {
            expected: in_words(&expected.to_string()),
            got,
        })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let got = Got::from(Unexpected::Str(variant));
        Self::new(Problem::Value {
            expected: one_of(expected),
            got,
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey {
            key: field.to_owned(),
            known: expected,
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::MissingKey(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Problem::RepeatedKey(field))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl std::error::Error for Error {}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { expected, got } => write!(f, "expected {expected}, got {}", got.shown),
            Self::MissingKey(key) => write!(f, "missing key {key:?}"),
            Self::RepeatedKey(key) => write!(f, "the key {key:?} is given twice, under two names"),
            Self::UnknownKey { key, known } => match closest(key, known) {
                Some(close) => write!(f, "unknown key, did you mean {close:?}?"),
                None if known.is_empty() => f.write_str("unknown key"),
                None => write!(f, "unknown key, expected {}", one_of(known)),
            },
            Self::Custom { message, got } => {
                f.write_str(&reworded(message))?;
                match got {
                    Some(got) if !message.contains("got ") => write!(f, ", got {}", got.shown),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Got {
    /// A scalar; lists and tables show as nothing.
    fn of(node: &Node) -> Self {
        match &node.value {
            Value::Bool(value) => Unexpected::Bool(*value).into(),
            Value::Integer(value) => Unexpected::Signed(*value).into(),
            Value::Float(value) => Unexpected::Float(*value).into(),
            Value::String(text) | Value::Text { text, .. } => Unexpected::Str(text).into(),
            Value::List(_) | Value::Table(_) => Self {
                shown: String::new(),
                kind: "",
            },
        }
    }
}

impl From<Unexpected<'_>> for Got {
    fn from(unexpected: Unexpected<'_>) -> Self {
        let (shown, kind) = match unexpected {
            Unexpected::Bool(value) => (value.to_string(), "a boolean"),
            Unexpected::Unsigned(value) => (value.to_string(), "an integer"),
            Unexpected::Signed(value) => (value.to_string(), "an integer"),
            Unexpected::Float(value) => (value.to_string(), "a number"),
            Unexpected::Char(value) => (format!("{:?}", value.to_string()), "a string"),
            Unexpected::Str(text) => (quoted(text), "a string"),
            Unexpected::Seq => ("a list".to_owned(), "a list"),
            Unexpected::Map | Unexpected::StructVariant => ("a table".to_owned(), "a table"),
            Unexpected::Unit => ("nothing".to_owned(), "nothing"),
            other => (other.to_string(), "another value"),
        };
        Self { shown, kind }
    }
}
