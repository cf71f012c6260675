//! Engine.IO over HTTP long-polling, for requests of any session at any edge.
//!
//! What each request gets, in every state that a session may be in:
//!
//! | request | answer |
//! | --- | --- |
//! | a poll | what waits for the client, when there is something |
//! | the same poll again (same `t`) | the same bytes; while it is open, all of them get the answer |
//! | another poll beside an open one | 400 with code 3, and the session is closed |
//! | a poll during an upgrade | a noop after a moment, so that the client can stop polling |
//! | a post, the same post again | `ok`; it is taken once |
//! | a poll or post after the upgrade | 400 with code 3 or 1; the session goes on |
//! | anything for a session that ended, or whose owner is gone | 400 with code 1; the client reconnects |
//!
//! A sid is the key to its session: 84 random bits behind the name of its owner, told to nobody else. What else a
//! request shows is not compared with what the session began with, since cookies and tokens are renewed.

mod relay;
mod upgrade;
mod wire;

use std::time::Duration;

use carillon_auth::credentials::Source;
use carillon_protocol::engineio::{Query, RequestError};
use carillon_protocol::ids::EngineId;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};

use crate::accept::{Body, Places, full, read, unavailable};
use crate::address::Peer;
use crate::admission::Shown;
use crate::http::Front;
use crate::metrics;
use crate::origin::Verdict;

/// Time in which the body of a post must arrive.
const BODY: Duration = Duration::from_secs(30);

impl Front {
    /// Answers a request of a client that polls.
    pub(crate) async fn polling(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        query: Query,
    ) -> Response<Body> {
        let shown = Shown::of(request.headers(), request.uri().query());
        let by_cookie = shown
            .credential(None, &self.hub.auth.cookie)
            .is_some_and(|shown| shown.source() == Source::Cookie);
        if self.origins.decide_polling(request.headers(), by_cookie, &peer) == Verdict::Forbidden {
            metrics::error("forbidden");
            return self.engine_error(&request, RequestError::Forbidden);
        }
        let Some(sid) = query.sid else {
            if request.method() != Method::GET {
                return self.engine_error(&request, RequestError::BadHandshakeMethod);
            }
            let headers = request.headers();
            return self
                .handshake(headers, &peer, shown)
                .unwrap_or_else(|refused| self.readable(headers, refused));
        };
        let Ok(sid) = sid.parse::<EngineId>() else {
            return self.engine_error(&request, RequestError::UnknownSession);
        };
        match *request.method() {
            Method::GET => match self.hub.poll(sid, query.t, None).await {
                Ok(answer) => self.payload(request.headers(), "text/plain; charset=UTF-8", full(answer.body)),
                Err(refused) => self.engine_error(&request, refused),
            },
            Method::POST => self.take_post(request, sid, query.t).await,
            _ => self.engine_error(&request, RequestError::BadRequest),
        }
    }

    #[expect(
        clippy::result_large_err,
        reason = "the error is the response itself, made once a connection"
    )]
    fn handshake(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        shown: Shown,
    ) -> Result<Response<Body>, Response<Body>> {
        self.admit_new()?;
        let too_many = || {
            metrics::error("too_many_connections");
            unavailable("too_many_connections", "too many connections", 5)
        };
        let slot = self.slots.address(peer.address).ok_or_else(too_many)?;
        let opened = self
            .hub
            .open_polling(shown, Places::new(self.slots.clone()), slot)
            .ok_or_else(too_many)?;
        Ok(self.payload(headers, "text/plain; charset=UTF-8", full(opened)))
    }

    async fn take_post(
        &self,
        request: Request<Incoming>,
        sid: EngineId,
        t: Option<String>,
    ) -> Response<Body> {
        let limit = usize::try_from(self.hub.config.max_payload).unwrap_or(usize::MAX);
        let (head, body) = request.into_parts();
        let body = match read(body, limit, BODY).await {
            Ok(body) => body,
            Err(error) => return self.readable(&head.headers, error.response()),
        };
        match self.hub.post(sid, t, None, body).await {
            Ok(()) => self.payload(&head.headers, "text/html", full("ok")),
            Err(refused) => self.refusal(&head.headers, refused),
        }
    }

    fn payload(&self, request: &HeaderMap, kind: &'static str, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.readable(request, response)
    }

    /// Lets pages of allowed origins read an answer.
    pub(crate) fn readable(&self, request: &HeaderMap, mut response: Response<Body>) -> Response<Body> {
        self.origins.allow(request, response.headers_mut());
        response
    }
}
