//! The texts that clients are sent, without Engine.IO's `4` before them.
//!
//! Each is appended to a buffer, so that a frame with its header is built in one piece. `arguments` is the text
//! between the brackets of a JSON array, empty for none. With attachments, it has placeholders in their place.

use crate::offset::Offset;
use crate::rawjson::{write_number, write_string};

/// An event for a client.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub namespace: &'a str,
    /// Asks for an acknowledgement.
    pub id: Option<u64>,
    pub name: &'a str,
    pub arguments: &'a str,
    /// How many binary messages follow.
    pub attachments: usize,
    /// Stands at the end, where [`patch`] can replace it in a copy.
    pub offset: Option<Offset>,
}

impl Event<'_> {
    /// Appends the event.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.namespace.len() + self.name.len() + self.arguments.len() + 64);
        head(
            out,
            if self.attachments == 0 { b'2' } else { b'5' },
            self.attachments,
            self.namespace,
        );
        if let Some(id) = self.id {
            write_number(out, id);
        }
        out.push(b'[');
        write_string(out, self.name);
        if !self.arguments.is_empty() {
            out.push(b',');
            out.extend_from_slice(self.arguments.as_bytes());
        }
        if let Some(offset) = self.offset {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(&offset.text());
            out.push(b'"');
        }
        out.push(b']');
    }

    /// Returns the event alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Replaces the offset at the end of an encoded event, here or in the JSON of plain clients.
///
/// Both end in the offset's text, a quote and one bracket.
pub fn patch(frame: &mut [u8], offset: Offset) {
    let end = frame.len().saturating_sub(2);
    if let Some(text) = end
        .checked_sub(Offset::LEN)
        .and_then(|start| frame.get_mut(start..end))
    {
        text.copy_from_slice(&offset.text());
    }
}

/// Appends the answer to an event that asked for one.
pub fn ack(out: &mut Vec<u8>, namespace: &str, id: u64, arguments: &str, attachments: usize) {
    head(
        out,
        if attachments == 0 { b'3' } else { b'6' },
        attachments,
        namespace,
    );
    write_number(out, id);
    out.push(b'[');
    out.extend_from_slice(arguments.as_bytes());
    out.push(b']');
}

/// Appends the admission to a namespace; without recovery there is no `pid`.
pub fn connect(out: &mut Vec<u8>, namespace: &str, sid: &str, pid: Option<&str>) {
    head(out, b'0', 0, namespace);
    out.extend_from_slice(b"{\"sid\":");
    write_string(out, sid);
    if let Some(pid) = pid {
        out.extend_from_slice(b",\"pid\":");
        write_string(out, pid);
    }
    out.push(b'}');
}

/// Appends the refusal of a namespace, with JSON beside the message or without.
pub fn connect_error(out: &mut Vec<u8>, namespace: &str, message: &str, data: Option<&str>) {
    head(out, b'4', 0, namespace);
    out.extend_from_slice(b"{\"message\":");
    write_string(out, message);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data.as_bytes());
    }
    out.push(b'}');
}

/// Appends the end of a namespace: a stock client does not come back after it.
pub fn disconnect(out: &mut Vec<u8>, namespace: &str) {
    head(out, b'1', 0, namespace);
}

fn head(out: &mut Vec<u8>, kind: u8, attachments: usize, namespace: &str) {
    out.push(kind);
    if attachments > 0 {
        write_number(out, attachments as u64);
        out.push(b'-');
    }
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
}
