//! Arguments as values.

use std::borrow::Cow;
use std::fmt;

use carillon_protocol::event::Payload;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads the arguments of an event.
///
/// An object with a key that comes twice is refused: the rules would look at one of the two values, and
/// another reader might take the other.
pub(super) fn read(payload: &Payload) -> Result<Vec<Value>, String> {
    let text = format!("[{}]", payload.arguments());
    let mut reader = serde_json::Deserializer::from_str(&text);
    let value = Strict
        .deserialize(&mut reader)
        .map_err(|error| describe(&error))?;
    reader.end().map_err(|error| describe(&error))?;
    match value {
        Value::Array(values) => Ok(values),
        _ => Err("the arguments are no list".to_owned()),
    }
}

/// Reads arguments of which the last of equal keys counts, as clients have it.
pub(super) fn read_last(payload: &Payload) -> Result<Vec<Value>, String> {
    serde_json::from_str(&format!("[{}]", payload.arguments())).map_err(|error| describe(&error))
}

/// Escapes every `<` in JSON that cannot be read as values, such as a number that is too large for one.
pub(super) fn without_markup(payload: &Payload) -> Payload {
    const OPEN: &str = "&lt;";
    let mut rest = payload.text();
    let mut text = String::with_capacity(rest.len());
    while let Some(at) = rest.find(['<', '\\']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let escape = rest.get(..6);
        let end = if rest.starts_with('<') {
            text.push_str(OPEN);
            1
        } else if escape.is_some_and(|escape| escape.eq_ignore_ascii_case("\\u003c")) {
            text.push_str(OPEN);
            6
        } else {
            // What follows a backslash is no start of another escape.
            let end = rest.chars().take(2).map(char::len_utf8).sum();
            text.push_str(&rest[..end]);
            end
        };
        rest = &rest[end..];
    }
    text.push_str(rest);
    match payload {
        Payload::One(_) => Payload::One(text.into()),
        Payload::Many(_) => Payload::Many(text.into()),
    }
}

/// Returns what rules know as `data`: the one argument, null without any, a list of several.
pub(super) fn of_arguments(args: &[Value]) -> Cow<'_, Value> {
    match args {
        [] => Cow::Owned(Value::Null),
        [one] => Cow::Borrowed(one),
        many => Cow::Owned(Value::Array(many.to_vec())),
    }
}

/// Turns arguments into a payload.
pub(super) fn payload(args: &[Value]) -> Payload {
    match args {
        [one] => Payload::One(one.to_string().into()),
        many => Payload::Many(Value::Array(many.to_vec()).to_string().into()),
    }
}

fn describe(error: &serde_json::Error) -> String {
    // The position is of no use to a client, whose text was another.
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let value = entries.next_value_seed(Strict)?;
            if fields.insert(key, value).is_some() {
                return Err(de::Error::custom("a key comes twice in an object"));
            }
        }
        Ok(Value::Object(fields))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Result<Vec<Value>, String> {
        read(&Payload::One(text.to_owned().into()))
    }

    #[test]
    fn arguments_become_values() {
        assert_eq!(
            one(r#"{"a":[1,-2,2.5,null,"x"]}"#),
            Ok(vec![json!({ "a": [1, -2, 2.5, null, "x"] })])
        );
        assert_eq!(read(&Payload::NONE), Ok(vec![]));
        assert_eq!(
            read(&Payload::Many("[1, 2]".into())),
            Ok(vec![json!(1), json!(2)])
        );
        assert_eq!(one("18446744073709551615"), Ok(vec![json!(u64::MAX)]));
    }

    #[test]
    fn hostile_texts_are_refused() {
        assert!(one(r#"{"id":1,"id":2}"#).unwrap_err().contains("twice"));
        assert!(
            one(r#"{"a":{"id":1,"i\u0064":2}}"#)
                .unwrap_err()
                .contains("twice")
        );
        assert!(one(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).is_err());
        assert!(one(r#""\ud800""#).is_err());
        assert!(one("1e999").is_err());
        assert!(one("1] , [2").is_err());
    }

    #[test]
    fn the_last_of_equal_keys_counts_where_that_is_allowed() {
        let last = read_last(&Payload::One(r#"{"a":1,"a":2}"#.into()));
        assert_eq!(last, Ok(vec![json!({ "a": 2 })]));
        for text in ["1e999", r#""\ud800""#, "1] , [2"] {
            assert!(read_last(&Payload::One(text.into())).is_err(), "{text}");
        }
    }

    #[test]
    fn markup_in_what_cannot_be_read_becomes_text() {
        for (text, escaped) in [
            (r#"[1e999,"<b>\u003cB\u003C"]"#, r#"[1e999,"&lt;b>&lt;B&lt;"]"#),
            (
                r#"{"<":"\\u003c\"<ñ\ud800"}"#,
                r#"{"&lt;":"\\u003c\"&lt;ñ\ud800"}"#,
            ),
            (r#""\"#, r#""\"#),
            (r#""\u00ñ<"#, r#""\u00ñ&lt;"#),
        ] {
            assert_eq!(
                without_markup(&Payload::One(text.into())).text(),
                escaped,
                "{text}"
            );
        }
    }

    #[test]
    fn data_is_the_one_argument() {
        assert_eq!(*of_arguments(&[]), Value::Null);
        assert_eq!(*of_arguments(&[json!("a")]), json!("a"));
        assert_eq!(*of_arguments(&[json!("a"), json!(2)]), json!(["a", 2]));
        assert_eq!(payload(&[json!("a")]), Payload::One("\"a\"".into()));
        assert_eq!(payload(&[]), Payload::NONE);
    }
}
