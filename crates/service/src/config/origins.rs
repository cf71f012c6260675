use std::fmt;

use super::tree::{self, Node, Segment, Value};

/// Where each setting was written, for checks that run after loading.
#[derive(Clone)]
pub struct Origins {
    root: Node,
}

impl Origins {
    pub(super) fn new(root: Node) -> Self {
        Self { root }
    }

    /// The file and line, or the variable, that set the value at `path`.
    ///
    /// For a setting that nobody wrote it is the place of the nearest table around it. An item of a list is
    /// named by its index.
    pub fn locate(&self, path: &[&str]) -> String {
        let mut node = &self.root;
        for name in path {
            let Some(child) = node.child(name) else { break };
            node = child;
        }
        node.origin.to_string()
    }

    /// Tells whether the file or a variable sets the value at `path`.
    pub fn is_set(&self, path: &[&str]) -> bool {
        path.iter()
            .try_fold(&self.root, |node, name| node.child(name))
            .is_some()
    }

    /// The path as it is written in messages: `namespaces."/".on[2].when`.
    pub fn key(&self, path: &[&str]) -> String {
        let mut node = Some(&self.root);
        let mut segments = Vec::with_capacity(path.len());
        for name in path {
            let index = match node.map(|node| &node.value) {
                Some(Value::Table(_)) => None,
                _ => name.parse().ok(),
            };
            segments.push(index.map_or_else(|| Segment::Key((*name).to_owned()), Segment::Index));
            node = node.and_then(|node| node.child(name));
        }
        tree::display(&segments)
    }
}

impl fmt::Debug for Origins {
    /// Shows nothing of the values, among which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins").finish_non_exhaustive()
    }
}

/// Splits a written path into keys and indexes.
pub(super) fn segments(written: &str) -> Vec<String> {
    let mut segments = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut after_quote = false;
    let mut chars = written.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if quoted => current.extend(chars.next()),
            '"' => {
                after_quote = quoted;
                quoted = !quoted;
            }
            '.' | '[' | ']' if !quoted => {
                if !current.is_empty() || after_quote {
                    segments.push(std::mem::take(&mut current));
                }
                after_quote = false;
            }
            other => current.push(other),
        }
    }
    if !current.is_empty() || after_quote {
        segments.push(current);
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn splits_written_paths() {
        assert_eq!(
            segments("auth.keys[0].algorithm"),
            ["auth", "keys", "0", "algorithm"]
        );
        assert_eq!(
            segments(r#"namespaces."/a.b".on[12]"#),
            ["namespaces", "/a.b", "on", "12"]
        );
        assert_eq!(segments(r#"x."""#), ["x", ""]);
        assert!(segments("").is_empty());
    }
}
