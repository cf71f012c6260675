//! NATS message headers, as Carillon uses them: few, short, looked up by name.

use smallvec::SmallVec;

/// Names of the headers that Carillon writes or reads.
pub mod name {
    /// The event's name, encoded as a subject token.
    pub const EVENT: &str = "Carillon-Event";
    /// Present where the body is the array of arguments instead of the one argument.
    pub const ARGS: &str = "Carillon-Args";
    /// The publisher's id of the event, encoded as a subject token.
    pub const ID: &str = "Carillon-Id";
    /// The connections that shall not get the event, with commas.
    pub const EXCEPT: &str = "Carillon-Except";
    /// The sequence in INGEST from which the event was stored.
    pub const INGEST: &str = "Carillon-Ingest";
    /// `<id>;<i>;<k>`: copy `i` of `k` (from 0) of an event for a list of rooms.
    pub const SET: &str = "Carillon-Set";
    /// What came before the event in its room ([`Before`](crate::before::Before)).
    pub const BEFORE: &str = "Carillon-Before";
    /// Milliseconds since 1970 at which the event was accepted.
    pub const TIME: &str = "Carillon-Time";
    /// Why a body was refused.
    pub const REASON: &str = "Carillon-Reason";
    /// The subject on which a refused body came.
    pub const SUBJECT: &str = "Carillon-Subject";
    /// A request of a long-polling client between two edges, as JSON.
    pub const ENGINE: &str = "Carillon-Engine";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context of vendors.
    pub const TRACESTATE: &str = "tracestate";
    /// JetStream: the sequence that must be the last of the subject.
    pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
    /// JetStream: names one publish.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// JetStream: seconds after which the message goes.
    pub const TTL: &str = "Nats-TTL";
    /// RePublish: the sequence of the stored message.
    pub const SEQUENCE: &str = "Nats-Sequence";
    /// RePublish: the previous sequence still stored on the subject.
    pub const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
    /// RePublish and direct get: the subject on which the message is stored.
    pub const STORED_SUBJECT: &str = "Nats-Subject";
    /// RePublish: the stream.
    pub const STREAM: &str = "Nats-Stream";
    /// A marker for a deletion, not a message.
    pub const MARKER: &str = "Nats-Marker-Reason";
}

/// Headers in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Returns no headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the raw block of an `HMSG`, as far as it can be read: others write it, and the server passes it on as
    /// it is. A field without a proper name is left out, and bytes that are not UTF-8 are replaced in a value.
    pub fn read(block: &[u8]) -> Self {
        let mut headers = Self::new();
        for (name, value) in lines(block) {
            if let Ok(name) = std::str::from_utf8(name)
                && !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                headers.push(name, String::from_utf8_lossy(value));
            }
        }
        headers
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Adds a header, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.push(name, value);
        self
    }

    /// Returns the first value of a header; names are compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns a header as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Walks over all headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The fields of a raw block of an `HMSG`, split once for several look-ups.
pub struct Fields<'a>(SmallVec<[(&'a [u8], &'a [u8]); 12]>);

impl<'a> Fields<'a> {
    /// Splits a block into its fields, copying nothing.
    pub fn read(block: &'a [u8]) -> Self {
        Self(lines(block).collect())
    }

    /// Returns the first value of a header; names are compared without case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| *known == name.as_bytes() || known.eq_ignore_ascii_case(name.as_bytes()));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Returns a header as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Walks over the fields of a raw header block, past its version line.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = match memchr::memchr(b'\n', block) {
        Some(end) => &block[end + 1..],
        None => &[],
    };
    std::iter::from_fn(move || {
        loop {
            let end = memchr::memchr(b'\n', rest)?;
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            rest = &rest[end + 1..];
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            return Some((&line[..colon], line[colon + 1..].trim_ascii()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_block_is_searched_without_case() {
        let find = |block, name| Fields::read(block).get(name);
        let block: &[u8] = b"NATS/1.0\r\nNats-Sequence: 12\r\nX:\r\nbroken\r\nLast: a:b\r\n\r\n";
        assert_eq!(find(block, "nats-sequence"), Some("12"));
        assert_eq!(find(block, "X"), Some(""));
        assert_eq!(find(block, "last"), Some("a:b"));
        assert_eq!(find(block, "none"), None);
        assert_eq!(find(b"", "x"), None);
    }

    #[test]
    fn a_block_is_read_as_far_as_it_can_be() {
        let block = b"HTTP/1.1 200\r\nA: 1\r\nb c: 2\r\n\xc3\xa9: 3\r\n\xff: 4\r\nno colon\r\n: 5\r\nB: \xff\rx\r\n\r\nA: 6\r\nC: 7";
        let headers = Headers::read(block);
        let read: Vec<_> = headers.iter().collect();
        assert_eq!(read, [("A", "1"), ("B", "\u{fffd}\rx"), ("A", "6")]);
        assert!(Headers::read(b"").is_empty());
    }
}
