//! Reading events back: batched direct get (NATS ADR-31), which `async-nats` does not have.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use serde::Serialize;

use crate::connection::{Bus, Message};
use crate::intake::{Received, Span};
use crate::subscription::Subscription;

/// Most subjects of one `multi_last` request; the server refuses more.
const MAX_SUBJECTS: usize = 1024;
/// Size of one answer to it; all that comes at once would make the link a slow consumer, or fill it.
const LAST_BYTES: usize = 8 << 20;
/// Messages asked for at once, and their size.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 << 20;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// By how much the server's clock may differ when the age of a stream is judged.
const CLOCKS: Duration = Duration::from_secs(10);
/// How long a stale replica is asked again.
const STALE: Duration = Duration::from_secs(5);

/// A message as a stream has it.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    pub subject: String,
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    pub headers: Headers,
    pub body: Bytes,
}

/// How far a stream reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub first: u64,
    pub last: u64,
    /// It is too young for anything to have expired, and has no limit of bytes: what lies before `first` were probes
    /// that later ones replaced, or events past the limit of their room.
    pub whole: bool,
}

/// Most that is read at once; at least one message is.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub messages: usize,
    /// About so many bytes, with the headers.
    pub bytes: usize,
}

/// What was read of a subject.
#[derive(Debug)]
pub struct Page {
    pub messages: Vec<StoredMessage>,
    /// Everything up to there was read.
    pub reached: u64,
}

/// Why history could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    #[error("NATS does not answer")]
    Away,
    #[error("the answering replica stays behind")]
    Stale,
    #[error("refused by the server: {0}")]
    Refused(String),
}

#[derive(Serialize)]
struct MultiLast<'a> {
    multi_last: &'a [String],
    seq: u64,
    max_bytes: usize,
}

#[derive(Serialize)]
struct Next<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: usize,
    max_bytes: usize,
}

impl Limit {
    /// No limit but that of the stream.
    pub const NONE: Self = Self {
        messages: usize::MAX,
        bytes: usize::MAX,
    };

    fn take(&mut self, message: &StoredMessage) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.size());
    }
}

impl StoredMessage {
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len() + 4).sum();
        self.subject.len() + headers + self.body.len()
    }
}

/// How an answer ended.
struct End {
    pending: u64,
    up_to: Option<u64>,
}

impl Bus {
    /// Returns the last message of each subject that has one.
    ///
    /// With `at_least`, answers of replicas that have not reached that sequence are asked for again; one of
    /// the subjects must then be known to have a message, since an empty answer does not tell how far it is.
    pub async fn last(
        &self,
        stream: &str,
        subjects: &[String],
        at_least: u64,
    ) -> Result<Vec<StoredMessage>, HistoryError> {
        let mut messages = Vec::new();
        for subjects in subjects.chunks(MAX_SUBJECTS) {
            messages.append(&mut self.last_of_some(stream, subjects, at_least).await?);
        }
        Ok(messages)
    }

    async fn last_of_some(
        &self,
        stream: &str,
        subjects: &[String],
        mut at_least: u64,
    ) -> Result<Vec<StoredMessage>, HistoryError> {
        let mut messages: Vec<StoredMessage> = Vec::new();
        let mut next = 0;
        let mut deadline = tokio::time::Instant::now() + STALE;
        loop {
            let request = MultiLast {
                multi_last: subjects,
                seq: next,
                max_bytes: LAST_BYTES,
            };
            let request = serde_json::to_vec(&request).expect("strings are JSON");
            let (mut answer, end) = self.direct_get(stream, request.into()).await?;
            let is_good = match end.up_to {
                Some(up_to) => up_to >= at_least,
                None => at_least == 0 && end.pending == 0,
            };
            if !is_good || (answer.is_empty() && end.pending > 0) {
                if tokio::time::Instant::now() > deadline {
                    return Err(HistoryError::Stale);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            messages.append(&mut answer);
            if end.pending == 0 {
                if next > 0 {
                    keep_newest(&mut messages);
                }
                return Ok(messages);
            }
            // The rest is further back in the stream, where another replica must be too. What was stored in the
            // meantime comes as well: a bucket keeps nothing else of a subject.
            next = messages.last().map_or(0, |message| message.sequence + 1);
            at_least = at_least.max(end.up_to.unwrap_or(0));
            deadline = tokio::time::Instant::now() + STALE;
        }
    }

    /// Returns the messages of a subject with sequences in `(after, up_to]`, ascending, as far as the limit lets.
    ///
    /// A replica may be behind: where its answer ends before `up_to`, the stream's leader says what comes next.
    pub async fn read(
        &self,
        stream: &str,
        subject: &str,
        after: u64,
        up_to: u64,
        limit: Limit,
    ) -> Result<Page, HistoryError> {
        let mut messages: Vec<StoredMessage> = Vec::new();
        let mut left = limit;
        let mut next = after + 1;
        while next <= up_to {
            if left.messages == 0 || left.bytes == 0 {
                return Ok(Page {
                    messages,
                    reached: next - 1,
                });
            }
            let request = serde_json::to_vec(&Next {
                seq: next,
                next_by_subj: subject,
                batch: BATCH.min(left.messages),
                max_bytes: BATCH_BYTES.min(left.bytes),
            })
            .expect("strings are JSON");
            let (answer, end) = self.direct_get(stream, request.into()).await?;
            let reached = answer.last().map(|message| message.sequence);
            for message in answer {
                next = message.sequence + 1;
                left.take(&message);
                messages.extend(Some(message).filter(|message| message.sequence <= up_to));
            }
            if next <= up_to && (end.pending == 0 || reached.is_none()) {
                match self.next_of_leader(stream, subject, next).await? {
                    Some(message) if message.sequence <= up_to => {
                        next = message.sequence + 1;
                        left.take(&message);
                        messages.push(message);
                    }
                    _ => break,
                }
            }
        }
        Ok(Page {
            messages,
            reached: up_to,
        })
    }

    /// Asks the leader of a stream for the first message of a subject from a sequence on.
    async fn next_of_leader(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, HistoryError> {
        let stream = self.inner.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(|_| HistoryError::Away)?;
        match stream.get_first_raw_message_by_subject(subject, sequence).await {
            Ok(message) => Ok(Some(StoredMessage {
                subject: message.subject.into_string(),
                sequence: message.sequence,
                time: u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
                headers: read_headers(&message.headers),
                body: message.payload,
            })),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(_) => Err(HistoryError::Away),
        }
    }

    /// Returns how far a stream reaches.
    pub async fn bounds(&self, stream: &str) -> Result<Bounds, HistoryError> {
        let stream = self
            .inner
            .jetstream
            .get_stream(stream)
            .await
            .map_err(|_| HistoryError::Away)?;
        let info = stream.cached_info();
        let created = u64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let age = now().saturating_sub(created);
        let max_age = info.config.max_age;
        Ok(Bounds {
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            whole: info.config.max_bytes <= 0
                && (max_age.is_zero() || Duration::from_millis(age) + CLOCKS < max_age),
        })
    }

    async fn direct_get(
        &self,
        stream: &str,
        request: Bytes,
    ) -> Result<(Vec<StoredMessage>, End), HistoryError> {
        let inbox = self.inbox();
        let mut answers = Subscription::new(&self.inner.intake, &inbox, None, Span::OneConnection);
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = self
            .inner
            .intake
            .publish(&subject, Some(&inbox), &Headers::new(), &request)
            .await;
        sent.map_err(|_| HistoryError::Away)?;
        let mut messages = Vec::new();
        loop {
            let answer = tokio::time::timeout(ANSWER, answers.next_raw()).await;
            let Ok(Some(Received { message, status, .. })) = answer else {
                return Err(HistoryError::Away);
            };
            match status.as_ref().map(|status| status.code) {
                None => messages.extend(stored(message)),
                Some(204) => {
                    let end = End {
                        pending: message.headers.number("Nats-Num-Pending").unwrap_or(0),
                        up_to: message.headers.number("Nats-UpTo-Sequence"),
                    };
                    return Ok((messages, end));
                }
                Some(404) => {
                    // Other answers than this one end where a message went away while they were made.
                    let is_whole = status.is_some_and(|status| status.text == "No Results");
                    let end = End {
                        pending: u64::from(!is_whole),
                        up_to: None,
                    };
                    return Ok((messages, end));
                }
                Some(503) => return Err(HistoryError::Away),
                Some(code) => {
                    let text = status.map(|status| status.text).unwrap_or_default();
                    return Err(HistoryError::Refused(format!("{code} {text}")));
                }
            }
        }
    }
}

/// Keeps the last message of each subject; all are in the order of the stream.
fn keep_newest(messages: &mut Vec<StoredMessage>) {
    let mut seen = HashSet::new();
    messages.reverse();
    messages.retain(|message| seen.insert(message.subject.clone()));
    messages.reverse();
}

fn stored(message: Message) -> Option<StoredMessage> {
    Some(StoredMessage {
        sequence: message.headers.number(name::SEQUENCE)?,
        subject: message.headers.get(name::STORED_SUBJECT)?.to_owned(),
        time: message
            .headers
            .get("Nats-Time-Stamp")
            .and_then(milliseconds)
            .unwrap_or(0),
        headers: message.headers,
        body: message.body,
    })
}

fn read_headers(map: &async_nats::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, values) in map.iter() {
        for value in values {
            headers.push(name.as_ref(), value.as_str());
        }
    }
    headers
}

fn milliseconds(rfc3339: &str) -> Option<u64> {
    let time = time::OffsetDateTime::parse(rfc3339, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Returns the milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
