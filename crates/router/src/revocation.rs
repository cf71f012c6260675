//! Revoking users and tokens: kept in the bucket REVOKED for as long as tokens may live, and told to all edges.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use carillon_bus::{RequestError, history};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::EdgeId;
use carillon_protocol::message::{Ended, Revoked};
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::router::Router;
use crate::target::UserId;

/// Longest token id in bytes.
const MAX_JTI: usize = 256;
/// Longest time that a revocation is kept.
const MAX_TTL: u64 = 10 * 365 * 24 * 3600;

/// How long an edge may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of a revocation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    user: Option<UserId>,
    jti: Option<String>,
    ttl: Option<u64>,
}

/// Revokes a user or a token, and returns how many connections that has ended.
pub(crate) async fn revoke(router: &Router, request: Request) -> Result<usize, Refusal> {
    let ttl = match request.ttl {
        Some(ttl @ 1..=MAX_TTL) => Duration::from_secs(ttl),
        _ => {
            return Err(Refusal::wrong(
                "bad_ttl",
                format!("expected \"ttl\" from 1 to {MAX_TTL} seconds"),
            ));
        }
    };
    let (key, user, jti) = match (request.user, request.jti) {
        (Some(UserId(user)), None) => (key("user", &user), Some(user), None),
        (None, Some(jti)) if (1..=MAX_JTI).contains(&jti.len()) => (key("jti", &jti), None, Some(jti)),
        (None, Some(_)) => {
            return Err(Refusal::wrong(
                "bad_jti",
                format!("a jti has 1 to {MAX_JTI} bytes"),
            ));
        }
        (None, None) => return Err(Refusal::wrong("no_target", "expected \"user\" or \"jti\"")),
        (Some(_), Some(_)) => {
            return Err(Refusal::wrong(
                "bad_target",
                "\"user\" and \"jti\" exclude each other",
            ));
        }
    };
    let revoked = Revoked {
        user,
        jti,
        at: history::now(),
    };
    let body = Bytes::from(serde_json::to_vec(&revoked).expect("a revocation is JSON"));
    router.revoked.put(&key, body.clone(), Some(ttl)).await?;
    router.view.catch_up().await?;
    let owners: Vec<EdgeId> = router.view.table().owners().collect();
    let subject = format!("{}.revoked", router.bus.subjects().edges());
    let told = router.bus.publish(&subject, &Headers::new(), body.clone()).await;
    told.map_err(|error| Refusal::away(error.to_string()))?;
    let ended = owners.into_iter().map(|edge| tell(router, edge, body.clone()));
    let ended = futures_util::future::try_join_all(ended).await?;
    Ok(ended.into_iter().sum())
}

/// Tells an edge, and returns how many connections it has ended.
async fn tell(router: &Router, edge: EdgeId, body: Bytes) -> Result<usize, Refusal> {
    let subject = format!("{}.revoked", router.bus.subjects().edge(edge));
    match router
        .bus
        .request(&subject, &Headers::new(), body, PATIENCE)
        .await
    {
        Ok(answer) => serde_json::from_slice::<Ended>(&answer.body)
            .map(|ended| ended.connections)
            .map_err(|error| Refusal::failed(format!("unreadable answer of edge {edge}: {error}"))),
        // It is gone, and its connections with it.
        Err(RequestError::NoResponders) => Ok(0),
        Err(RequestError::Timeout) => Err(Refusal::away(format!("edge {edge} does not answer"))),
        Err(RequestError::Away) => Err(Refusal::away("NATS is away")),
    }
}

/// Keys of a bucket have a small alphabet, ids have not.
fn key(kind: &str, id: &str) -> String {
    format!("{kind}.{}", URL_SAFE_NO_PAD.encode(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_has_a_key() {
        for id in ["42", "a.b *>", "é"] {
            let key = key("user", id);
            assert!(
                key.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte)),
                "{key}"
            );
        }
        assert_eq!(key("user", "42"), "user.NDI");
    }
}
