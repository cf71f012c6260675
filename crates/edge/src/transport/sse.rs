//! Server-sent events: the JSON of `/ws`, one way.
//!
//! The id of a message is the offset that its JSON ends with, or else the one before, so it never names an event that
//! was not sent yet. A heartbeat is a block with an id and no data: the HTML standard has browsers take the id and
//! raise no event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::Transport;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::accept::{Body, Broken, Seat, Slot, empty, error, stream, unavailable};
use crate::address::Peer;
use crate::admission::Shown;
use crate::client::{Client, Closing};
use crate::entrance::Refused;
use crate::frame::{Chunk, Wire};
use crate::http::{Front, query_value, query_values};
use crate::hub::Hub;
use crate::metrics;
use crate::outbox::Sink;
use crate::plain::Plain;
use crate::user::User;

/// Bytes that leave in one piece.
const PIECE: usize = 64 * 1024;
/// About how long a browser waits before it connects again; spread, since an edge's clients lose it together.
const RETRY: std::ops::Range<u32> = 500..1500;
/// Topics of one stream.
const MAX_TOPICS: usize = 100;

/// What a client asked for.
struct Wish {
    user: Arc<User>,
    topics: Vec<Room>,
    since: Option<String>,
    /// Held as long as the stream.
    places: (Slot, Option<Slot>, Option<Seat>),
}

type Stream = mpsc::Receiver<Result<Bytes, Broken>>;

impl Front {
    /// Answers a request for events.
    pub(crate) async fn events(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let headers = request.headers();
        if request.method() == Method::OPTIONS {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            self.origins.allow_preflight(headers, response.headers_mut());
            return response;
        }
        let response = match self.wish(&request, &peer).await {
            Ok(wish) => open(Arc::clone(&self.hub), wish).await,
            Err(refused) => refused,
        };
        self.readable(headers, response)
    }

    async fn wish(&self, request: &Request<Incoming>, peer: &Peer) -> Result<Wish, Response<Body>> {
        if request.method() != Method::GET {
            let mut response = error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "events are had by GET",
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return Err(response);
        }
        self.admit_new()?;
        self.check_origin(request, peer)?;
        let query = request.uri().query();
        let user = self
            .hub
            .identify_plain(&Shown::of(request.headers(), query))
            .await?;
        let topics = query_values(query, "topic").map(|topic| {
            let topic = String::from_utf8(topic).map_err(|_| "a room is UTF-8".to_owned())?;
            Room::new(&topic).map_err(|problem| problem.to_string())
        });
        let topics: Vec<Room> = topics
            .collect::<Result<_, _>>()
            .map_err(|problem| error(StatusCode::FORBIDDEN, "bad_room", &problem))?;
        if topics.len() > MAX_TOPICS.min(self.hub.config.max_rooms) {
            return Err(error(StatusCode::FORBIDDEN, "too_many_rooms", "too many topics"));
        }
        let place = match user.id() {
            Some(id) => self.slots.user(id).map(Some),
            None => Some(None),
        };
        let (Some(slot), Some(place)) = (self.slots.address(peer.address), place) else {
            metrics::error("too_many_connections");
            return Err(unavailable("too_many_connections", "too many connections", 5));
        };
        // What the browser has seen counts for more than the address, which stays the same at each attempt.
        let seen = request
            .headers()
            .get("last-event-id")
            .and_then(|id| id.to_str().ok())
            .filter(|id| !id.is_empty());
        let since = seen.map(str::to_owned).or_else(|| query_value(query, "since"));
        let seat = request.extensions().get::<Seat>().cloned();
        Ok(Wish {
            user,
            topics,
            since,
            places: (slot, place, seat),
        })
    }
}

/// Enters the rooms, on a task of its own that also cleans up when the client does not wait, then answers.
async fn open(hub: Arc<Hub>, wish: Wish) -> Response<Body> {
    let limit = usize::try_from(hub.config.queue).unwrap_or(usize::MAX);
    let client = Arc::new(Client::new(Wire::Json, Transport::Sse, Sink::Pull, limit));
    let (sender, opened) = oneshot::channel();
    tokio::spawn(async move {
        match Plain::open(&hub, &client, wish.user, wish.since, &wish.topics).await {
            Err(refused) => {
                let _ = sender.send(Err(refused));
            }
            Ok(plain) => {
                let (pieces, stream) = mpsc::channel(1);
                metrics::opened(Transport::Sse);
                let _ = sender.send(Ok(stream));
                let closing = serve(&client, &plain, hub.config.ws_ping_interval, &pieces).await;
                hub.close_session(&plain.session, &closing.reason, true).await;
                metrics::closed(Transport::Sse, closing.code);
            }
        }
        drop(wish.places);
    });
    match opened.await {
        Ok(Ok(stream)) => answer(stream),
        Ok(Err(Refused::Client { code, message })) => {
            metrics::error(&code);
            error(StatusCode::FORBIDDEN, &code, &message)
        }
        Ok(Err(Refused::Unavailable)) | Err(_) => {
            unavailable("unavailable", "the cluster cannot do this now", 2)
        }
    }
}

fn answer(pieces: Stream) -> Response<Body> {
    let pieces =
        futures_util::stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
    let mut response = Response::new(stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Otherwise some proxies collect a body before they pass it on.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// Hands over what waits for the client, until either side ends.
async fn serve(
    client: &Client,
    plain: &Plain,
    interval: Duration,
    pieces: &mpsc::Sender<Result<Bytes, Broken>>,
) -> Closing {
    let gone = || Closing {
        code: 1001,
        reason: "transport close".to_owned(),
        flush: false,
    };
    let mut first = format!("retry: {}\n", fastrand::u32(RETRY)).into_bytes();
    let mut beat = tokio::time::Instant::now() + interval;
    let mut id = None;
    loop {
        let closing = client.closing();
        if let Some(closing) = closing.as_ref().filter(|closing| !closing.flush) {
            return closing.clone();
        }
        // Only what can be handed over leaves the queue, whose bound is the bound of all that waits.
        let permit = tokio::select! {
            permit = pieces.reserve() => match permit {
                Ok(permit) => permit,
                Err(_) => return gone(),
            },
            () = client.woken() => continue,
        };
        let due = tokio::time::Instant::now() >= beat;
        // Everything up to this offset is in the queue, or was taken from it, unless the queue was dropped: that closes the
        // transport, which shows behind the offset.
        let offset = (due && plain.session.namespace.style.recovery).then(|| plain.session.offset());
        let due = due && client.closing().is_none();
        let chunks = client.with_outbox(|outbox| outbox.take(PIECE));
        let mut piece = std::mem::take(&mut first);
        for chunk in &chunks {
            write_message(&mut piece, chunk, &mut id);
        }
        // Behind a message that was queued meanwhile, the offset would be an older one.
        if due && chunks.is_empty() {
            id = offset.or(id);
            write_heartbeat(&mut piece, id);
            beat = tokio::time::Instant::now() + interval;
        }
        if !piece.is_empty() {
            permit.send(Ok(piece.into()));
            continue;
        }
        drop(permit);
        if let Some(closing) = closing {
            return closing;
        }
        tokio::select! {
            () = client.woken() => {}
            () = tokio::time::sleep_until(beat) => {}
            () = pieces.closed() => return gone(),
        }
    }
}

fn write_message(out: &mut Vec<u8>, chunk: &Chunk, id: &mut Option<Offset>) {
    let json = chunk.payload();
    *id = offset_of(&json).or(*id);
    if let Some(offset) = *id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(&offset.text());
        out.push(b'\n');
    }
    // White space between JSON tokens may break the line.
    for line in json.split(|&byte| byte == b'\n' || byte == b'\r') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

fn write_heartbeat(out: &mut Vec<u8>, offset: Option<Offset>) {
    match offset {
        Some(offset) => {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(&offset.text());
            out.extend_from_slice(b"\n\n");
        }
        None => out.extend_from_slice(b":\n\n"),
    }
}

/// Reads the offset of a message: the last member of its object, and of a fixed width.
fn offset_of(json: &[u8]) -> Option<Offset> {
    let (head, offset) = json.strip_suffix(b"\"}")?.split_last_chunk::<{ Offset::LEN }>()?;
    head.ends_with(b",\"offset\":\"")
        .then(|| std::str::from_utf8(offset).ok()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        let mut out = Vec::new();
        write_message(&mut out, &Chunk::text(json.as_bytes()), &mut None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_id_is_the_offset_at_the_end_of_the_message() {
        let json = r#"{"topic":"r","payload":1,"offset":"00000001000000000010"}"#;
        assert_eq!(
            message(json),
            format!("id: 00000001000000000010\ndata: {json}\n\n")
        );
        let inside = r#"{"topic":"r","payload":{"a":1,"offset":"00000001000000000010"}}"#;
        assert_eq!(message(inside), format!("data: {inside}\n\n"));
        let text = r#"{"topic":"r","payload":"a,\"offset\":\"00000001000000000010"}"#;
        assert_eq!(message(text), format!("data: {text}\n\n"));
    }

    #[test]
    fn a_message_without_an_offset_has_the_id_before_it() {
        let mut out = Vec::new();
        let mut id = Some(Offset {
            epoch: 1,
            sequence: 16,
        });
        write_message(&mut out, &Chunk::text(b"{}"), &mut id);
        assert_eq!(out, b"id: 00000001000000000010\ndata: {}\n\n");
    }

    #[test]
    fn white_space_in_a_payload_does_not_end_the_message() {
        assert_eq!(
            message("{\"payload\":{\n\n\"a\":\r1}}"),
            "data: {\"payload\":{\ndata: \ndata: \"a\":\ndata: 1}}\n\n"
        );
    }

    #[test]
    fn a_heartbeat_has_an_id_and_no_data() {
        let mut out = Vec::new();
        write_heartbeat(
            &mut out,
            Some(Offset {
                epoch: 1,
                sequence: 16,
            }),
        );
        assert_eq!(out, b"id: 00000001000000000010\n\n");
    }
}
