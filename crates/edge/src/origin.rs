//! Which web pages may talk to the edge.
//!
//! A browser sends cookies with every request, whoever asked for it, so a cookie proves nothing about the page
//! that uses it: it counts from listed origins, and from the edge's own host where there is no list. The entry
//! `*` lists every origin, but like an empty list it covers no cookies of other hosts.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};

use crate::address::Peer;

/// An entry of `edge.cors_origin` that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an origin such as \"https://app.example.com\" or \"http://localhost:3000\", without a path, or \"*\", \
     got {0:?}"
)]
pub(crate) struct BadOrigin(String);

/// What an origin may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// The answer is 403.
    Forbidden,
}

/// The origins of `edge.cors_origin`; by default there is no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    listed: Vec<Origin>,
    /// Only listed origins may connect; else all may, although not with another host's cookies.
    closed: bool,
}

impl Origins {
    /// Reads a list of origins; empty entries are left out.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, BadOrigin> {
        let entries = || {
            entries
                .iter()
                .map(|entry| entry.as_ref().trim())
                .filter(|entry| !entry.is_empty())
        };
        let listed = entries()
            .filter(|entry| *entry != "*")
            .map(|entry| Origin::parse(entry).ok_or_else(|| BadOrigin(entry.to_owned())))
            .collect::<Result<Vec<_>, _>>()?;
        let closed = !listed.is_empty() && entries().all(|entry| entry != "*");
        Ok(Self { listed, closed })
    }

    /// Decides about a WebSocket or SSE request; `by_cookie` if its token came in a cookie.
    pub(crate) fn decide(&self, headers: &HeaderMap, by_cookie: bool, peer: &Peer) -> Verdict {
        match Claimed::read(headers) {
            // Whoever sends no origin is not a browser.
            Claimed::Nothing => Verdict::Allowed,
            Claimed::Origin(origin) if self.listed.contains(&origin) => Verdict::Allowed,
            _ if self.closed => Verdict::Forbidden,
            _ if !by_cookie => Verdict::Allowed,
            Claimed::Origin(origin) if origin.is_own(peer) => Verdict::Allowed,
            _ => Verdict::Forbidden,
        }
    }

    /// Decides about a polling request, whose answer an unlisted page cannot read anyway.
    pub(crate) fn decide_polling(&self, headers: &HeaderMap, by_cookie: bool, peer: &Peer) -> Verdict {
        if self.closed {
            Verdict::Allowed
        } else {
            self.decide(headers, by_cookie, peer)
        }
    }

    /// Adds the headers that let a page of an allowed origin read the answer.
    pub(crate) fn allow(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.append(VARY, HeaderValue::from_static("Origin"));
        let listed = match Claimed::read(request) {
            Claimed::Origin(origin) => self.listed.contains(&origin),
            Claimed::Other => false,
            Claimed::Nothing => return,
        };
        let Some(origin) = request.get(ORIGIN).filter(|_| listed || !self.closed) else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if listed {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Adds the headers that answer a preflight, an OPTIONS request; the answer is 204 in any case.
    pub(crate) fn allow_preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        self.allow(request, response);
        if !response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        response.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        response.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET,POST,OPTIONS"),
        );
        response.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            asked.unwrap_or(HeaderValue::from_static("content-type,authorization")),
        );
        response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// What a request says about the page that made it.
enum Claimed {
    Nothing,
    Origin(Origin),
    /// Not a single well-formed origin; nothing of it is believed.
    Other,
}

impl Claimed {
    fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(ORIGIN).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) => value
                .to_str()
                .ok()
                .and_then(Origin::parse)
                .map_or(Self::Other, Self::Origin),
            (Some(_), Some(_)) => Self::Other,
        }
    }
}

/// Scheme, host and port, in lower case and without a default port; `null` has a scheme alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self {
                scheme: text.to_owned(),
                host: String::new(),
                port: None,
            });
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme_is_plain = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !scheme_is_plain {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Tells whether a page of this origin was served by the host that the request goes to.
    fn is_own(&self, peer: &Peer) -> bool {
        let Some((host, port)) = peer.host.as_deref().and_then(host_and_port) else {
            return false;
        };
        // Behind a proxy that ends TLS without saying so, a secure origin reaches us in plain text. The other
        // way round somebody between may have written the page.
        let weaker = peer.secure && self.scheme == "http";
        let port = port.filter(|port| Some(*port) != default_port(&self.scheme));
        matches!(self.scheme.as_str(), "http" | "https") && !weaker && self.host == host && self.port == port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Splits `host[:port]`, where the host may be an address in brackets.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let inner = &authority[1..end - 1];
        inner.parse::<std::net::Ipv6Addr>().ok()?;
        (&authority[..end], &authority[end..])
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=".contains(&byte) || !byte.is_ascii();
        if end == 0 || !authority.bytes().take(end).all(plain) {
            return None;
        }
        authority.split_at(end)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None if port.is_empty() => None,
        None => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests;
