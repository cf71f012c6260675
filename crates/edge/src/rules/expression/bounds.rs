//! What an expression uses and how far it can run, read from its tree.

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue};

use super::functions;
use crate::rules::variables::Variable;

/// How deep the tree may be, long chains of members included: the evaluator recurses, on a worker's stack.
const MAX_DEPTH: usize = 32;
/// How many loops one expression may have.
const MAX_LOOPS: usize = 4;
/// Elements that a list or map may have where an expression loops over it.
const MAX_ELEMENTS: usize = 1000;
/// The same where a loop stands inside another; together they run this many times this many rounds.
const MAX_ELEMENTS_NESTED: usize = 250;
/// Names of types, which are values too.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// The variables to bind.
    pub(super) variables: Vec<Variable>,
    /// The regular expressions, all written in the text.
    pub(super) patterns: Vec<String>,
    loops: usize,
    nested: bool,
}

impl Bounds {
    pub(super) fn of(tree: &IdedExpr, allowed: &[Variable]) -> Result<Self, String> {
        let mut walk = Walk {
            allowed,
            bounds: Self::default(),
            scope: Vec::new(),
            depth: 0,
            nesting: 0,
        };
        walk.visit(tree)?;
        Ok(walk.bounds)
    }

    /// Returns how many elements a list or map may have, where that is limited.
    pub(super) fn max_elements(&self) -> Option<usize> {
        match (self.loops, self.nested) {
            (0, _) => None,
            (_, false) => Some(MAX_ELEMENTS),
            (_, true) => Some(MAX_ELEMENTS_NESTED),
        }
    }
}

struct Walk<'a> {
    allowed: &'a [Variable],
    bounds: Bounds,
    /// Variables of the loops around.
    scope: Vec<&'a str>,
    depth: usize,
    nesting: usize,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, node: &'a IdedExpr) -> Result<(), String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("the expression nests deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        self.inner(&node.expr)?;
        self.depth -= 1;
        Ok(())
    }

    fn inner(&mut self, expr: &'a Expr) -> Result<(), String> {
        match expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Call(call) => {
                functions::check(&call.func_name)?;
                if call.func_name == functions::MATCHES {
                    self.pattern(call.args.last())?;
                }
                call.target
                    .as_deref()
                    .into_iter()
                    .chain(&call.args)
                    .try_for_each(|part| self.visit(part))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key)?;
                    self.visit(&entry.value)
                }
                EntryExpr::StructField(_) => Err("messages are not known here".to_owned()),
            }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) => Err("messages are not known here".to_owned()),
            Expr::Unspecified => Err("the expression is empty".to_owned()),
        }
    }

    fn comprehension(&mut self, comprehension: &'a ComprehensionExpr) -> Result<(), String> {
        self.bounds.loops += 1;
        if self.bounds.loops > MAX_LOOPS {
            return Err(format!("the expression loops more than {MAX_LOOPS} times"));
        }
        self.visit(&comprehension.iter_range)?;
        self.visit(&comprehension.accu_init)?;
        if self.nesting == 2 {
            return Err("a loop inside a loop inside a loop is not allowed".to_owned());
        }
        self.nesting += 1;
        self.bounds.nested |= self.nesting == 2;
        let outer = self.scope.len();
        self.scope.push(&comprehension.iter_var);
        self.scope.extend(comprehension.iter_var2.as_deref());
        self.scope.push(&comprehension.accu_var);
        self.visit(&comprehension.loop_cond)?;
        self.visit(&comprehension.loop_step)?;
        self.visit(&comprehension.result)?;
        self.scope.truncate(outer);
        self.nesting -= 1;
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        if self.scope.contains(&name) || TYPES.contains(&name) {
            return Ok(());
        }
        let variable = Variable::find(name, self.allowed)?;
        if !self.bounds.variables.contains(&variable) {
            self.bounds.variables.push(variable);
        }
        Ok(())
    }

    /// A pattern from a client could take long to compile.
    fn pattern(&mut self, argument: Option<&IdedExpr>) -> Result<(), String> {
        match argument.map(|argument| &argument.expr) {
            Some(Expr::Literal(LiteralValue::String(pattern))) => {
                self.bounds.patterns.push(pattern.inner().to_owned());
                Ok(())
            }
            _ => Err("the pattern of matches must be written in the rule".to_owned()),
        }
    }
}
