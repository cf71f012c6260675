use std::time::Duration;

use serde::Deserialize;

use crate::config::duration;

/// `{ events = 100, per = "10s" }`: a bucket of so many events that refills evenly.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// How many pass in a burst, and in each period.
    pub events: u32,
    /// The period.
    #[serde(with = "duration")]
    pub per: Duration,
    /// The code of a refusal, `rate_limited` by default.
    pub code: Option<String>,
    /// The text of a refusal.
    pub message: Option<String>,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            events: 100,
            per: Duration::from_secs(10),
            code: None,
            message: None,
        }
    }
}

/// `{ every = "25s" }`: an event that the client answers with another.
///
/// A client that has answered once is closed when it stops doing so.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// The event that is sent.
    pub event: String,
    /// The event that answers it.
    pub answer: String,
    /// How often; zero switches the heartbeat off.
    #[serde(with = "duration")]
    pub every: Duration,
    /// How long the answer may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Closes a client that has never answered, too.
    pub required: bool,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            event: "ping".to_owned(),
            answer: "pong".to_owned(),
            every: Duration::from_secs(25),
            timeout: Duration::from_secs(20),
            required: false,
        }
    }
}

/// `{ ask = true }`: whether the backend decides who is admitted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// Makes `$connect` a request whose reply decides.
    pub ask: bool,
    /// How long the reply may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The code of a refused connection.
    pub code: Option<String>,
    /// The text of a refused connection.
    pub message: Option<String>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            ask: false,
            timeout: Duration::from_secs(2),
            code: None,
            message: None,
        }
    }
}
