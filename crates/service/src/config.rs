//! Configuration: one TOML file, variables laid over it, and one clear message when something is wrong.
//!
//! The binary owns the root structure and collects the variables; nothing here reads the process's
//! environment. Strings of the file may hold `${NAME}` or `${NAME:-default}`. A variable's text becomes
//! whatever type its setting has.

pub mod bytes;
mod de;
pub mod duration;
mod environment;
mod error;
mod origins;
mod overlay;
mod parse;
mod substitute;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use environment::{Alias, Environment};
pub use error::ConfigError;
pub use origins::Origins;
use tree::{Node, Origin};

/// What every long variable name begins with.
const PREFIX: &str = "CARILLON_";

/// Where the settings come from: a file, or none, and variables.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: Option<File>,
    environment: Environment,
    aliases: &'static [Alias],
}

#[derive(Clone, Debug)]
enum File {
    Path(PathBuf),
    Text { name: String, text: String },
}

/// Settings with the places they were written at.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    /// Where each was written, for checks that run later.
    pub sources: Origins,
}

impl Source {
    /// Settings from variables alone.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            ..Self::default()
        }
    }

    /// Adds the file under the variables.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        Self {
            file: Some(File::Path(path.into())),
            ..self
        }
    }

    /// Adds a file's text, with the name that messages give it.
    pub fn text(self, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            file: Some(File::Text {
                name: name.into(),
                text: text.into(),
            }),
            ..self
        }
    }

    /// Adds short names; a long name counts more than a short one.
    pub fn aliases(self, aliases: &'static [Alias]) -> Self {
        Self { aliases, ..self }
    }

    fn tree(&self) -> Result<Node, ConfigError> {
        match &self.file {
            None => Ok(Node::table(Origin::Nowhere)),
            Some(File::Text { name, text }) => parse::file(name, text, &self.environment),
            Some(File::Path(path)) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let origin = Origin::File(Arc::from(name.as_str()));
                    ConfigError::new(&origin, &[], format!("expected a readable file: {error}"))
                })?;
                parse::file(&name, &text, &self.environment)
            }
        }
    }
}

/// Loads settings: the file, then short names, then long names; the first problem ends it.
pub fn load<T: DeserializeOwned>(source: &Source) -> Result<Loaded<T>, ConfigError> {
    let mut root = source.tree()?;
    overlay::aliases(&mut root, &source.environment, source.aliases)?;
    overlay::prefixed(&mut root, &source.environment, PREFIX)?;
    let value = T::deserialize(de::Reader::new(&root)).map_err(|error| error.at_root(&root))?;
    Ok(Loaded {
        value,
        sources: Origins::new(root),
    })
}
