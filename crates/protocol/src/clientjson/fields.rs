use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::parse::Problem;
use crate::rawjson::read_string;

/// The largest whole number that every JSON implementation keeps.
const MAX_NUMBER: u64 = 1 << 53;

/// The members of a message that mean something, each as its text; others are passed over.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) kind: Option<&'a RawValue>,
    pub(super) topic: Option<&'a RawValue>,
    pub(super) since: Option<&'a RawValue>,
    pub(super) event: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) args: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    pub(super) ask: Option<&'a RawValue>,
    pub(super) token: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key()? {
                    let slot = match &*key {
                        "type" => &mut fields.kind,
                        "topic" => &mut fields.topic,
                        "since" => &mut fields.since,
                        "event" => &mut fields.event,
                        "data" => &mut fields.data,
                        "args" => &mut fields.args,
                        "id" => &mut fields.id,
                        "ask" => &mut fields.ask,
                        "token" => &mut fields.token,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    // An optional value would lose the difference between null and nothing.
                    if slot.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a string.
pub(super) fn text<'a>(name: &'static str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, Problem> {
    let raw = raw.ok_or(Problem::Missing(name))?;
    read_string(raw.get()).map_err(|_| Problem::Field {
        name,
        expected: "a string",
    })
}

/// Reads a string whose length is limited.
pub(super) fn name<'a>(
    name: &'static str,
    raw: Option<&'a RawValue>,
    max: usize,
) -> Result<Cow<'a, str>, Problem> {
    let value = text(name, raw)?;
    if value.is_empty() || value.len() > max {
        return Err(Problem::Length { name, max });
    }
    Ok(value)
}

/// Reads a whole number.
pub(super) fn number(name: &'static str, raw: Option<&RawValue>) -> Result<u64, Problem> {
    let raw = raw.ok_or(Problem::Missing(name))?;
    let number = serde_json::from_str::<u64>(raw.get())
        .ok()
        .filter(|&number| number <= MAX_NUMBER);
    number.ok_or(Problem::Field {
        name,
        expected: "a whole number up to 2^53",
    })
}

/// Takes a member that may also be null where it is left out.
pub(super) fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}
