use super::origins::Origins;
use super::tree::{self, Origin, Segment};

/// A setting that cannot be used: where it was written, its key, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    location: String,
    key: String,
    problem: String,
}

impl ConfigError {
    /// A problem that a later check found with the setting at `path`.
    pub fn at(origins: &Origins, path: &[&str], problem: impl Into<String>) -> Self {
        Self {
            location: origins.locate(path),
            key: origins.key(path),
            problem: problem.into(),
        }
    }

    /// The same for a path in its written form, such as `auth.keys[0].algorithm`.
    pub fn at_key(origins: &Origins, key: &str, problem: impl Into<String>) -> Self {
        let segments = super::origins::segments(key);
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        Self::at(origins, &path, problem)
    }

    pub(super) fn new(origin: &Origin, path: &[Segment], problem: impl Into<String>) -> Self {
        Self {
            location: origin.to_string(),
            key: tree::display(path),
            problem: problem.into(),
        }
    }

    /// The file and line, or the variable.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The path of the setting, empty where the file as a whole is meant.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong and what was expected.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.location)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}
