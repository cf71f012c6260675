//! Requests over NATS.
//!
//! A replica answers only while its view is loaded; until then it is not in the queue group, so that another one
//! answers, or the asker learns at once that nobody does.

use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::{Ending, Message, PublishError};
use carillon_protocol::headers::Headers;
use carillon_protocol::message::OrderKind;
use carillon_protocol::names::{Namespace, Room};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::orders::{self, Command};
use crate::presence::{self, Part};
use crate::refusal::Refusal;
use crate::revocation;
use crate::router::Router;
use crate::target::{Target, UserId};
use crate::{ask, metrics};

/// The routers answer as one.
const QUEUE: &str = "router";
/// Requests of a kind that are answered at once; more are refused.
const AT_ONCE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Presence,
    Control,
    Ask,
    Union,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Presence, Self::Control, Self::Ask, Self::Union];

    fn label(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Control => "ctl",
            Self::Ask => "ask",
            Self::Union => "union",
        }
    }

    fn subject(self, router: &Router) -> String {
        let subjects = router.bus.subjects();
        match self {
            Self::Union => format!("{}.router.union", subjects.prefix()),
            _ => subjects.all(self.label()),
        }
    }
}

/// Answers requests until shutdown; those that are under way are left to the tracker.
pub(crate) async fn run(router: Arc<Router>, tracker: TaskTracker, stop: CancellationToken) {
    while stop.run_until_cancelled(router.view.loaded()).await.is_some() {
        let answering = CancellationToken::new();
        let _unsubscribe = answering.clone().drop_guard();
        let mut subscribed = true;
        for kind in Kind::ALL {
            match router.bus.subscribe(&kind.subject(&router), Some(QUEUE)).await {
                Ok(requests) => {
                    let requests = requests.until(answering.clone());
                    tracker.spawn(answer_all(Arc::clone(&router), kind, requests, tracker.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, kind = kind.label(), "requests cannot be subscribed to");
                    subscribed = false;
                }
            }
        }
        if !subscribed {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = router.view.lost() => {}
        }
    }
}

async fn answer_all(router: Arc<Router>, kind: Kind, mut requests: Ending, tracker: TaskTracker) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = requests.next().await {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            let refusal = Refusal::wrong("overloaded", "too many requests at once");
            reply(&router, &request, refusal.body()).await;
            continue;
        };
        let router = Arc::clone(&router);
        tracker.spawn(async move {
            let started = Instant::now();
            let (outcome, body) = match answer(&router, kind, &request).await {
                Ok(body) => ("done", body),
                Err(refusal) => (refusal.code, refusal.body()),
            };
            metrics::answered(kind.label(), outcome, started.elapsed());
            reply(&router, &request, body).await;
            drop(slot);
        });
    }
}

async fn reply(router: &Router, request: &Message, body: Bytes) {
    let Some(subject) = &request.reply else { return };
    let sent = match router.bus.publish(subject, &Headers::new(), body).await {
        Err(PublishError::TooLarge) => {
            let refusal = Refusal::wrong(
                "answer_too_large",
                "the answer is larger than a NATS message may be",
            );
            router.bus.publish(subject, &Headers::new(), refusal.body()).await
        }
        sent => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "answer was not sent");
    }
}

async fn answer(router: &Router, kind: Kind, request: &Message) -> Result<Bytes, Refusal> {
    match kind {
        Kind::Presence => {
            let (namespace, room) = address(router, kind, request)?;
            let part = if request.body.trim_ascii().is_empty() {
                Part::default()
            } else {
                read(&request.body)?
            };
            json(&presence::members(router, &namespace, &room, part).await?)
        }
        Kind::Ask => {
            let (namespace, room) = address(router, kind, request)?;
            json(&ask::ask(router, &namespace, &room, read(&request.body)?).await?)
        }
        Kind::Union => json(&presence::union(router, read(&request.body)?).await?),
        Kind::Control => control(router, request).await,
    }
}

#[derive(Deserialize)]
struct Control {
    user: Option<UserId>,
    sid: Option<String>,
    room: Option<Room>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Reached {
    connections: usize,
}

async fn control(router: &Router, request: &Message) -> Result<Bytes, Refusal> {
    let tokens = router
        .bus
        .subjects()
        .tokens("ctl", &request.subject)
        .unwrap_or_default();
    let [namespace, order] = tokens[..] else {
        return Err(bad_subject(&request.subject));
    };
    let namespace = Namespace::from_token(namespace).map_err(|_| bad_subject(&request.subject))?;
    let kind = match order {
        "join" => OrderKind::Join,
        "leave" => OrderKind::Leave,
        "disconnect" => OrderKind::Disconnect,
        "revoke" => {
            router.check(&namespace)?;
            let connections = revocation::revoke(router, read(&request.body)?).await?;
            return json(&Reached { connections });
        }
        other => {
            return Err(Refusal::wrong(
                "unknown_order",
                format!("there is no order {other}"),
            ));
        }
    };
    let Control {
        user,
        sid,
        room,
        reason,
    } = read(&request.body)?;
    let target = Target::new(user, sid)?;
    let command = Command::new(kind, namespace, room, reason)?;
    json(&Reached {
        connections: orders::carry_out(router, target, &command).await?,
    })
}

fn address(router: &Router, kind: Kind, request: &Message) -> Result<(Namespace, Room), Refusal> {
    let address = router.bus.subjects().read(kind.label(), &request.subject);
    address
        .map(|address| (address.namespace, address.room))
        .map_err(|_| bad_subject(&request.subject))
}

fn bad_subject(subject: &str) -> Refusal {
    Refusal::wrong("bad_subject", format!("{subject} does not name what it must"))
}

pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // Fields have names: an array of their values is no body.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::wrong("bad_field", "expected a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { "bad_field" } else { "not_json" };
        Refusal::wrong(code, error.to_string())
    })
}

fn json<T: Serialize>(answer: &T) -> Result<Bytes, Refusal> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| Refusal::failed(error.to_string()))
}
