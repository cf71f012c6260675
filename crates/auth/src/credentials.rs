//! Which token a client shows.
//!
//! In this order: the handshake payload (`auth.token` of Socket.IO, or `bearer.<token>` in
//! `Sec-WebSocket-Protocol`), the `Authorization` header, the cookie, `?token=`. The first present counts; if
//! it is bad, no later one takes its place.
//!
//! Present means that something is there to be judged. An empty or `null` token, `Bearer` with nothing after
//! it and an `Authorization` of another scheme, such as a proxy's `Basic`, are not present. A token of another
//! type, or bytes that are not text, are present and bad.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The places of a request where a token may be.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// The client's handshake payload, which holds `token`.
    pub auth: Option<&'a Value>,
    /// The value of `Sec-WebSocket-Protocol`.
    pub subprotocols: Option<&'a [u8]>,
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The value of `Cookie`.
    pub cookie: Option<&'a [u8]>,
    /// The query of the URL, without the question mark.
    pub query: Option<&'a str>,
}

/// Where a token was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `auth.token` of the handshake payload.
    Payload,
    /// `bearer.<token>` among the WebSocket subprotocols.
    Subprotocol,
    /// The `Authorization` header.
    Header,
    /// The cookie, which a browser sends by itself: the request's origin must be checked.
    Cookie,
    /// `?token=`.
    Query,
}

/// The token that counts; its `Debug` hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'a> {
    source: Source,
    token: Option<Cow<'a, str>>,
}

impl Credential<'_> {
    /// Tells where the token was found.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns the token, `None` if what was found cannot be one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What one place holds: nothing, something that cannot be a token, or a token.
type Found<'a> = Option<Option<Cow<'a, str>>>;

/// Returns the first token present.
pub fn find<'a>(request: &Request<'a>, cookie_name: &str) -> Option<Credential<'a>> {
    let places: [(Source, &dyn Fn() -> Found<'a>); 5] = [
        (Source::Payload, &|| in_payload(request.auth?)),
        (Source::Subprotocol, &|| in_subprotocols(request.subprotocols?)),
        (Source::Header, &|| {
            in_header(request.authorization?).map(|token| token.map(Cow::Borrowed))
        }),
        (Source::Cookie, &|| in_cookies(request.cookie?, cookie_name)),
        (Source::Query, &|| in_query(request.query?)),
    ];
    places.into_iter().find_map(|(source, look)| {
        Some(Credential {
            source,
            token: look()?,
        })
    })
}

/// Returns the bearer token of an `Authorization` header, or its whole value if it names no scheme.
pub(crate) fn in_header(value: &[u8]) -> Option<Option<&str>> {
    let Ok(value) = std::str::from_utf8(value) else {
        return Some(None);
    };
    let token = without_bearer(value);
    let other_scheme = token.contains([' ', '\t']) && token == value.trim();
    (!token.is_empty() && !other_scheme).then_some(Some(token))
}

fn in_payload(auth: &Value) -> Found<'_> {
    match auth.get("token")? {
        Value::Null => None,
        Value::String(token) => present(Cow::Borrowed(without_bearer(token))),
        _ => Some(None),
    }
}

fn in_subprotocols(list: &[u8]) -> Found<'_> {
    let token = list
        .split(|&byte| byte == b',')
        .find_map(|name| name.trim_ascii().strip_prefix(b"bearer."))?;
    match std::str::from_utf8(token) {
        Ok(token) => present(Cow::Borrowed(token)),
        Err(_) => Some(None),
    }
}

fn in_cookies<'a>(header: &'a [u8], cookie_name: &str) -> Found<'a> {
    header.split(|&byte| byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name != cookie_name.as_bytes() {
            return None;
        }
        let value = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value);
        match std::str::from_utf8(value) {
            Ok(value) => present(Cow::Borrowed(without_bearer(value))),
            Err(_) => Some(None),
        }
    })
}

fn in_query(query: &str) -> Found<'_> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if form_decoded(name).as_deref() != Some("token") {
            return None;
        }
        match form_decoded(value) {
            Some(Cow::Borrowed(value)) => present(Cow::Borrowed(without_bearer(value))),
            Some(Cow::Owned(value)) => present(Cow::Owned(without_bearer(&value).to_owned())),
            None => Some(None),
        }
    })
}

fn present(token: Cow<'_, str>) -> Found<'_> {
    (!token.is_empty()).then_some(Some(token))
}

fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced)
            .decode_utf8()
            .ok()
            .map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(text).decode_utf8().ok()
}

fn without_bearer(value: &str) -> &str {
    const SCHEME: &str = "Bearer";
    let value = value.trim();
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case(SCHEME) && (rest.is_empty() || rest.starts_with([' ', '\t'])) =>
        {
            rest.trim_start()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests;
