//! JSON to CEL and back.
//!
//! Integers stay integers as far as 64 bits go, everything else is a double, which is what JSON readers make
//! of it. CEL compares the two kinds by value, so `data.n == 1` holds for `1` and `1.0`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cel::Value;
use cel::objects::{Key, Map};
use serde_json::Value as Json;

use super::EvaluationError;

/// Largest JSON text that an expression may build.
const MAX_BUILT: usize = 1 << 20;

/// Makes a CEL value; lists and maps of more elements than the given number are refused.
pub(super) fn to_cel(json: &Json, max_elements: Option<usize>) -> Result<Value, EvaluationError> {
    let check = |count: usize| match max_elements {
        Some(max) if count > max => Err(EvaluationError::TooMany(max)),
        _ => Ok(()),
    };
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::UInt(value),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => {
            check(items.len())?;
            let items: Result<Vec<Value>, _> = items.iter().map(|item| to_cel(item, max_elements)).collect();
            Value::List(Arc::new(items?))
        }
        Json::Object(fields) => {
            check(fields.len())?;
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                map.insert(Key::String(Arc::new(name.clone())), to_cel(value, max_elements)?);
            }
            Value::Map(Map { map: Arc::new(map) })
        }
    })
}

/// Writes a CEL value as JSON.
pub(super) fn to_json(value: &Value) -> Result<Bytes, EvaluationError> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out.into())
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), EvaluationError> {
    if out.len() > MAX_BUILT {
        return Err(EvaluationError::TooLarge);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::UInt(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Float(value) => {
            let number = serde_json::Number::from_f64(*value).ok_or(EvaluationError::NotJson)?;
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_string(text, out)?,
        Value::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            // A map has no order of its own; a sorted one makes the same text every time.
            let mut entries: Vec<(&Key, &Value)> = map.map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push(b'{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(&key.to_string(), out)?;
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
        _ => return Err(EvaluationError::NotJson),
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), EvaluationError> {
    serde_json::to_writer(out, text).map_err(|_| EvaluationError::NotJson)
}
