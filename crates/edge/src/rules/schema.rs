//! JSON Schemas of events' data.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Longest explanation that a client gets.
const MAX_REASON: usize = 200;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema(Validator);

impl Schema {
    /// Compiles a schema; nothing is fetched, and patterns cannot backtrack.
    pub(super) fn compile(schema: &Value) -> Result<Self, String> {
        let parsed;
        let schema = match schema {
            Value::String(text) => {
                parsed =
                    serde_json::from_str(text).map_err(|error| format!("the schema is no json: {error}"))?;
                &parsed
            }
            schema => schema,
        };
        if !schema.is_object() && !schema.is_boolean() {
            return Err("expected a table, or json text".to_owned());
        }
        jsonschema::meta::validate(schema).map_err(|error| format!("no valid schema: {error}"))?;
        let options = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .offline();
        options
            .build(schema)
            .map(Self)
            .map_err(|error| format!("no valid schema: {error}"))
    }

    /// Checks a value; the reason holds none of it.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        self.0.validate(value).map_err(|error| {
            let path = error.instance_path().as_str();
            let mut reason = format!("data{path}: {}", error.masked());
            if let Some((at, _)) = reason.char_indices().nth(MAX_REASON) {
                reason.truncate(at);
            }
            reason
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_is_checked() {
        let schema =
            json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } } });
        let schema = Schema::compile(&schema).unwrap();
        assert_eq!(schema.check(&json!({ "id": 1 })), Ok(()));
        assert!(
            schema
                .check(&json!({ "id": "secret" }))
                .unwrap_err()
                .starts_with("data/id: ")
        );
        assert!(
            !schema
                .check(&json!({ "id": "secret" }))
                .unwrap_err()
                .contains("secret")
        );
        assert!(schema.check(&Value::Null).is_err());
    }

    #[test]
    fn a_schema_may_be_text() {
        let schema = Schema::compile(&json!("{\"type\": \"string\", \"maxLength\": 3}")).unwrap();
        assert_eq!(schema.check(&json!("ñññ")), Ok(()));
        assert!(schema.check(&json!("ñññn")).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (schema, expected) in [
            (json!({ "type": "objekt" }), "no valid schema"),
            (
                json!({ "$ref": "https://example.com/schema.json" }),
                "no valid schema",
            ),
            (json!({ "$ref": "file:///etc/passwd" }), "no valid schema"),
            (json!({ "type": "string", "pattern": "(" }), "no valid schema"),
            (json!("{"), "no json"),
            (json!(7), "expected a table"),
        ] {
            let problem = Schema::compile(&schema).unwrap_err();
            assert!(problem.contains(expected), "{schema}: {problem}");
        }
    }

    #[test]
    fn patterns_do_not_backtrack() {
        let schema = Schema::compile(&json!({ "type": "string", "pattern": "^(a+)+$" })).unwrap();
        let started = std::time::Instant::now();
        assert!(schema.check(&json!(format!("{}!", "a".repeat(50_000)))).is_err());
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }
}
