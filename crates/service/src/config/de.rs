//! Serde over the tree: errors carry the place and the path of the value they are about.

mod access;
mod problem;
mod words;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::parse;
use super::tree::{Entry, Node, Origin, Value};
use access::{Entries, Enum, Items};
pub(super) use problem::Error;

/// A value of the tree, ready to become whatever a setting wants.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
}

impl<'a> Reader<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node }
    }

    fn unexpected(&self) -> Unexpected<'a> {
        match &self.node.value {
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::String(text) | Value::Text { text, .. } => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }

    fn wrong_type(&self, expected: &dyn Expected) -> Error {
        de::Error::invalid_type(self.unexpected(), expected)
    }

    /// The text of a variable, which may become another type.
    fn lenient(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text { text, .. } => Some(text.trim()),
            _ => None,
        }
    }

    /// The list that a variable holds: a TOML array, or items between commas.
    fn items_of_text(&self, text: &str) -> Vec<Node> {
        if text.starts_with('[')
            && let Some(Node {
                value: Value::List(items),
                ..
            }) = parse::variable(text, &self.node.origin)
        {
            return items;
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(|item| Node::text(self.node.origin.clone(), item))
            .collect()
    }
}

/// Tells whether variables such as `…__0__URL` built a list where the file has none.
fn is_numbered(entries: &[Entry]) -> bool {
    let numbered = |(at, entry): (usize, &Entry)| {
        matches!(entry.origin, Origin::Variable(_)) && entry.key.parse() == Ok(at)
    };
    !entries.is_empty() && entries.iter().enumerate().all(numbered)
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let Some(text) = self.lenient() else { return self.deserialize_any(visitor) };
            if let Ok(value) = text.parse::<i64>() {
                visitor.visit_i64(value)
            } else if let Ok(value) = text.parse::<u64>() {
                visitor.visit_u64(value)
            } else {
                Err(self.wrong_type(&visitor))
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) | Value::Text { text, .. } => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items::new(items)),
            Value::Table(entries) => visitor.visit_map(Entries::new(entries)),
        }
    }

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 }
    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(text) = self.lenient() else {
            return self.deserialize_any(visitor);
        };
        match text.parse() {
            Ok(value) => visitor.visit_f64(value),
            Err(_) => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(text) = self.lenient() else {
            return self.deserialize_any(visitor);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
            "false" | "no" | "off" | "0" => visitor.visit_bool(false),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.lenient() {
            Some("") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (&self.node.value, self.lenient()) {
            (_, Some(text)) => visitor.visit_seq(Items::new(&self.items_of_text(text))),
            (Value::Table(entries), _) if is_numbered(entries) => visitor.visit_seq(Items::numbered(entries)),
            (Value::List(items), _) => visitor.visit_seq(Items::new(items)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let parsed = self
            .lenient()
            .and_then(|text| parse::variable(text, &self.node.origin));
        match parsed.as_ref().map_or(&self.node.value, |node| &node.value) {
            Value::Table(entries) => visitor.visit_map(Entries::new(entries)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::String(text) => {
                let name: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Text { text, .. } => {
                let name: StrDeserializer<'_, Error> = text.trim().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Table(entries) if entries.len() == 1 => visitor.visit_enum(Enum::new(&entries[0])),
            _ => Err(self.wrong_type(&"a string, or a table with one key")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct identifier
    }
}
