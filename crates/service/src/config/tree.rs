//! The merged settings: a tree whose every value knows where it was written.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nowhere: neither a file nor a variable names it.
    Nowhere,
    File(Arc<str>),
    Line(Arc<str>, usize),
    Variable(Arc<str>),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    /// Text from a variable, which becomes whatever type the setting has.
    Text {
        text: String,
        hidden: bool,
    },
    List(Vec<Node>),
    /// In the order of the file, so that the first problem told is the first one there.
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) node: Node,
}

/// One step of a key path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl Node {
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        Self { origin, value }
    }

    pub(super) fn table(origin: Origin) -> Self {
        Self::new(origin, Value::Table(Vec::new()))
    }

    pub(super) fn text(origin: Origin, text: impl Into<String>) -> Self {
        Self::new(
            origin,
            Value::Text {
                text: text.into(),
                hidden: false,
            },
        )
    }

    /// The text of a string, whoever wrote it.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) | Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value under a key or an index.
    pub(super) fn child(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries
                .iter()
                .find(|entry| entry.key == name)
                .map(|entry| &entry.node),
            Value::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("configuration"),
            Self::File(name) | Self::Variable(name) => f.write_str(name),
            Self::Line(name, line) => write!(f, "{name}:{line}"),
        }
    }
}

/// Writes a path as one would in TOML: `namespaces."/".on[2].when`.
pub(super) fn display(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let bare = !key.is_empty()
                    && key
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if bare {
                    text.push_str(key);
                } else {
                    text.push_str(&format!("{key:?}"));
                }
            }
        }
    }
    text
}
