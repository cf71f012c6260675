//! What is wrong with a rule, and why a client was refused.

use std::fmt;
use std::sync::Arc;

/// A mistake in a namespace's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The namespace's name.
    pub namespace: String,
    /// The setting inside the namespace's section, such as `["on", "2", "when"]`.
    pub path: Vec<String>,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl RuleError {
    /// Returns the setting's path from the root of the configuration.
    pub fn full_path(&self) -> Vec<&str> {
        let section = ["namespaces", self.namespace.as_str()];
        section
            .into_iter()
            .chain(self.path.iter().map(String::as_str))
            .collect()
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespaces.{:?}", self.namespace)?;
        for part in &self.path {
            match part.bytes().all(|byte| byte.is_ascii_digit()) {
                true => write!(f, "[{part}]")?,
                false => write!(f, ".{part}")?,
            }
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for RuleError {}

/// Collects mistakes with the path at which each was found.
pub(super) struct Mistakes<'a> {
    namespace: &'a str,
    found: Vec<RuleError>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(namespace: &'a str) -> Self {
        Self {
            namespace,
            found: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, path: &[&str], problem: impl Into<String>) {
        self.found.push(RuleError {
            namespace: self.namespace.to_owned(),
            path: path.iter().map(|&part| part.to_owned()).collect(),
            problem: problem.into(),
        });
    }

    /// Takes the value, or notes the problem.
    pub(super) fn check<T>(&mut self, path: &[&str], result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(path, problem)).ok()
    }

    pub(super) fn into_errors(self) -> Vec<RuleError> {
        self.found
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<RuleError>> {
        if self.found.is_empty() {
            Ok(value)
        } else {
            Err(self.found)
        }
    }
}

/// Codes of refusals, where the configuration sets no other.
pub mod code {
    /// The connection or event exceeds its rate.
    pub const RATE_LIMITED: &str = "rate_limited";
    /// The arguments are larger than allowed.
    pub const TOO_LARGE: &str = "too_large";
    /// The arguments nest deeper than allowed.
    pub const TOO_DEEP: &str = "too_deep";
    /// The event's name is none that a client may send.
    pub const BAD_EVENT: &str = "bad_event";
    /// No rule is there for the event.
    pub const UNKNOWN_EVENT: &str = "unknown_event";
    /// The arguments do not fit the rule.
    pub const BAD_DATA: &str = "bad_data";
    /// The rule says no.
    pub const FORBIDDEN: &str = "forbidden";
}

/// A refused action, as the client is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, from the configuration or one of [`code`].
    pub code: Arc<str>,
    /// The text.
    pub message: Arc<str>,
    /// The client went so far past its rate that the connection is to be closed.
    pub abuse: bool,
}

/// Code and text from the configuration, the nearest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    pub(super) code: Option<Arc<str>>,
    pub(super) message: Option<Arc<str>>,
}

impl Texts {
    pub(super) fn new(code: Option<&String>, message: Option<&String>) -> Self {
        let shared = |text: &String| Arc::from(text.as_str());
        Self {
            code: code.map(shared),
            message: message.map(shared),
        }
    }

    /// Fills what is not set here.
    pub(super) fn or(&self, other: &Self) -> Self {
        Self {
            code: self.code.clone().or_else(|| other.code.clone()),
            message: self.message.clone().or_else(|| other.message.clone()),
        }
    }

    /// A refusal with these texts, or with the given ones where none are set.
    pub(super) fn refusal(&self, code: &str, message: &str) -> Refusal {
        Refusal {
            code: self.code.clone().unwrap_or_else(|| code.into()),
            message: self.message.clone().unwrap_or_else(|| message.into()),
            abuse: false,
        }
    }
}
