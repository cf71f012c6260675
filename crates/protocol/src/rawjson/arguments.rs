use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::Payload;

/// A list of arguments: the text between the brackets of a JSON array, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments<'a> {
    text: Cow<'a, str>,
    count: usize,
}

impl<'a> Arguments<'a> {
    /// The list of no arguments.
    pub const NONE: Arguments<'static> = Arguments {
        text: Cow::Borrowed(""),
        count: 0,
    };

    /// Reads a JSON array.
    pub fn from_array(json: &'a str) -> Result<Self, serde_json::Error> {
        let elements: Elements<'a> = serde_json::from_str(json)?;
        Ok(Self {
            text: elements.text(json, elements.first),
            count: elements.count,
        })
    }

    /// Takes one JSON value.
    pub fn one(value: &'a RawValue) -> Self {
        Self {
            text: Cow::Borrowed(value.get()),
            count: 1,
        }
    }

    /// Reads a JSON array whose first element stands apart: the name of an event.
    ///
    /// The first element is `None` in an empty array.
    pub(crate) fn after_first(json: &'a str) -> Result<(Option<&'a RawValue>, Self), serde_json::Error> {
        let elements: Elements<'a> = serde_json::from_str(json)?;
        let rest = Self {
            text: elements.text(json, elements.second),
            count: elements.count.saturating_sub(1),
        };
        Ok((elements.first, rest))
    }

    /// Returns the same number of arguments with another text.
    pub(crate) fn with_text(&self, text: String) -> Arguments<'static> {
        Arguments {
            text: Cow::Owned(text),
            count: self.count,
        }
    }

    /// Returns the text between the brackets, empty where there are no arguments.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the number of arguments.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the argument where there is exactly one.
    pub fn single(&self) -> Option<&str> {
        (self.count == 1).then_some(&*self.text)
    }

    /// Returns the JSON array.
    pub fn to_array(&self) -> String {
        format!("[{}]", self.text)
    }

    /// Returns the arguments as the payload of an event.
    pub fn to_payload(&self) -> Payload {
        match self.single() {
            Some(value) => Payload::One(Bytes::copy_from_slice(value.as_bytes())),
            None => Payload::Many(self.to_array().into()),
        }
    }

    /// Detaches the list from the text that it was read from.
    pub fn into_owned(self) -> Arguments<'static> {
        Arguments {
            text: Cow::Owned(self.text.into_owned()),
            count: self.count,
        }
    }
}

#[derive(Default)]
struct Elements<'a> {
    count: usize,
    first: Option<&'a RawValue>,
    second: Option<&'a RawValue>,
    last: Option<&'a RawValue>,
}

impl<'a> Elements<'a> {
    /// Returns the part of the array's text from one of its elements to its last one.
    fn text(&self, json: &'a str, from: Option<&'a RawValue>) -> Cow<'a, str> {
        let (Some(from), Some(last)) = (from, self.last) else {
            return Cow::Borrowed("");
        };
        let offset = |part: &str| part.as_ptr().addr() - json.as_ptr().addr();
        Cow::Borrowed(&json[offset(from.get())..offset(last.get()) + last.get().len()])
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Elements::default();
                while let Some(value) = array.next_element::<&'de RawValue>()? {
                    match elements.count {
                        0 => elements.first = Some(value),
                        1 => elements.second = Some(value),
                        _ => {}
                    }
                    elements.last = Some(value);
                    elements.count += 1;
                }
                Ok(elements)
            }
        }

        deserializer.deserialize_seq(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_the_text() {
        for (array, count, text) in [
            ("[]", 0, ""),
            (" [ ] ", 0, ""),
            ("[1]", 1, "1"),
            (r#"[ {"a": 1.50} , "x" ]"#, 2, r#"{"a": 1.50} , "x""#),
            ("[null,[],1e999]", 3, "null,[],1e999"),
        ] {
            let arguments = Arguments::from_array(array).unwrap();
            assert_eq!((arguments.count(), arguments.text()), (count, text), "{array}");
        }
        for array in ["", "{}", "[1", "[1,]", "[1] 2", "\"a\""] {
            assert!(Arguments::from_array(array).is_err(), "{array}");
        }
    }

    #[test]
    fn one_argument_is_data_and_several_are_an_array() {
        assert_eq!(
            Arguments::from_array("[ 7 ]").unwrap().to_payload(),
            Payload::One("7".into())
        );
        assert_eq!(
            Arguments::from_array("[7, 8]").unwrap().to_payload(),
            Payload::Many("[7, 8]".into())
        );
        assert_eq!(Arguments::NONE.to_payload(), Payload::NONE);
    }
}
