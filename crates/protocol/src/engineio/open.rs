use serde::{Deserialize, Serialize};

/// The first packet of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open<'a> {
    pub sid: &'a str,
    /// The transports that the client may move to.
    #[serde(borrow)]
    pub upgrades: Vec<&'a str>,
    /// Milliseconds between two pings.
    pub ping_interval: u64,
    /// Milliseconds that a pong may take.
    pub ping_timeout: u64,
    /// The largest payload, in bytes, that the client may post.
    pub max_payload: u64,
}

impl Open<'_> {
    /// Returns the packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![b'0'];
        serde_json::to_writer(&mut out, self)
            .expect("a struct of strings and numbers can be written into memory");
        out
    }
}
