//! The items of lists, tables and enums.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::Reader;
use super::problem::Error;
use crate::config::tree::{Entry, Node, Segment};

/// The items of a list.
pub(super) struct Items<I> {
    items: std::iter::Enumerate<I>,
}

impl<'a> Items<std::slice::Iter<'a, Node>> {
    pub(super) fn new(items: &'a [Node]) -> Self {
        Self {
            items: items.iter().enumerate(),
        }
    }
}

impl<'a> Items<Numbered<'a>> {
    pub(super) fn numbered(entries: &'a [Entry]) -> Self {
        Self {
            items: Numbered(entries.iter()).enumerate(),
        }
    }
}

/// The values of a table whose keys are numbers.
pub(super) struct Numbered<'a>(std::slice::Iter<'a, Entry>);

impl<'a> Iterator for Numbered<'a> {
    type Item = &'a Node;

    fn next(&mut self) -> Option<&'a Node> {
        self.0.next().map(|entry| &entry.node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'de, 'a, I: Iterator<Item = &'a Node>> SeqAccess<'de> for Items<I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        match seed.deserialize(Reader::new(node)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.place(node).under(Segment::Index(index))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.items.size_hint().1
    }
}

/// The keys and values of a table.
pub(super) struct Entries<'a> {
    left: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(entries: &'a [Entry]) -> Self {
        Self {
            left: entries.iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.left.next() else {
            return Ok(None);
        };
        self.current = Some(entry);
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        match seed.deserialize(key) {
            Ok(key) => Ok(Some(key)),
            Err(error) => Err(error
                .place_at(&entry.origin)
                .under(Segment::Key(entry.key.clone()))),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.current.take() else {
            return Err(serde::de::Error::custom("a value was asked for before its key"));
        };
        read(entry, seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// A table with one key, which names the variant.
pub(super) struct Enum<'a> {
    entry: &'a Entry,
}

impl<'a> Enum<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Self { entry }
    }
}

impl<'de> EnumAccess<'de> for Enum<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let key: StrDeserializer<'_, Error> = self.entry.key.as_str().into_deserializer();
        match seed.deserialize(key) {
            Ok(variant) => Ok((variant, self)),
            Err(error) => Err(error
                .place_at(&self.entry.origin)
                .under(Segment::Key(self.entry.key.clone()))),
        }
    }
}

impl<'de> VariantAccess<'de> for Enum<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        read(self.entry, std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        read(self.entry, seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let result = Reader::new(&self.entry.node).deserialize_seq(visitor);
        result.map_err(|error| in_entry(self.entry, error))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = Reader::new(&self.entry.node).deserialize_map(visitor);
        result.map_err(|error| in_entry(self.entry, error))
    }
}

fn read<'de, T: DeserializeSeed<'de>>(entry: &Entry, seed: T) -> Result<T::Value, Error> {
    seed.deserialize(Reader::new(&entry.node))
        .map_err(|error| in_entry(entry, error))
}

fn in_entry(entry: &Entry, error: Error) -> Error {
    error
        .place_secret(&entry.node, &entry.key)
        .under(Segment::Key(entry.key.clone()))
}
