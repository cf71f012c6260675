use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::RequestError;

const MAX_SID: usize = 64;
const MAX_CACHE_BUSTER: usize = 64;

/// How a client speaks Engine.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Polling,
    WebSocket,
}

impl Transport {
    /// Returns the name in queries and in the list of upgrades.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// What the query of a request says about Engine.IO; other keys, such as `token`, are left to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub transport: Transport,
    /// The session, or `None` to open one.
    pub sid: Option<String>,
    /// What makes each poll's address different; a repeated poll has the same.
    pub t: Option<String>,
}

impl Query {
    /// Reads a query, without its question mark.
    ///
    /// The version must be 4 where a session is opened and where it is given. JSONP (`j`) went with protocol 3
    /// and is a bad request, as is a key that stands twice.
    pub fn read(query: &str) -> Result<Self, RequestError> {
        let mut transport = None;
        let mut version = None;
        let mut sid = None;
        let mut t = None;
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match key {
                "transport" => &mut transport,
                "EIO" => &mut version,
                "sid" => &mut sid,
                "t" => &mut t,
                "j" => return Err(RequestError::BadRequest),
                _ => continue,
            };
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| RequestError::BadRequest)?;
            if slot.replace(value).is_some() {
                return Err(RequestError::BadRequest);
            }
        }
        let transport = match transport.as_deref() {
            Some("polling") => Transport::Polling,
            Some("websocket") => Transport::WebSocket,
            _ => return Err(RequestError::UnknownTransport),
        };
        let sid = sid.filter(|sid| !sid.is_empty());
        match version.as_deref() {
            Some("4") => {}
            None if sid.is_some() => {}
            _ => return Err(RequestError::UnsupportedVersion),
        }
        if sid
            .as_ref()
            .is_some_and(|sid| sid.len() > MAX_SID || !sid.bytes().all(is_sid_byte))
        {
            return Err(RequestError::UnknownSession);
        }
        if t.as_ref().is_some_and(|t| t.len() > MAX_CACHE_BUSTER) {
            return Err(RequestError::BadRequest);
        }
        Ok(Self {
            transport,
            sid: sid.map(Cow::into_owned),
            t: t.map(Cow::into_owned),
        })
    }
}

fn is_sid_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
