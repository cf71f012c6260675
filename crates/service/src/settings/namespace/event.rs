use serde::Deserialize;
use serde_json::Value;

use super::action::Action;
use super::limit::Rate;
use super::shorthand;
use crate::config::bytes;

/// `[[namespaces."/name".on]]`: what a client's event does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// The event's name, or several.
    #[serde(rename = "event", deserialize_with = "shorthand::strings")]
    pub events: Vec<String>,
    /// A condition over `user`, `data`, `args` and `session`.
    #[serde(default)]
    pub when: Option<String>,
    /// A JSON Schema for the data: a table, or JSON text.
    #[serde(default)]
    pub schema: Option<Value>,
    /// Largest arguments, as JSON.
    #[serde(default, with = "bytes::option")]
    pub max_bytes: Option<u64>,
    /// Fields that may hold HTML, of which only the harmless part is kept.
    #[serde(default)]
    pub sanitize: Vec<String>,
    /// How often one connection may send it, beside the namespace's own limit.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// What it does, in this order; a refused step ends it. With nothing here the event is taken and dropped.
    #[serde(default, rename = "do")]
    pub actions: Vec<Action>,
    /// The code of a refusal by this rule.
    #[serde(default)]
    pub code: Option<String>,
    /// The text of a refusal by this rule.
    #[serde(default)]
    pub message: Option<String>,
}

/// What becomes of an event without a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// The client is told that it is not allowed.
    #[default]
    Refuse,
    /// It goes to `rt.up.<ns>.<event>`.
    Forward,
}
