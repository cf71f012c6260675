//! Patterns of rooms: `expediente:{id}`, `sensores/{topic*}`.
//!
//! `{id}` stands for one or more characters other than `:`, so that a client cannot write another kind of
//! room into a parameter; `{id*}` stands for any characters and may only come last. Each parameter takes as
//! few characters as it can, the last one the rest, and nothing is tried twice.

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("expected a pattern such as \"classroom:{{id}}\"")]
    Empty,
    #[error("expected a closing }}")]
    Unclosed,
    #[error("a closing }} without an opening one")]
    Unopened,
    #[error("expected a name between the braces, found {0:?}")]
    Name(String),
    #[error("the parameter {0:?} comes twice")]
    Twice(String),
    #[error("{{{0}}} may only come last")]
    NotLast(String),
    #[error("expected text between {{{0}}} and the next parameter")]
    Adjacent(String),
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// What stands before the first parameter.
    head: String,
    parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    any: bool,
    /// The text after it, empty at the end.
    tail: String,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        if text.is_empty() {
            return Err(BadPattern::Empty);
        }
        let (head, mut rest) = text
            .split_once('{')
            .map_or((text, None), |(head, rest)| (head, Some(rest)));
        let mut parameters: Vec<Parameter> = Vec::new();
        while let Some(part) = rest {
            let (written, after) = part.split_once('}').ok_or(BadPattern::Unclosed)?;
            let (tail, next) = after
                .split_once('{')
                .map_or((after, None), |(tail, rest)| (tail, Some(rest)));
            let (name, any) = written
                .strip_suffix('*')
                .map_or((written, false), |name| (name, true));
            if !is_name(name) {
                return Err(BadPattern::Name(written.to_owned()));
            }
            if parameters.iter().any(|known| known.name == name) {
                return Err(BadPattern::Twice(name.to_owned()));
            }
            if any && !after.is_empty() {
                return Err(BadPattern::NotLast(written.to_owned()));
            }
            if tail.is_empty() && next.is_some() {
                return Err(BadPattern::Adjacent(written.to_owned()));
            }
            parameters.push(Parameter {
                name: name.to_owned(),
                any,
                tail: tail.to_owned(),
            });
            rest = next;
        }
        if head.contains('}') || parameters.iter().any(|parameter| parameter.tail.contains('}')) {
            return Err(BadPattern::Unopened);
        }
        Ok(Self {
            text: text.to_owned(),
            head: head.to_owned(),
            parameters,
        })
    }

    /// Returns the pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what the pattern begins with.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Returns whether the room fits.
    pub fn matches(&self, room: &str) -> bool {
        self.parse(room).is_some()
    }

    /// Returns the parameters' values if the room fits.
    pub fn parse<'r>(&self, room: &'r str) -> Option<Vec<(&str, &'r str)>> {
        let mut rest = room.strip_prefix(self.head.as_str())?;
        let mut values = Vec::with_capacity(self.parameters.len());
        for (at, parameter) in self.parameters.iter().enumerate() {
            let last = at + 1 == self.parameters.len();
            let end = if last {
                rest.strip_suffix(parameter.tail.as_str())?.len()
            } else {
                let first = rest.chars().next()?.len_utf8();
                first + rest[first..].find(parameter.tail.as_str())?
            };
            let value = &rest[..end];
            if value.is_empty() || (!parameter.any && value.contains(':')) {
                return None;
            }
            values.push((parameter.name.as_str(), value));
            rest = &rest[end + parameter.tail.len()..];
        }
        rest.is_empty().then_some(values)
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(pattern: &str, room: &'a str) -> Option<Vec<(String, &'a str)>> {
        let pattern = Pattern::new(pattern).unwrap();
        Some(
            pattern
                .parse(room)?
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    #[test]
    fn parameters_take_their_part() {
        let id = |value| Some(vec![("id".to_owned(), value)]);
        assert_eq!(parse("admin", "admin"), Some(vec![]));
        assert_eq!(parse("admin", "admin2"), None);
        assert_eq!(parse("a:{id}", "a:7"), id("7"));
        assert_eq!(parse("a:{id}", "a:"), None);
        assert_eq!(parse("a:{id}", "a:7:admin"), None);
        assert_eq!(parse("a:{id*}", "a:7:admin"), id("7:admin"));
        assert_eq!(parse("a:{id*}", "a:"), None);
        assert_eq!(parse("{id}", "user:7"), None);
        assert_eq!(parse("{id}-x", "b-y-x"), id("b-y"));
        assert_eq!(parse("{id}", "ñandú"), id("ñandú"));
        let two = parse("c:{a}/{b}", "c:1/2/3").unwrap();
        assert_eq!(two, [("a".to_owned(), "1"), ("b".to_owned(), "2/3")]);
        assert_eq!(parse("c:{a}/{b}", "c:/2"), None);
        assert_eq!(parse("{a}/{b}/end", "1/2/end").unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (pattern, expected) in [
            ("", "expected a pattern"),
            ("a:{id", "closing }"),
            ("a:id}", "without an opening"),
            ("a:{id}}", "without an opening"),
            ("a:{}", "expected a name"),
            ("a:{1x}", "expected a name"),
            ("{a}{b}", "text between"),
            ("{a}:{a}", "comes twice"),
            ("{a*}:b", "only come last"),
        ] {
            let problem = Pattern::new(pattern).unwrap_err().to_string();
            assert!(problem.contains(expected), "{pattern}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_room_is_read_without_a_panic(room in ".{0,40}", pattern in "[a:/]{0,2}(\\{x\\}[a:/]{1,2})?\\{y\\*?\\}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                for (_, value) in pattern.parse(&room).unwrap_or_default() {
                    prop_assert!(!value.is_empty());
                }
            }
        }
    }
}
