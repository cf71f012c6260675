use std::collections::BTreeMap;
use std::path::Path;

/// The variables a process was started with; the binary collects them, tests make them up.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All variables in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl std::fmt::Debug for Environment {
    /// Shows names alone, since values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A short name for a setting, such as `WS_PORT`.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    variable: &'static str,
    path: &'static [&'static str],
    change: Option<Change>,
}

/// Makes the new text from the file's, if it has one, and the variable's; or tells what was expected.
type Change = fn(Option<&str>, &str) -> Result<String, String>;

impl Alias {
    /// A variable that sets the value at `path`, as its long name would.
    ///
    /// In the path a number is an item of a list, and `*` every item.
    pub const fn new(variable: &'static str, path: &'static [&'static str]) -> Self {
        Self {
            variable,
            path,
            change: None,
        }
    }

    /// A variable that changes part of the value at `path`.
    pub const fn with(variable: &'static str, path: &'static [&'static str], change: Change) -> Self {
        Self {
            variable,
            path,
            change: Some(change),
        }
    }

    pub(super) fn variable(&self) -> &'static str {
        self.variable
    }

    pub(super) fn path(&self) -> &'static [&'static str] {
        self.path
    }

    /// The text to set, given what stands there.
    pub(super) fn apply(&self, current: Option<&str>, text: &str) -> Result<String, String> {
        match self.change {
            Some(change) => change(current, text),
            None => Ok(text.to_owned()),
        }
    }
}

/// Most that a file behind a `…_FILE` variable may hold.
const MAX_VALUE: u64 = 1024 * 1024;

/// Reads the file that a `…_FILE` variable names, without its last line break.
pub(super) fn read_value(path: &str) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("expected a readable file, got {path:?}: {error}");
    let size = std::fs::metadata(Path::new(path)).map_err(unreadable)?.len();
    if size > MAX_VALUE {
        return Err(format!(
            "expected a file of at most {MAX_VALUE} bytes, got {path:?} of {size}"
        ));
    }
    let mut text = std::fs::read_to_string(path).map_err(unreadable)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
