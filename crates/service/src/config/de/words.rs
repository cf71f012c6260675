//! Values and types as messages show them.

use std::fmt::Display;

/// Shows the start of a string, and no password of an address.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let text = match text.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

pub(super) fn is_secret(key: &str) -> bool {
    ["secret", "password", "token", "credential", "private"]
        .iter()
        .any(|word| key.contains(word))
        || key == "key"
}

pub(super) fn one_of(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

/// Rust's names of types, in an operator's words.
pub(super) fn in_words(expected: &str) -> String {
    let integer = |low: &dyn Display, high: &dyn Display| format!("an integer from {low} to {high}");
    match expected {
        "u8" => integer(&0, &u8::MAX),
        "u16" => integer(&0, &u16::MAX),
        "u32" => integer(&0, &u32::MAX),
        "u64" | "usize" | "u128" => "an integer of 0 or more".to_owned(),
        "i8" => integer(&i8::MIN, &i8::MAX),
        "i16" => integer(&i16::MIN, &i16::MAX),
        "i32" => integer(&i32::MIN, &i32::MAX),
        "i64" | "isize" | "i128" => "an integer".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a path".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "socket address" => ADDRESS.to_owned(),
        "IP address" => IP_ADDRESS.to_owned(),
        other => match other.strip_prefix("a nonzero ") {
            Some("u8") => integer(&1, &u8::MAX),
            Some("u16") => integer(&1, &u16::MAX),
            Some("u32") => integer(&1, &u32::MAX),
            Some("u64" | "usize") => "an integer of 1 or more".to_owned(),
            _ if other.starts_with("struct ") || other.starts_with("internally tagged enum ") => {
                "a table".to_owned()
            }
            _ if other.starts_with("tuple ") => "a list".to_owned(),
            _ => other.to_owned(),
        },
    }
}

const ADDRESS: &str = "an address such as \"127.0.0.1:7000\"";
const IP_ADDRESS: &str = "an IP address such as \"127.0.0.1\"";

/// The standard library's parsing errors do not say what they expected.
pub(super) fn reworded(message: &str) -> String {
    match message {
        "invalid socket address syntax" => format!("expected {ADDRESS}"),
        "invalid IP address syntax" => format!("expected {IP_ADDRESS}"),
        other => other.to_owned(),
    }
}
