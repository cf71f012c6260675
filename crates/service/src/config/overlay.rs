//! Variables laid over the file.

use std::sync::Arc;

use super::ConfigError;
use super::environment::{Alias, Environment, read_value};
use super::tree::{Entry, Node, Origin, Segment, Value};

const FILE_SUFFIX: &str = "_FILE";

/// Most sections that a variable's name may go down.
const MAX_DEPTH: usize = 32;

/// Lays the short names over the tree.
pub(super) fn aliases(
    root: &mut Node,
    environment: &Environment,
    aliases: &[Alias],
) -> Result<(), ConfigError> {
    for alias in aliases {
        let direct = environment.get(alias.variable()).filter(|text| !text.is_empty());
        let file_variable = format!("{}{FILE_SUFFIX}", alias.variable());
        let file = environment.get(&file_variable).filter(|path| !path.is_empty());
        let setting = match (direct, file) {
            (None, None) => continue,
            (Some(_), Some(_)) => return Err(both(alias.variable(), &file_variable)),
            (Some(text), None) => Setting::direct(alias.variable(), text),
            (None, Some(path)) => Setting::from_file(&file_variable, path)?,
        };
        set(root, alias.path(), &mut Vec::new(), &setting, &|current, text| {
            alias.apply(current, text)
        })?;
    }
    Ok(())
}

/// Lays `CARILLON_SECTION__KEY` over the tree.
///
/// A name without a double underscore is no setting: orchestrators add such names for every service.
pub(super) fn prefixed(root: &mut Node, environment: &Environment, prefix: &str) -> Result<(), ConfigError> {
    for (variable, text) in environment.iter() {
        let Some(name) = variable.strip_prefix(prefix).filter(|name| name.contains("__")) else {
            continue;
        };
        let (name, setting) = match name.strip_suffix(FILE_SUFFIX) {
            Some(name) => {
                let direct = format!("{prefix}{name}");
                if environment.get(&direct).is_some() {
                    return Err(both(&direct, variable));
                }
                (name, Setting::from_file(variable, text)?)
            }
            None => (name, Setting::direct(variable, text)),
        };
        let name = name.to_ascii_lowercase();
        let path: Vec<&str> = name.split("__").collect();
        if path.len() > MAX_DEPTH || path.iter().any(|segment| segment.is_empty()) {
            let problem = format!("expected a name such as {prefix}SECTION__KEY");
            return Err(ConfigError::new(&setting.origin, &[], problem));
        }
        set(root, &path, &mut Vec::new(), &setting, &|_, text| {
            Ok(text.to_owned())
        })?;
    }
    Ok(())
}

fn both(direct: &str, file: &str) -> ConfigError {
    let problem = format!("expected one of {direct} and {file}, got both");
    ConfigError::new(&Origin::Variable(Arc::from(file)), &[], problem)
}

struct Setting {
    origin: Origin,
    text: String,
    hidden: bool,
}

impl Setting {
    fn direct(variable: &str, text: &str) -> Self {
        Self {
            origin: Origin::Variable(Arc::from(variable)),
            text: text.to_owned(),
            hidden: false,
        }
    }

    fn from_file(variable: &str, path: &str) -> Result<Self, ConfigError> {
        let origin = Origin::Variable(Arc::from(variable));
        match read_value(path) {
            Ok(text) => Ok(Self {
                origin,
                text,
                hidden: true,
            }),
            Err(problem) => Err(ConfigError::new(&origin, &[], problem)),
        }
    }
}

type Apply<'a> = &'a dyn Fn(Option<&str>, &str) -> Result<String, String>;

fn set(
    node: &mut Node,
    path: &[&str],
    walked: &mut Vec<Segment>,
    setting: &Setting,
    apply: Apply<'_>,
) -> Result<(), ConfigError> {
    let Some((&name, rest)) = path.split_first() else {
        let text = apply(node.as_str(), &setting.text)
            .map_err(|problem| ConfigError::new(&setting.origin, walked, problem))?;
        *node = Node::new(
            setting.origin.clone(),
            Value::Text {
                text,
                hidden: setting.hidden,
            },
        );
        return Ok(());
    };
    if !matches!(node.value, Value::Table(_) | Value::List(_)) {
        *node = Node::table(setting.origin.clone());
    }
    match &mut node.value {
        Value::List(items) if name == "*" => {
            let depth = walked.len();
            for (index, item) in items.iter_mut().enumerate() {
                walked.truncate(depth);
                walked.push(Segment::Index(index));
                set(item, rest, walked, setting, apply)?;
            }
            Ok(())
        }
        Value::List(items) => {
            let index = name.parse().ok().filter(|&index: &usize| index <= items.len());
            let Some(index) = index else {
                let problem = format!(
                    "expected the number of an item, 0 to {}, got {name:?}",
                    items.len()
                );
                return Err(ConfigError::new(&setting.origin, walked, problem));
            };
            if index == items.len() {
                items.push(Node::table(setting.origin.clone()));
            }
            walked.push(Segment::Index(index));
            set(&mut items[index], rest, walked, setting, apply)
        }
        Value::Table(entries) => {
            let found = entries.iter().position(|entry| entry.key == name);
            let is_list = |at: usize| matches!(entries[at].node.value, Value::List(_));
            // `*` over a list that nobody wrote sets nothing.
            if rest.first() == Some(&"*") && !found.is_some_and(is_list) {
                return Ok(());
            }
            let at = found.unwrap_or_else(|| {
                let (key, origin) = (name.to_owned(), setting.origin.clone());
                entries.push(Entry {
                    key,
                    node: Node::table(origin.clone()),
                    origin,
                });
                entries.len() - 1
            });
            walked.push(Segment::Key(name.to_owned()));
            set(&mut entries[at].node, rest, walked, setting, apply)
        }
        _ => Ok(()),
    }
}
