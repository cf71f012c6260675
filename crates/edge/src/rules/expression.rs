//! Expressions in CEL, bounded by construction.
//!
//! An evaluation cannot be stopped from outside. So what could run for long is refused when the rules are
//! compiled: expressions that are long, deep, or loop inside a loop inside a loop, and patterns that are not
//! written in the rule. At run time a rule that loops refuses long lists and maps. A failed evaluation is a
//! refusal.

mod bounds;
mod convert;
mod functions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use cel::parser::PrattParser;
use cel::{Env, IdedExpr};

use self::bounds::Bounds;
use super::variables::{Variable, Variables};

/// Longest text of an expression in bytes.
const MAX_TEXT: usize = 4096;
/// How deep parentheses and calls may nest in the text.
const MAX_NESTING: u16 = 48;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Why an expression gave no usable value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EvaluationError {
    #[error("a list or map has more than {0} elements")]
    TooMany(usize),
    #[error("the value is not {0}")]
    WrongType(&'static str),
    #[error("the value cannot be written as json")]
    NotJson,
    #[error("the value is too large")]
    TooLarge,
    #[error("{0}")]
    Failed(String),
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    tree: IdedExpr,
    bounds: Bounds,
}

impl Expression {
    /// Compiles a text that may use the given variables.
    pub(super) fn compile(text: &str, allowed: &[Variable]) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!(
                "the expression has {} bytes; at most {MAX_TEXT} are allowed",
                text.len()
            ));
        }
        let parser = PrattParser::new()
            .max_recursion_depth(MAX_NESTING)
            .error_reporting_limit(1);
        let tree = parser.parse(text).map_err(|errors| describe(&errors))?;
        let bounds = Bounds::of(&tree, allowed)?;
        let expression = Self { tree, bounds };
        for pattern in &expression.bounds.patterns {
            functions::check_pattern(pattern)?;
        }
        Ok(expression)
    }

    /// Tells whether the expression names the variable.
    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.bounds.variables.contains(&variable)
    }

    /// Evaluates a condition.
    pub(super) fn holds(&self, variables: &Variables<'_>) -> Result<bool, EvaluationError> {
        match self.evaluate(variables)? {
            cel::Value::Bool(value) => Ok(value),
            _ => Err(EvaluationError::WrongType("true or false")),
        }
    }

    /// Evaluates to JSON text.
    pub(super) fn json(&self, variables: &Variables<'_>) -> Result<Bytes, EvaluationError> {
        convert::to_json(&self.evaluate(variables)?)
    }

    /// Evaluates to a list of values.
    pub(super) fn list(&self, variables: &Variables<'_>) -> Result<Vec<serde_json::Value>, EvaluationError> {
        let value = self.json(variables)?;
        serde_json::from_slice(&value).map_err(|_| EvaluationError::WrongType("a list"))
    }

    fn evaluate(&self, variables: &Variables<'_>) -> Result<cel::Value, EvaluationError> {
        let mut context = cel::Context::with_env(Arc::clone(&ENV));
        for &variable in &self.bounds.variables {
            let value = variables.value(variable);
            context.add_variable_from_value(
                variable.name(),
                convert::to_cel(&value, self.bounds.max_elements())?,
            );
        }
        functions::declare(&mut context);
        // The evaluator is not ours: should it panic on some value, only this event fails.
        let result = catch_unwind(AssertUnwindSafe(|| cel::Value::resolve(&self.tree, &context)));
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(EvaluationError::Failed(brief(&error))),
            Err(_) => Err(EvaluationError::Failed("the evaluation broke off".to_owned())),
        }
    }
}

/// Names an error without the values that it happened with, which may be large or another user's.
fn brief(error: &cel::ExecutionError) -> String {
    use cel::ExecutionError as E;
    match error {
        E::NoSuchKey(_) | E::NoSuchOverload(_) | E::UndeclaredReference(_) => error.to_string(),
        E::UnexpectedType { .. } | E::FunctionError { .. } | E::InvalidArgumentCount { .. } => {
            error.to_string()
        }
        E::DivisionByZero(_) | E::RemainderByZero(_) => "division by zero".to_owned(),
        E::Overflow(..) => "a number is too large".to_owned(),
        E::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        _ => "the values do not fit the expression".to_owned(),
    }
}

fn describe(errors: &cel::ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => {
            let (line, column) = error.pos;
            let message = error.msg.lines().next().unwrap_or_default();
            format!("no valid expression, at {line}:{column}: {message}")
        }
        None => "no valid expression".to_owned(),
    }
}

#[cfg(test)]
mod tests;
