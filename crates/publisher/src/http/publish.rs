//! Publishing what a request asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use carillon_auth::{Principal, Scope};
use carillon_bus::Stored;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::offset::Offset;
use carillon_service::problem::{Json, Problem};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::request::{Asked, Rules};
use super::{Api, body, caller, refusal};
use crate::intake::{Incoming, IntakeError};
use crate::receipt::{Expected, RECEIPT, Receipt};
use crate::signal::EPHEMERAL;
use crate::{metrics, schedule, signal, trace};

/// How long the routers may take to count who is in the rooms.
const PRESENCE_LIMIT: Duration = Duration::from_secs(2);
/// Receipts of one batch that are completed at a time.
const RECEIPTS: usize = 16;
/// Longest `Idempotency-Key`.
const MOST_KEY: usize = 255;

/// The answer for one event.
#[derive(Debug, Serialize)]
struct Published {
    id: String,
    #[serde(flatten)]
    stored: Option<StoredAt>,
}

/// What a receipt adds: where the event stands, and who was there. `null` where no router answered.
#[derive(Debug, Serialize)]
struct StoredAt {
    offset: String,
    users: Option<u64>,
    connections: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Results {
    results: Vec<Published>,
}

/// `rt.router.union`: how many are in at least one of the rooms.
#[derive(Debug, Serialize)]
struct UnionRequest<'a> {
    namespace: &'a Namespace,
    rooms: &'a [Room],
}

#[derive(Debug, Deserialize)]
struct Union {
    users: u64,
    connections: u64,
}

/// An event that is ready to be published.
struct Outgoing {
    asked: Asked,
    incoming: Incoming,
    expected: Option<Expected>,
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = Request::read(&api, &headers, body).await?;
    let asked = api.rules().one(&request.body, || request.id(None))?;
    request.may_publish(&asked)?;
    let span = request.span();
    let mut results = api
        .publish(vec![asked], &request, &span)
        .instrument(span.clone())
        .await?;
    match results.pop() {
        Some(result) => Ok((StatusCode::ACCEPTED, Json(result)).into_response()),
        None => Err(Problem::internal()),
    }
}

pub(super) async fn batch(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = Request::read(&api, &headers, body).await?;
    let asked = api
        .rules()
        .batch(&request.body, |index| request.id(Some(index)))?;
    for event in &asked {
        request.may_publish(event)?;
    }
    let span = request.span();
    let results = api
        .publish(asked, &request, &span)
        .instrument(span.clone())
        .await?;
    Ok((StatusCode::ACCEPTED, Json(Results { results })).into_response())
}

/// Who asks, with what key against repetition.
struct Request {
    caller: Principal,
    key: Option<String>,
    trace: Headers,
    body: Bytes,
}

impl Request {
    async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let caller = caller(api, headers).await?;
        let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if (1..=MOST_KEY).contains(&key.len()) => Some(key.to_owned()),
            Some(_) => {
                let text = "Idempotency-Key has 1 to 255 visible characters";
                return Err(Problem::bad_request(text).with_code("bad_idempotency_key"));
            }
        };
        let mut trace = Headers::new();
        for name in [name::TRACEPARENT, name::TRACESTATE] {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                trace.push(name, value);
            }
        }
        let body = body::read(body, api.max_body).await?;
        Ok(Self {
            caller,
            key,
            trace,
            body,
        })
    }

    fn span(&self) -> Span {
        let span = tracing::info_span!("publish", caller = self.caller.name);
        trace::join(&span, &self.trace);
        span
    }

    /// Names this publish in the whole cluster: the same key of the same caller is the same publish.
    fn name(&self, index: Option<usize>) -> Option<String> {
        let key = self.key.as_ref()?;
        let mut hash = Sha256::new();
        hash.update(self.caller.name.as_bytes());
        hash.update([0]);
        hash.update(key.as_bytes());
        if let Some(index) = index {
            hash.update([0]);
            hash.update(index.to_string().as_bytes());
        }
        Some(
            hash.finalize()[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// Makes the id of an event without one; a repeated request gets the same.
    fn id(&self, index: Option<usize>) -> String {
        self.name(index)
            .unwrap_or_else(|| format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)))
    }

    fn may_publish(&self, asked: &Asked) -> Result<(), Problem> {
        self.caller
            .require(Scope::Publish, asked.namespace.as_str())
            .map_err(refusal)
    }
}

impl Api {
    fn rules(&self) -> Rules<'_> {
        Rules {
            checker: &self.checker,
            max_rooms: self.max_rooms,
            max_batch: self.max_batch,
            now: carillon_bus::history::now(),
        }
    }

    /// Publishes events in their order: signals at once, durable ones into INGEST.
    async fn publish(
        &self,
        asked: Vec<Asked>,
        request: &Request,
        span: &Span,
    ) -> Result<Vec<Published>, Problem> {
        let deadline = self.intake.deadline();
        if let Some(name) = request.name(None) {
            self.same_request(&name, &asked, deadline).await?;
        }
        let now = OffsetDateTime::now_utc();
        let single = asked.len() == 1;
        let mut durable = Vec::new();
        let mut results = Vec::with_capacity(asked.len());
        for (index, asked) in asked.into_iter().enumerate() {
            results.push(Published {
                id: asked.id.clone(),
                stored: None,
            });
            let name = request.name((!single).then_some(index));
            if asked.ephemeral && schedule::is_due(asked.at, &Headers::new(), now) {
                self.signal_once(&asked, name.as_deref(), request, span, deadline)
                    .await?;
                continue;
            }
            durable.push((index, self.outgoing(asked, name, request, span)));
        }
        let incoming: Vec<Incoming> = durable
            .iter()
            .map(|(_, outgoing)| outgoing.incoming.clone())
            .collect();
        let stored = match &incoming[..] {
            [only] => self.intake.store(only, deadline).await.map(|stored| vec![stored]),
            all => self.intake.store_all(all, deadline).await,
        };
        let stored = stored.map_err(|error| match error {
            IntakeError::Away => Problem::unavailable("NATS did not take the event in time", 2),
            IntakeError::TooLarge => Problem::too_large("the event does not fit into a message"),
        })?;
        metrics::accepted("http", stored.len() as u64);
        let mut published = durable.into_iter().zip(stored);
        loop {
            let some: Vec<_> = published.by_ref().take(RECEIPTS).collect();
            if some.is_empty() {
                return Ok(results);
            }
            let receipts = some
                .into_iter()
                .map(|((index, outgoing), stored)| self.complete(index, outgoing, stored));
            for (index, receipt) in try_join_all(receipts).await? {
                results[index].stored = receipt;
            }
        }
    }

    /// Sends a signal, unless one of that name was sent already.
    async fn signal_once(
        &self,
        asked: &Asked,
        name: Option<&str>,
        request: &Request,
        span: &Span,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let Some(name) = name else {
            return self.signal(asked, request, span, deadline).await;
        };
        let key = format!("sent.{name}");
        let Some(revision) = self.mark_sent(&key, deadline).await? else {
            return Ok(());
        };
        let sent = self.signal(asked, request, span, deadline).await;
        if sent.is_err()
            && let Err(error) = self.sent.delete(&key, Some(revision)).await
        {
            tracing::warn!(%error, "a signal that was not sent counts as sent");
        }
        sent
    }

    async fn signal(
        &self,
        asked: &Asked,
        request: &Request,
        span: &Span,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let away = || Problem::unavailable("NATS is away", 2);
        if tokio::time::timeout_at(deadline, self.intake.connected())
            .await
            .is_err()
        {
            return Err(away());
        }
        let event = &asked.draft.event;
        let sent = signal::send(
            &self.bus,
            &asked.namespace,
            &asked.rooms,
            event,
            &request.trace,
            span,
        )
        .await;
        sent.map_err(|_| away())
    }

    fn outgoing(&self, asked: Asked, name: Option<String>, request: &Request, span: &Span) -> Outgoing {
        let subjects = self.bus.subjects();
        let subject = match &asked.rooms[..] {
            [room] => subjects.publish(&asked.namespace, room),
            _ => subjects.publish_list(&asked.namespace),
        };
        let mut headers = Headers::new();
        trace::pass_on(span, &request.trace, &mut headers);
        if let Some(name) = name {
            headers.push(name::MSG_ID, format!("key:{name}"));
        }
        if asked.ephemeral {
            headers.push(EPHEMERAL, "1");
        }
        let expected = asked.receipt.then(|| self.receipts.expect());
        if let Some(expected) = &expected {
            headers.push(RECEIPT, expected.address.clone());
        }
        let incoming = Incoming {
            subject: subject.into(),
            headers,
            body: asked.body.clone().into(),
        };
        Outgoing {
            asked,
            incoming,
            expected,
        }
    }

    /// Waits for the receipt, where one is asked for.
    async fn complete(
        &self,
        index: usize,
        outgoing: Outgoing,
        stored: Stored,
    ) -> Result<(usize, Option<StoredAt>), Problem> {
        let Outgoing {
            asked,
            mut incoming,
            expected,
        } = outgoing;
        let Some(mut expected) = expected else {
            return Ok((index, None));
        };
        let answer = async {
            if stored.duplicate {
                // The receipt went to the first request. The event has the same id, so publishing it again
                // stores nothing and tells where it is.
                incoming.headers = crate::intake::without_orders(&incoming.headers);
                self.intake.store(&incoming, self.intake.deadline()).await.ok()?;
            }
            expected.answer().await
        };
        let answer = tokio::time::timeout(self.receipt_timeout, answer)
            .await
            .ok()
            .flatten();
        let sequence = match answer {
            Some(Receipt::Sequence(sequence)) => sequence,
            Some(Receipt::Refused(reason)) => {
                return Err(Problem::bad_request(reason).with_code("refused"));
            }
            Some(Receipt::Expired) => {
                let text = "the event's ttl was over before it could be stored";
                return Err(Problem::unavailable(text, 2).with_code("expired"));
            }
            None => {
                let text = format!(
                    "the event {} is accepted, but not known to be stored yet",
                    asked.id
                );
                return Err(Problem::unavailable(text, 2).with_code("receipt_timeout"));
            }
        };
        let epoch = self.streams.of(&asked.namespace).map_or(0, |stream| stream.epoch);
        let union = self.union(&asked.namespace, &asked.rooms).await;
        let stored = StoredAt {
            offset: Offset { epoch, sequence }.to_string(),
            users: union.as_ref().map(|union| union.users),
            connections: union.as_ref().map(|union| union.connections),
        };
        Ok((index, Some(stored)))
    }

    async fn union(&self, namespace: &Namespace, rooms: &[Room]) -> Option<Union> {
        let body = serde_json::to_vec(&UnionRequest { namespace, rooms }).ok()?;
        let subject = format!("{}.router.union", self.bus.subjects().prefix());
        let answer = self
            .bus
            .request(&subject, &Headers::new(), body.into(), PRESENCE_LIMIT)
            .await
            .ok()?;
        serde_json::from_slice(&answer.body).ok()
    }
}
