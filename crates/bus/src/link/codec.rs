//! The NATS client protocol, as far as the link speaks it.
//!
//! Source: the NATS protocol document, "Client Protocol".

use std::borrow::Cow;
use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};
use carillon_protocol::headers::Headers;
use memchr::{memchr, memchr2};

/// Longest control line that a server sends but for `INFO`.
const MAX_LINE: usize = 64 * 1024;
/// Largest message that is taken.
const MAX_MESSAGE: usize = 64 << 20;

/// What the server said, where it was read to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    Info(&'a [u8]),
    Message {
        id: u64,
        subject: &'a [u8],
        reply: Option<&'a [u8]>,
        headers: &'a [u8],
        body: &'a [u8],
    },
    Ping,
    Pong,
    Ok,
    Error(Cow<'a, str>),
}

/// The server does not speak the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server broke the protocol: {0}")]
pub(super) struct Broken(&'static str);

/// Reads the operation that bytes begin with, and tells its length; `None` where more bytes are needed.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Broken> {
    let Some(end) = memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_LINE {
            Err(Broken("a line without end"))
        } else {
            Ok(None)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let (verb, rest) = word(line);
    let operation = match verb {
        b"MSG" => return message(rest, false, bytes, end + 1),
        b"HMSG" => return message(rest, true, bytes, end + 1),
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Ok,
        b"-ERR" => {
            let text = rest.trim_ascii();
            let text = text.strip_prefix(b"'").unwrap_or(text);
            Operation::Error(String::from_utf8_lossy(text.strip_suffix(b"'").unwrap_or(text)))
        }
        b"INFO" => Operation::Info(rest),
        _ => return Err(Broken("an unknown operation")),
    };
    Ok(Some((operation, end + 1)))
}

/// `MSG <subject> <sid> [reply] <size>` and `HMSG <subject> <sid> [reply] <header size> <total size>`; headers and body
/// follow the line.
fn message<'a>(
    line: &'a [u8],
    has_headers: bool,
    bytes: &'a [u8],
    start: usize,
) -> Result<Option<(Operation<'a>, usize)>, Broken> {
    let mut parts: [&[u8]; 5] = [b""; 5];
    let mut count = 0;
    // Any other byte may stand in a subject, which others choose.
    let mut rest = line;
    while !rest.is_empty() {
        let part;
        (part, rest) = word(rest);
        if !part.is_empty() {
            *parts
                .get_mut(count)
                .ok_or(Broken("too many fields of a message"))? = part;
            count += 1;
        }
    }
    let fewest = 3 + usize::from(has_headers);
    if count < fewest {
        return Err(Broken("too few fields of a message"));
    }
    let id = number(parts[1])?;
    let total = number(parts[count - 1])? as usize;
    let header_size = if has_headers {
        number(parts[count - 2])? as usize
    } else {
        0
    };
    if total > MAX_MESSAGE || header_size > total {
        return Err(Broken("a message of impossible size"));
    }
    // A line break ends it.
    let length = start + total + 2;
    let Some(content) = bytes.get(start..length).map(|content| &content[..total]) else {
        return Ok(None);
    };
    let (headers, body) = content.split_at(header_size);
    let message = Operation::Message {
        id,
        subject: parts[0],
        reply: (count > fewest).then_some(parts[2]),
        headers,
        body,
    };
    Ok(Some((message, length)))
}

/// Splits what stands before the first space from what stands behind it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr2(b' ', b'\t', line) {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &[]),
    }
}

fn number(digits: &[u8]) -> Result<u64, Broken> {
    let add = |number: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    let number = digits.iter().try_fold(0, add).filter(|_| !digits.is_empty());
    number.ok_or(Broken("a number was expected"))
}

pub(super) fn subscribe(buffer: &mut BytesMut, id: u64, subject: &str, queue: Option<&str>) {
    let (space, queue) = queue.map_or(("", ""), |queue| (" ", queue));
    put(buffer, format_args!("SUB {subject}{space}{queue} {id}\r\n"));
}

pub(super) fn unsubscribe(buffer: &mut BytesMut, id: u64) {
    put(buffer, format_args!("UNSUB {id}\r\n"));
}

pub(super) fn publish(
    buffer: &mut BytesMut,
    subject: &str,
    reply: Option<&str>,
    headers: &Headers,
    body: &[u8],
) {
    let block = block(headers);
    buffer.put_slice(if block.is_empty() { b"PUB " } else { b"HPUB " });
    buffer.put_slice(subject.as_bytes());
    if let Some(reply) = reply {
        buffer.put_u8(b' ');
        buffer.put_slice(reply.as_bytes());
    }
    if !block.is_empty() {
        put(buffer, format_args!(" {}", block.len()));
    }
    put(buffer, format_args!(" {}\r\n", block.len() + body.len()));
    buffer.put_slice(block.as_bytes());
    buffer.put_slice(body);
    buffer.put_slice(b"\r\n");
}

/// Returns the header block; without headers there is none.
fn block(headers: &Headers) -> String {
    let mut block = String::new();
    if headers.is_empty() {
        return block;
    }
    block.push_str("NATS/1.0\r\n");
    for (name, value) in headers.iter() {
        block.push_str(name);
        block.push_str(": ");
        if value.contains(['\r', '\n']) {
            // A line break would end the header; nothing of ours has one.
            block.extend(value.chars().filter(|char| !matches!(char, '\r' | '\n')));
        } else {
            block.push_str(value);
        }
        block.push_str("\r\n");
    }
    block.push_str("\r\n");
    block
}

fn put(buffer: &mut BytesMut, text: fmt::Arguments<'_>) {
    buffer.write_fmt(text).expect("a buffer grows");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn word() -> impl Strategy<Value = Vec<u8>> {
        let byte = any::<u8>().prop_filter("it ends a word", |byte| !b" \t\r\n".contains(byte));
        vec(byte, 1..20)
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_operation_within_them_or_none(
            verb in prop::sample::select(&["", "MSG ", "HMSG a 1 ", "INFO ", "-ERR ", "PING"][..]),
            bytes in vec(any::<u8>(), 0..60),
        ) {
            let bytes = [verb.as_bytes(), &bytes].concat();
            if let Ok(Some((_, length))) = decode(&bytes) {
                prop_assert!((1..=bytes.len()).contains(&length));
            }
        }

        #[test]
        fn a_message_is_read_whatever_follows_it(
            subject in word(), reply in proptest::option::of(word()), id: u64,
            headers in vec(any::<u8>(), 0..30), body in vec(any::<u8>(), 0..60), rest in vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = [b"HMSG ", &subject[..], format!(" {id} ").as_bytes()].concat();
            bytes.extend(reply.iter().flatten());
            bytes.extend(format!(" {} {}\r\n", headers.len(), headers.len() + body.len()).bytes());
            bytes.extend([&headers[..], &body, b"\r\n"].concat());
            let length = bytes.len();
            bytes.extend(rest);
            let message = Operation::Message {
                id,
                subject: &subject,
                reply: reply.as_deref(),
                headers: &headers,
                body: &body,
            };
            prop_assert_eq!(decode(&bytes), Ok(Some((message, length))));
        }
    }

    fn all(mut bytes: &[u8]) -> Result<Vec<Operation<'_>>, Broken> {
        let mut operations = Vec::new();
        while let Some((operation, length)) = decode(bytes)? {
            operations.push(operation);
            bytes = &bytes[length..];
        }
        Ok(operations)
    }

    #[test]
    fn messages_come_with_and_without_headers() {
        let operations =
            all(b"MSG a.b 9 5\r\nhello\r\nHMSG x 7 reply 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\n").unwrap();
        let [
            Operation::Message {
                id: 9,
                subject,
                reply: None,
                body,
                ..
            },
            Operation::Message {
                id: 7,
                reply: Some(reply),
                headers,
                body: hi,
                ..
            },
            Operation::Ping,
        ] = &operations[..]
        else {
            panic!("{operations:?}");
        };
        assert_eq!((*subject, *body, *hi), (&b"a.b"[..], &b"hello"[..], &b"hi"[..]));
        assert_eq!((*reply, headers.len()), (&b"reply"[..], 12));
    }

    #[test]
    fn any_bytes_may_stand_in_a_subject_and_in_headers() {
        let operations =
            all(b"MSG \x0ca.\xff\x0c\xc2\xa0 9 0\r\n\r\nHMSG x 7 7 7\r\n\xff \r:\r\n\n\r\n").unwrap();
        let [
            Operation::Message { subject, .. },
            Operation::Message { headers, .. },
        ] = &operations[..]
        else {
            panic!("{operations:?}");
        };
        assert_eq!(*subject, b"\x0ca.\xff\x0c\xc2\xa0");
        assert_eq!(*headers, b"\xff \r:\r\n\n");
    }

    #[test]
    fn every_prefix_is_incomplete_and_loses_nothing() {
        let whole = b"HMSG x 7 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), Ok(None), "{cut}");
        }
        assert!(matches!(
            decode(whole),
            Ok(Some((Operation::Message { id: 7, .. }, length))) if length == whole.len()
        ));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            &b"HELLO\r\n"[..],
            b"MSG a\r\n",
            b"MSG a b c\r\n",
            b"HMSG a 1 9 4\r\n",
            b"MSG a 1 99999999999\r\n",
        ] {
            assert!(all(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_subscription_may_be_of_a_queue_group() {
        let mut buffer = BytesMut::new();
        subscribe(&mut buffer, 1, "a", None);
        subscribe(&mut buffer, 2, "b.*", Some("group"));
        assert_eq!(&buffer[..], b"SUB a 1\r\nSUB b.* group 2\r\n");
    }

    #[test]
    fn a_publish_counts_its_bytes() {
        let mut buffer = BytesMut::new();
        publish(&mut buffer, "s", Some("r"), &Headers::new().with("A", "1"), b"xy");
        assert_eq!(&buffer[..], b"HPUB s r 18 20\r\nNATS/1.0\r\nA: 1\r\n\r\nxy\r\n");
        buffer.clear();
        publish(
            &mut buffer,
            "s",
            None,
            &Headers::new().with("A", "1\r\nB: 2"),
            b"",
        );
        assert_eq!(&buffer[..], b"HPUB s 22 22\r\nNATS/1.0\r\nA: 1B: 2\r\n\r\n\r\n");
        buffer.clear();
        publish(&mut buffer, "s", None, &Headers::new(), b"");
        assert_eq!(&buffer[..], b"PUB s 0\r\n\r\n");
    }
}
