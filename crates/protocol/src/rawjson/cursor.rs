use memchr::memchr2;

use super::string_end;

/// A position in a JSON text, for reading small known shapes without building values.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Skips white space, then takes the given text if it stands there.
    pub(crate) fn take(&mut self, expected: &str) -> Option<()> {
        self.skip_space();
        if !self.text.as_bytes()[self.at..].starts_with(expected.as_bytes()) {
            return None;
        }
        self.at += expected.len();
        Some(())
    }

    /// Takes a string and returns it with its quotes and escapes.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        self.skip_space();
        let start = self.at;
        let bytes = self.text.as_bytes();
        if bytes.get(start) != Some(&b'"') {
            return None;
        }
        self.at = string_end(bytes, start)?;
        self.text.get(start..self.at)
    }

    /// Takes a number that fits into an attachment's index.
    pub(crate) fn index(&mut self) -> Option<usize> {
        self.skip_space();
        let digits = self.text.as_bytes()[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 || digits > 6 {
            return None;
        }
        let start = self.at;
        self.at += digits;
        self.text[start..self.at].parse().ok()
    }

    /// Goes to the next string or object from here on; nothing inside a string is looked at.
    pub(crate) fn next_token(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        self.at += memchr2(b'"', b'{', bytes.get(self.at..)?)?;
        Some(bytes[self.at])
    }

    fn skip_space(&mut self) {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}
