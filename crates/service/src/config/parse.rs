//! TOML text to the tree, with the line of every value.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::environment::Environment;
use super::substitute::substitute;
use super::tree::{Entry, Node, Origin, Segment, Value};

/// The parser bounds brackets but not the tables that a dotted key nests, which recursion walks later.
const MAX_DOTS: usize = 500;

/// Reads a file's text and puts variables into its strings.
pub(super) fn file(name: &str, text: &str, environment: &Environment) -> Result<Node, ConfigError> {
    let lines = Lines::new(name, text);
    if let Some(at) = text
        .lines()
        .position(|line| line.bytes().filter(|&b| b == b'.').count() > MAX_DOTS)
    {
        let origin = Origin::Line(lines.name.clone(), at + 1);
        return Err(ConfigError::new(
            &origin,
            &[],
            format!("expected at most {MAX_DOTS} dots in a line"),
        ));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let origin = error
            .span()
            .map_or_else(|| lines.whole(), |span| lines.origin(span.start));
        let problem = error.message().trim().replace('\n', ", ");
        let key = error.span().and_then(|span| text.get(span));
        let problem = match key {
            Some(key) if problem == "duplicate key" => format!("expected the key {key} once, got it twice"),
            _ => problem,
        };
        ConfigError::new(&origin, &[], problem)
    })?;
    let mut reader = Reader {
        lines: &lines,
        environment,
        path: Vec::new(),
    };
    let value = reader.table(table.get_ref())?;
    Ok(Node::new(lines.whole(), value))
}

/// Reads a list or an inline table that a variable holds; nothing when the text is not TOML.
pub(super) fn variable(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    plain(value.get_ref(), origin)
}

struct Reader<'a> {
    lines: &'a Lines,
    environment: &'a Environment,
    path: Vec<Segment>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>) -> Result<Value, ConfigError> {
        let mut sorted: Vec<_> = table.iter().collect();
        sorted.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::with_capacity(sorted.len());
        for (key, value) in sorted {
            let name = key.get_ref().clone().into_owned();
            let origin = self.lines.origin(key.span().start);
            self.path.push(Segment::Key(name.clone()));
            let mut node = self.node(value)?;
            self.path.pop();
            if matches!(node.value, Value::Table(_)) {
                node.origin = origin.clone();
            }
            entries.push(Entry {
                key: name,
                origin,
                node,
            });
        }
        Ok(Value::Table(entries))
    }

    fn node(&mut self, spanned: &Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        let origin = self.lines.origin(spanned.span().start);
        let value = match spanned.get_ref() {
            DeValue::Table(table) => self.table(table)?,
            DeValue::Array(array) => {
                let mut items = Vec::with_capacity(array.len());
                for (index, item) in array.iter().enumerate() {
                    self.path.push(Segment::Index(index));
                    items.push(self.node(item)?);
                    self.path.pop();
                }
                Value::List(items)
            }
            DeValue::String(text) => match substitute(text, self.environment) {
                Ok(done) if done.changed => Value::Text {
                    text: done.text.into_owned(),
                    hidden: false,
                },
                Ok(done) => Value::String(done.text.into_owned()),
                Err(error) => return Err(ConfigError::new(&origin, &self.path, error.to_string())),
            },
            scalar => match self::scalar(scalar) {
                Some(value) => value,
                None => {
                    let problem = "expected an integer of at most 64 bits";
                    return Err(ConfigError::new(&origin, &self.path, problem));
                }
            },
        };
        Ok(Node::new(origin, value))
    }
}

fn plain(value: &DeValue<'_>, origin: &Origin) -> Option<Node> {
    let value = match value {
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                let node = plain(value.get_ref(), origin)?;
                Some(Entry {
                    key: key.get_ref().clone().into_owned(),
                    origin: origin.clone(),
                    node,
                })
            };
            Value::Table(table.iter().map(entry).collect::<Option<_>>()?)
        }
        DeValue::Array(array) => Value::List(
            array
                .iter()
                .map(|item| plain(item.get_ref(), origin))
                .collect::<Option<_>>()?,
        ),
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        scalar => self::scalar(scalar)?,
    };
    Some(Node::new(origin.clone(), value))
}

fn scalar(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(value) => Value::Integer(i64::from_str_radix(value.as_str(), value.radix()).ok()?),
        DeValue::Float(value) => Value::Float(value.as_str().parse().ok()?),
        DeValue::Datetime(value) => Value::String(value.to_string()),
        DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

/// Byte offsets to lines of one file.
struct Lines {
    name: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    fn new(name: &str, text: &str) -> Self {
        let breaks = text
            .bytes()
            .enumerate()
            .filter(|&(_, byte)| byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            name: Arc::from(name),
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::Line(
            self.name.clone(),
            self.starts.partition_point(|&start| start <= offset),
        )
    }

    fn whole(&self) -> Origin {
        Origin::File(self.name.clone())
    }
}
