//! Bytes inside JSON: `{"$binary":"<base64>"}` on the bus, placeholders with attachments in Socket.IO.
//!
//! Both directions rewrite the text and leave everything else in it as it was: numbers keep their digits and
//! objects their order. They accept any run of JSON values, so also the text between an array's brackets.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem;

use crate::rawjson::{Cursor, read_string, string_end};

/// Looks for [`MARK`]; made once, since every event is searched.
static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(MARK));

const MARK: &str = "\"$binary\"";
const PLACEHOLDER: &str = "\"_placeholder\"";

/// Why attachments do not fit their placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    #[error("a placeholder names the attachment {num} of {count}")]
    OutOfRange { num: usize, count: usize },
    #[error("attachment {0} has two placeholders")]
    Repeated(usize),
    #[error("{found} of {count} attachments have a placeholder")]
    Missing { found: usize, count: usize },
}

/// JSON with placeholders, and the attachments that they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    pub json: String,
    pub attachments: Vec<Bytes>,
}

/// Checks that each of `count` attachments has exactly one placeholder.
///
/// An attachment that could be named twice would let a small message grow without bound.
pub fn check_placeholders(json: &str, count: usize) -> Result<(), PlaceholderError> {
    let mut found = 0;
    // The text bounds what is set aside for a number that a peer chooses.
    if count > json.len() {
        return Err(PlaceholderError::Missing { found, count });
    }
    let mut named = vec![false; count];
    for (_, num) in Placeholders::of(json) {
        let seen = named
            .get_mut(num)
            .ok_or(PlaceholderError::OutOfRange { num, count })?;
        if std::mem::replace(seen, true) {
            return Err(PlaceholderError::Repeated(num));
        }
        found += 1;
    }
    if found == count {
        Ok(())
    } else {
        Err(PlaceholderError::Missing { found, count })
    }
}

/// Puts attachments in the place of their placeholders, as `{"$binary":"<base64>"}`.
pub fn embed(json: &str, attachments: &[Bytes]) -> Result<String, PlaceholderError> {
    check_placeholders(json, attachments.len())?;
    let encoded: usize = attachments
        .iter()
        .map(|bytes| bytes.len().div_ceil(3) * 4 + 16)
        .sum();
    let mut out = String::with_capacity(json.len() + encoded);
    let mut copied = 0;
    for (range, num) in Placeholders::of(json) {
        out.push_str(&json[copied..range.start]);
        out.push_str("{\"$binary\":\"");
        STANDARD.encode_string(&attachments[num], &mut out);
        out.push_str("\"}");
        copied = range.end;
    }
    out.push_str(&json[copied..]);
    Ok(out)
}

/// Takes the bytes out of the JSON, in the order of the text; `None` where it is best sent as it is.
///
/// That is so without any bytes, with more than `max` of them (a stock client refuses more than
/// [`MAX_SENT_ATTACHMENTS`](crate::socketio::MAX_SENT_ATTACHMENTS) and closes), and where the text has a
/// `_placeholder` of its own, which a client would take for one of ours.
pub fn extract(json: &str, max: usize) -> Option<Extracted> {
    FINDER.find(json.as_bytes())?;
    let mut out = String::with_capacity(json.len());
    let mut attachments = Vec::new();
    let mut copied = 0;
    let mut cursor = Cursor::new(json, 0);
    while let Some(token) = cursor.next_token() {
        let start = cursor.position();
        let mut end = start + 1;
        if token == b'"' {
            end = string_end(json.as_bytes(), start)?;
            if is_placeholder_key(&json[start..end]) {
                return None;
            }
        } else if let Some((object_end, bytes)) = binary_object(json, start) {
            end = object_end;
            out.push_str(&json[copied..start]);
            write!(out, "{{\"_placeholder\":true,\"num\":{}}}", attachments.len())
                .expect("a string takes any text");
            attachments.push(bytes);
            copied = end;
            if attachments.len() > max {
                return None;
            }
        }
        cursor = Cursor::new(json, end);
    }
    if attachments.is_empty() {
        return None;
    }
    out.push_str(&json[copied..]);
    Some(Extracted {
        json: out,
        attachments,
    })
}

/// Reads `{"$binary":"<base64>"}`, and nothing else, at a brace.
fn binary_object(json: &str, start: usize) -> Option<(usize, Bytes)> {
    let mut cursor = Cursor::new(json, start);
    cursor.take("{")?;
    cursor.take(MARK)?;
    cursor.take(":")?;
    let string = cursor.string()?;
    cursor.take("}")?;
    let base64 = read_string(string).ok()?;
    let bytes = STANDARD.decode(base64.as_bytes()).ok()?;
    Some((cursor.position(), bytes.into()))
}

fn is_placeholder_key(string: &str) -> bool {
    // Each of its characters has at most six bytes when it is escaped.
    let escaped = string.len() <= 6 * PLACEHOLDER.len() && string.contains('\\');
    string == PLACEHOLDER || escaped && read_string(string).is_ok_and(|text| text == "_placeholder")
}

/// The placeholders of a text, each with its range and number.
struct Placeholders<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Placeholders<'a> {
    fn of(json: &'a str) -> Self {
        let any = memmem::find(json.as_bytes(), PLACEHOLDER.as_bytes()).is_some();
        Self {
            json,
            at: if any { 0 } else { json.len() },
        }
    }
}

impl Iterator for Placeholders<'_> {
    type Item = (std::ops::Range<usize>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut cursor = Cursor::new(self.json, self.at);
            let token = cursor.next_token()?;
            let start = cursor.position();
            if token == b'"' {
                self.at = string_end(self.json.as_bytes(), start)?;
            } else if let Some((end, num)) = placeholder(self.json, start) {
                self.at = end;
                return Some((start..end, num));
            } else {
                self.at = start + 1;
            }
        }
    }
}

/// Reads `{"_placeholder":true,"num":N}`, in either order and nothing else, at a brace.
fn placeholder(json: &str, start: usize) -> Option<(usize, usize)> {
    let mut cursor = Cursor::new(json, start);
    let mut marked = false;
    let mut num = None;
    cursor.take("{")?;
    for member in 0..2 {
        if member > 0 {
            cursor.take(",")?;
        }
        let key = cursor.string()?;
        cursor.take(":")?;
        if key == PLACEHOLDER {
            cursor.take("true")?;
            marked = true;
        } else if key == "\"num\"" {
            num = Some(cursor.index()?);
        } else {
            return None;
        }
    }
    cursor.take("}")?;
    if marked {
        Some((cursor.position(), num?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(list: &[&'static [u8]]) -> Vec<Bytes> {
        list.iter().map(|bytes| Bytes::from_static(bytes)).collect()
    }

    #[test]
    fn attachments_take_the_place_of_placeholders() {
        let json =
            r#"{"b": {"num":1 , "_placeholder" : true}, "a":[{"_placeholder":true,"num":0}], "n":1.50}"#;
        let embedded = embed(json, &bytes(&[b"\0\xff", b""])).unwrap();
        assert_eq!(
            embedded,
            r#"{"b": {"$binary":""}, "a":[{"$binary":"AP8="}], "n":1.50}"#
        );
    }

    #[test]
    fn placeholders_and_attachments_must_match() {
        let one = r#"{"_placeholder":true,"num":0}"#;
        assert_eq!(
            embed(one, &[]),
            Err(PlaceholderError::OutOfRange { num: 0, count: 0 })
        );
        assert_eq!(
            embed("1", &bytes(&[b"a"])),
            Err(PlaceholderError::Missing { found: 0, count: 1 })
        );
        assert_eq!(
            embed(&format!("{one},{one}"), &bytes(&[b"a"])),
            Err(PlaceholderError::Repeated(0))
        );
        for other in [
            r#"{"_placeholder":false,"num":0}"#,
            r#"{"_placeholder":true}"#,
            r#"{"_placeholder":true,"num":0,"x":1}"#,
            r#"{"_placeholder":true,"num":-1}"#,
            r#"{"_placeholder":true,"num":00000000}"#,
            r#"{"_placeholder":true,"_placeholder":true}"#,
            r#""{\"_placeholder\":true,\"num\":0}""#,
            r#"{"_placeholder"#,
        ] {
            assert_eq!(embed(other, &[]).as_deref(), Ok(other));
        }
    }

    #[test]
    fn bytes_become_attachments() {
        let found = extract(r#"{"a":{"$binary":"AP8="},"b":[1e999,{ "$binary" : "" }]}"#, 10).unwrap();
        assert_eq!(
            found.json,
            r#"{"a":{"_placeholder":true,"num":0},"b":[1e999,{"_placeholder":true,"num":1}]}"#
        );
        assert_eq!(found.attachments, bytes(&[b"\0\xff", b""]));
        let escaped = extract(r#"{"$binary":"\/\/\/\/"}"#, 10).unwrap();
        assert_eq!(escaped.attachments, bytes(&[b"\xff\xff\xff"]));
    }

    #[test]
    fn what_only_resembles_bytes_stays() {
        for json in [
            r#"{"$binary":"A"}"#,
            r#"{"$binary":"AP8"}"#,
            r#"{"$binary":7}"#,
            r#"{"$binary":"AP8=","x":1}"#,
            r#"{"x":1,"$binary":"AP8="}"#,
            r#"["$binary"]"#,
            r#""{\"$binary\":\"AP8=\"}""#,
            r#"{"$binary"#,
        ] {
            assert_eq!(extract(json, 10), None, "{json}");
        }
    }

    #[test]
    fn forged_placeholders_and_too_many_bytes_stay() {
        assert_eq!(
            extract(r#"[{"$binary":""},{"_placeholder":true,"num":99}]"#, 10),
            None
        );
        assert_eq!(
            extract(r#"[{"$binary":""},{"\u005fplaceholder":true,"num":99}]"#, 10),
            None
        );
        let many = [r#"{"$binary":""}"#; 11].join(",");
        assert_eq!(extract(&many, 10), None);
        assert_eq!(extract(&many, 11).unwrap().attachments.len(), 11);
    }

    proptest! {
        #[test]
        fn embedded_bytes_are_extracted_again(list in proptest::collection::vec(any::<Vec<u8>>(), 1..10)) {
            let attachments: Vec<Bytes> = list.into_iter().map(Bytes::from).collect();
            let json: Vec<String> =
                (0..attachments.len()).map(|num| format!("{{\"_placeholder\":true,\"num\":{num}}}")).collect();
            let json = json.join(", 1.0 ,");
            let embedded = embed(&json, &attachments).unwrap();
            let extracted = extract(&embedded, 10).unwrap();
            prop_assert_eq!(extracted.json, json);
            prop_assert_eq!(extracted.attachments, attachments);
        }

        #[test]
        fn any_text_is_taken(json in r#"([{}\[\]:,"\\ ]|"_placeholder"|"num"|"\$binary"|true|"AAAA"|0|ü){0,40}"#) {
            let _ = extract(&json, 3);
            let _ = embed(&json, &[Bytes::new()]);
            let _ = crate::rawjson::check_depth(&json);
        }
    }
}
