//! The functions that expressions may call.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::operators;
use cel::objects::Map;
use cel::{Context, Value};

pub(super) const MATCHES: &str = "matches";

/// `merge(a, b)`: the members of both maps, those of `b` where both have one. What is no map adds nothing.
const MERGE: &str = "merge";

/// Longest regular expression in bytes.
const MAX_PATTERN: usize = 256;

const KNOWN: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    MATCHES,
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "type",
    "dyn",
    MERGE,
];

const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
    operators::NOT_STRICTLY_FALSE,
];

/// Checks that a function or operator is known.
pub(super) fn check(name: &str) -> Result<(), String> {
    if KNOWN.contains(&name) || OPERATORS.contains(&name) {
        return Ok(());
    }
    Err(format!(
        "the function {name:?} is not known; expected one of {}",
        KNOWN.join(", ")
    ))
}

/// Adds the functions that CEL itself has not.
pub(super) fn declare(context: &mut Context<'_, '_>) {
    let added = context.add_function(MERGE, merge);
    debug_assert!(added.is_ok(), "the standard library has no function of this name");
}

fn merge(first: Value, second: Value) -> Value {
    let mut merged: HashMap<_, _> = HashMap::new();
    for value in [first, second] {
        if let Value::Map(map) = value {
            merged.extend(map.map.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    Value::Map(Map {
        map: Arc::new(merged),
    })
}

/// Compiles a pattern by matching it once.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
    }
    let mut context = Context::default();
    context.add_variable_from_value("pattern", pattern);
    let tree = cel::parser::PrattParser::new().parse("''.matches(pattern)");
    let tree = tree.expect("the expression is written here");
    match Value::resolve(&tree, &context) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{pattern:?} is no regular expression")),
    }
}
