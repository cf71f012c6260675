//! Percent-encoding of names as single subject tokens.
//!
//! `.`, `*`, `>`, `%`, white space, control and non-ASCII bytes are encoded with upper-case hex;
//! everything else stands as it is.

use std::borrow::Cow;

/// The text is not an encoded token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("a percent sign is not followed by two upper-case hex digits of an encoded byte")]
    Percent,
    #[error("a byte stands unencoded that must be encoded")]
    Unencoded,
    #[error("the decoded bytes are not UTF-8")]
    Utf8,
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn must_encode(byte: u8) -> bool {
    matches!(byte, b'.' | b'*' | b'>' | b'%') || byte <= b' ' || byte >= 0x7f
}

/// Encodes a name as one subject token.
pub fn encode(name: &str) -> Cow<'_, str> {
    if !name.bytes().any(must_encode) {
        return Cow::Borrowed(name);
    }
    let mut token = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if must_encode(byte) {
            token.push('%');
            token.push(char::from(HEX[usize::from(byte >> 4)]));
            token.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            token.push(char::from(byte));
        }
    }
    Cow::Owned(token)
}

/// Decodes a token; only the text that [`encode`] makes is accepted, so a name has exactly one token.
pub fn decode(token: &str) -> Result<Cow<'_, str>, BadToken> {
    if !token.bytes().any(must_encode) {
        return Ok(Cow::Borrowed(token));
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            if must_encode(byte) {
                return Err(BadToken::Unencoded);
            }
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return Err(BadToken::Percent);
        };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(BadToken::Percent);
        };
        let decoded = high << 4 | low;
        if !must_encode(decoded) {
            return Err(BadToken::Percent);
        }
        bytes.push(decoded);
        rest = tail;
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| BadToken::Utf8)
}

fn digit(hex: u8) -> Option<u8> {
    HEX.iter()
        .position(|&known| known == hex)
        .map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_contract() {
        for (name, token) in [
            ("a.b", "a%2Eb"),
            ("user:42", "user:42"),
            ("a/b", "a/b"),
            ("é", "%C3%A9"),
            ("50%", "50%25"),
        ] {
            assert_eq!(encode(name), token);
            assert_eq!(decode(token).unwrap(), name);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for token in ["%2e", "%", "%4", "%zz", "%41", "a b", "%FF", "%list"] {
            assert!(decode(token).is_err(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn a_name_survives(name in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let token = encode(&name).into_owned();
            prop_assert!(!token.bytes().any(|byte| byte <= b' ' || matches!(byte, b'.' | b'*' | b'>') || byte > 126));
            let decoded = decode(&token).unwrap();
            prop_assert_eq!(decoded.as_ref(), name.as_str());
        }

        #[test]
        fn any_text_is_decoded_or_refused(token in ".{0,40}") {
            if let Ok(name) = decode(&token) {
                let again = encode(&name);
                prop_assert_eq!(again.as_ref(), token.as_str());
            }
        }
    }
}
