//! Rooms built from values: `user:{user.id}`, `expediente:{data.expedienteId}`.
//!
//! A value must be a string that is not empty, or an integer. Anything else, and a value that is missing,
//! makes the template fail: there is no room called `user:undefined`.

use carillon_protocol::names::Room;
use serde_json::Value;

use super::variables::{Variable, Variables};

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value {
        written: String,
        root: Variable,
        path: Vec<String>,
    },
}

impl Template {
    pub(super) fn compile(text: &str, allowed: &[Variable]) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a room such as \"user:{user.id}\"".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some((before, after)) = rest.split_once('{') else {
                parts.push(Part::Text(plain(rest)?));
                break;
            };
            if !before.is_empty() {
                parts.push(Part::Text(plain(before)?));
            }
            let (written, next) = after.split_once('}').ok_or("expected a closing }")?;
            parts.push(value(written, allowed)?);
            rest = next;
        }
        let template = Self {
            text: text.to_owned(),
            parts,
        };
        if let [Part::Text(fixed)] = &template.parts[..] {
            Room::new(fixed).map_err(|error| error.to_string())?;
        }
        Ok(template)
    }

    /// Returns the template as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether the template names the variable.
    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Value { root, .. } if *root == variable))
    }

    /// Fills the template.
    pub(super) fn fill(&self, variables: &Variables<'_>) -> Result<Room, String> {
        let mut room = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => room.push_str(text),
                Part::Value { written, root, path } => {
                    let fits = variables.with_path(*root, path, |value| append(&mut room, value));
                    if !fits {
                        return Err(format!("{written} must be a string or an integer"));
                    }
                }
            }
        }
        Room::new(&room).map_err(|error| error.to_string())
    }
}

fn append(room: &mut String, value: &Value) -> bool {
    match value {
        Value::String(text) if !text.is_empty() => room.push_str(text),
        Value::Number(number) if !number.is_f64() => room.push_str(&number.to_string()),
        _ => return false,
    }
    true
}

fn plain(text: &str) -> Result<String, String> {
    if text.contains('}') {
        Err("a closing } without an opening one".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn value(written: &str, allowed: &[Variable]) -> Result<Part, String> {
    let mut names = written.split('.');
    let root = names.next().unwrap_or_default();
    let root = Variable::find(root, allowed)?;
    let path: Vec<String> = names.map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err(format!("expected names between the dots of {{{written}}}"));
    }
    Ok(Part::Value {
        written: written.to_owned(),
        root,
        path,
    })
}
