//! JSON that is passed on as text: its nesting, its argument lists, its strings.
//!
//! Numbers and lone surrogate escapes are not judged here: whoever builds a tree of values from the text must
//! treat a failure as the sender's fault.

mod arguments;
mod cursor;

pub use arguments::Arguments;
pub(crate) use cursor::Cursor;

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;

/// How deep arrays and objects from a client may nest.
///
/// `serde_json` limits the depth of values that it builds (128), but not of those that it passes on raw.
pub const MAX_DEPTH: usize = 100;

/// The JSON nests deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the json nests deeper than {MAX_DEPTH}")]
pub struct TooDeep;

/// Checks the nesting of a text that need not be valid JSON yet.
pub fn check_depth(json: &str) -> Result<(), TooDeep> {
    let bytes = json.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => match string_end(bytes, at) {
                Some(end) => at = end,
                None => return Ok(()),
            },
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(TooDeep);
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Returns the position after the string whose opening quote stands at `start`.
pub(crate) fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Appends a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    let plain = text
        .bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string can be written into memory");
    }
}

/// Appends a number in decimal.
pub(crate) fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Reads a JSON string, borrowed where nothing is escaped.
pub(crate) fn read_string(json: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(json).map(|text| text.0)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(check_depth(r#"["[[[[", {"a":"\"{{{"}]"#), Ok(()));
        assert_eq!(check_depth(&"[".repeat(MAX_DEPTH)), Ok(()));
        assert_eq!(check_depth(&"[".repeat(MAX_DEPTH + 1)), Err(TooDeep));
        assert_eq!(check_depth(&"[]".repeat(10 * MAX_DEPTH)), Ok(()));
        assert_eq!(check_depth(r#""unfinished \"#), Ok(()));
    }

    #[test]
    fn raw_values_alone_have_no_depth_limit() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(serde_json::from_str::<&RawValue>(&deep).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&deep).is_err());
        assert_eq!(check_depth(&deep), Err(TooDeep));
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = Vec::new();
        write_string(&mut out, "a\"\\\n\u{1}ü");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\\\n\\u0001ü\"");
    }
}
