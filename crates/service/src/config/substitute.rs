//! `${NAME}` and `${NAME:-default}` in strings of the file.

use std::borrow::Cow;

use super::environment::Environment;

/// A string after its variables were put in; `changed` tells whether there were any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Substituted<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) changed: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubstituteError {
    #[error("expected the variable {0} to be set, or a default as in \"${{{0}:-default}}\"")]
    Unset(String),
    #[error("expected \"}}\" after \"${{\", or \"$${{\" for the characters themselves")]
    Open,
    #[error(
        "expected a variable as in \"${{NAME}}\" or \"${{NAME:-default}}\", got \"${{{0}}}\"; \"$${{\" stands for the characters themselves"
    )]
    Name(String),
}

/// Puts variables in; the default also stands in for a variable that is set to nothing.
pub(super) fn substitute<'a>(
    text: &'a str,
    environment: &Environment,
) -> Result<Substituted<'a>, SubstituteError> {
    let Some(mut at) = text.find("${") else {
        return Ok(Substituted {
            text: Cow::Borrowed(text),
            changed: false,
        });
    };
    let (mut rest, mut result, mut changed) = (text, String::with_capacity(text.len()), false);
    loop {
        if rest[..at].ends_with('$') {
            result.push_str(&rest[..at - 1]);
            result.push_str("${");
            rest = &rest[at + 2..];
        } else {
            result.push_str(&rest[..at]);
            let (reference, after) = rest[at + 2..].split_once('}').ok_or(SubstituteError::Open)?;
            result.push_str(&resolve(reference, environment)?);
            rest = after;
            changed = true;
        }
        match rest.find("${") {
            Some(next) => at = next,
            None => break,
        }
    }
    result.push_str(rest);
    Ok(Substituted {
        text: Cow::Owned(result),
        changed,
    })
}

fn resolve(reference: &str, environment: &Environment) -> Result<String, SubstituteError> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        return Err(SubstituteError::Name(reference.to_owned()));
    }
    match (environment.get(name), default) {
        (Some(""), Some(default)) | (None, Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.to_owned()),
        (None, None) => Err(SubstituteError::Unset(name.to_owned())),
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, SubstituteError> {
        let environment = Environment::from_iter([("HOST", "nats"), ("EMPTY", "")]);
        substitute(text, &environment).map(|done| done.text.into_owned())
    }

    #[test]
    fn puts_variables_in() {
        for (text, expected) in [
            ("plain $HOST $", "plain $HOST $"),
            ("nats://${HOST}:4222", "nats://nats:4222"),
            ("${HOST}${HOST}", "natsnats"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("$${HOST}", "${HOST}"),
            ("$${HOST} ${HOST}", "${HOST} nats"),
            ("é${HOST}é", "énatsé"),
        ] {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_reference() {
        assert_eq!(run("${NONE}"), Err(SubstituteError::Unset("NONE".to_owned())));
        assert_eq!(run("a ${HOST"), Err(SubstituteError::Open));
        assert_eq!(run("${}"), Err(SubstituteError::Name(String::new())));
        assert_eq!(run("${1A}"), Err(SubstituteError::Name("1A".to_owned())));
        assert_eq!(run("${A-b}"), Err(SubstituteError::Name("A-b".to_owned())));
    }

    #[test]
    fn tells_whether_a_variable_was_put_in() {
        let environment = Environment::from_iter([("HOST", "nats")]);
        assert!(substitute("${HOST}", &environment).unwrap().changed);
        assert!(!substitute("$${HOST}", &environment).unwrap().changed);
        assert!(!substitute("HOST", &environment).unwrap().changed);
    }
}
