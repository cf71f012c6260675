use std::borrow::Cow;

use serde_json::value::RawValue;

use super::packet::{Body, Limit, Packet};
use super::{MAX_NAMESPACE, is_reserved};
use crate::binary::PlaceholderError;
use crate::rawjson::{Arguments, TooDeep, check_depth, read_string};

/// What a client sent against the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("unknown packet type")]
    UnknownType,
    #[error("a packet that only servers send")]
    ServerOnly,
    #[error("a malformed number of attachments")]
    Attachments,
    #[error("the namespace is longer than {MAX_NAMESPACE} bytes")]
    LongNamespace,
    #[error("a malformed acknowledgement id")]
    BadId,
    #[error("the payload is not what a packet of this type has")]
    BadPayload,
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    #[error("the event's name is missing or no string")]
    NoName,
    #[error("the event's name is reserved")]
    ReservedName,
    #[error("a text packet among attachments")]
    UnexpectedText,
    #[error("an attachment without a packet")]
    UnexpectedBinary,
    #[error("the packet is larger than allowed")]
    TooBig,
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
}

/// A packet and how many attachments follow it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) packet: Packet<'a>,
    pub(super) attachments: usize,
    /// The limit that the packet does not keep.
    pub(super) excess: Option<Limit>,
}

/// Reads the text of a packet.
pub(super) fn parse(text: &str, max_attachments: usize) -> Result<Head<'_>, PacketError> {
    let kind = *text.as_bytes().first().ok_or(PacketError::UnknownType)?;
    let rest = text.get(1..).ok_or(PacketError::UnknownType)?;
    let (attachments, rest) = match kind {
        b'0'..=b'3' => (0, rest),
        b'4' => return Err(PacketError::ServerOnly),
        b'5' | b'6' => attachments(rest)?,
        _ => return Err(PacketError::UnknownType),
    };
    let (namespace, query, rest) = namespace(rest)?;
    let mut excess = (attachments > max_attachments).then_some(Limit::Attachments);
    if kind != b'0' && check_depth(rest).is_err() {
        excess = Some(Limit::Depth);
    }
    let body = match kind {
        b'0' => Body::Connect { auth: auth(rest)? },
        b'1' if rest.is_empty() => Body::Disconnect,
        b'1' => return Err(PacketError::BadPayload),
        b'2' | b'5' => event(rest)?,
        _ => ack(rest)?,
    };
    let packet = Packet {
        namespace: Cow::Borrowed(namespace),
        query: query.map(Cow::Borrowed),
        body,
    };
    Ok(Head {
        packet,
        attachments,
        excess,
    })
}

fn attachments(text: &str) -> Result<(usize, &str), PacketError> {
    let (count, rest) = text.split_once('-').ok_or(PacketError::Attachments)?;
    let count = digits(count).ok_or(PacketError::Attachments)?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok((count, rest)),
        _ => Err(PacketError::Attachments),
    }
}

fn namespace(text: &str) -> Result<(&str, Option<&str>, &str), PacketError> {
    if !text.starts_with('/') {
        return Ok(("/", None, text));
    }
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    if name.len() > MAX_NAMESPACE {
        return Err(PacketError::LongNamespace);
    }
    Ok(match name.split_once('?') {
        Some((name, query)) => (name, Some(query), rest),
        None => (name, None, rest),
    })
}

fn auth(json: &str) -> Result<Option<Cow<'_, str>>, PacketError> {
    if json.is_empty() {
        return Ok(None);
    }
    check_depth(json)?;
    let object: &RawValue = serde_json::from_str(json).map_err(|_| PacketError::BadPayload)?;
    if !object.get().starts_with('{') {
        return Err(PacketError::BadPayload);
    }
    Ok(Some(Cow::Borrowed(object.get())))
}

fn event(text: &str) -> Result<Body<'_>, PacketError> {
    let (id, json) = id(text)?;
    let (name, arguments) = Arguments::after_first(json).map_err(|_| PacketError::BadPayload)?;
    let name = name
        .and_then(|name| read_string(name.get()).ok())
        .ok_or(PacketError::NoName)?;
    if is_reserved(&name) {
        return Err(PacketError::ReservedName);
    }
    Ok(Body::Event { id, name, arguments })
}

fn ack(text: &str) -> Result<Body<'_>, PacketError> {
    let (id, json) = id(text)?;
    let id = id.ok_or(PacketError::BadId)?;
    let arguments = Arguments::from_array(json).map_err(|_| PacketError::BadPayload)?;
    Ok(Body::Ack { id, arguments })
}

fn id(text: &str) -> Result<(Option<u64>, &str), PacketError> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (id, rest) = text.split_at(end);
    if id.is_empty() {
        return Ok((None, rest));
    }
    Ok((Some(digits(id).ok_or(PacketError::BadId)?), rest))
}

/// Reads a number without sign or leading zeros.
fn digits(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical { text.parse().ok() } else { None }
}
