//! Messages that this client cannot be sent: a subject that is not UTF-8 ends its connection.
//!
//! The server takes any bytes for a subject, so one such message in a queue would come again with every new
//! connection. It can be read through the API of the stream, whose JSON has a replacement for those bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carillon_protocol::headers::{self, Headers};
use serde::Deserialize;
use serde_json::json;

use crate::connection::{Bus, RequestError};

const ANSWER: Duration = Duration::from_secs(5);
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// A message whose subject is not UTF-8.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub sequence: u64,
    /// With replacement characters for what is not UTF-8.
    pub subject: String,
    pub headers: Headers,
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    total: usize,
    state: State,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Answer {
    message: Option<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Bus {
    /// Returns the messages of a stream, on subjects that match a filter, that cannot be delivered to this client.
    pub async fn unreadable(&self, stream: &str, filter: &str) -> Result<Vec<Unreadable>, RequestError> {
        let mut found = Vec::new();
        if !self.has_unreadable(stream, filter).await? {
            return Ok(found);
        }
        let mut next = 1;
        loop {
            let request = json!({ "seq": next, "next_by_subj": filter });
            let answer: Answer = self.api(&format!("STREAM.MSG.GET.{stream}"), request).await?;
            let Some(stored) = answer.message else {
                return Ok(found);
            };
            next = stored.seq + 1;
            if stored.subject.contains(REPLACEMENT) {
                found.push(stored.into());
            }
        }
    }

    async fn has_unreadable(&self, stream: &str, filter: &str) -> Result<bool, RequestError> {
        let mut offset = 0;
        loop {
            let request = json!({ "subjects_filter": filter, "offset": offset });
            let info: Info = self.api(&format!("STREAM.INFO.{stream}"), request).await?;
            let subjects = info.state.subjects;
            if subjects.keys().any(|subject| subject.contains(REPLACEMENT)) {
                return Ok(true);
            }
            offset += subjects.len();
            if subjects.is_empty() || offset >= info.total {
                return Ok(false);
            }
        }
    }

    async fn api<T: for<'de> Deserialize<'de>>(
        &self,
        call: &str,
        request: serde_json::Value,
    ) -> Result<T, RequestError> {
        let subject = format!("$JS.API.{call}");
        let answer = self
            .request(&subject, &Headers::new(), request.to_string().into(), ANSWER)
            .await?;
        // An error of the API lacks what is asked for; the caller tries again like after an outage.
        serde_json::from_slice(&answer.body).map_err(|_| RequestError::Away)
    }
}

impl From<Stored> for Unreadable {
    fn from(stored: Stored) -> Self {
        let decode = |text: &str| STANDARD.decode(text).unwrap_or_default();
        let block = decode(&stored.hdrs);
        let mut headers = Headers::new();
        for (name, value) in headers::lines(&block) {
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) {
                headers.push(name, value);
            }
        }
        Self {
            sequence: stored.seq,
            subject: stored.subject,
            headers,
            body: decode(&stored.data).into(),
        }
    }
}
