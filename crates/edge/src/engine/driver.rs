//! The task of one session that polls: it answers polls, and knows whether the client is still there.

mod departure;
mod polls;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::engineio::{RequestError, fixed};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::message::Relay;
use carillon_protocol::session::Transport;
use carillon_protocol::websocket::close;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::neighbours::Neighbour;
use super::{Answer, Answered, Command, Engine};
use crate::client::Closing;
use crate::entrance::PING_TIMEOUT;
use crate::frame::Chunk;
use crate::hub::Hub;
use crate::metrics;
use crate::outbox::Sink;
use departure::{Frozen, Wanted};

/// Bytes of one answer, beyond its first packet.
const MAX_ANSWER: usize = 128 * 1024;
/// How long a poll stays open while the client is about to change to a WebSocket.
const NUDGE: Duration = Duration::from_millis(100);
/// How long a client may take to change to a WebSocket, and how long its last words wait for it.
pub(crate) const CHANGE: Duration = Duration::from_secs(15);
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client whose poll was at an edge that is gone may take to poll elsewhere.
const ORPHAN: Duration = Duration::from_secs(3);

struct Driver {
    hub: Arc<Hub>,
    engine: Arc<Engine>,
    open: Option<Poll>,
    /// The answer that is not known to have arrived.
    last: Option<(Option<String>, Answer)>,
    earlier: VecDeque<String>,
    /// When the client was heard or answered last: it must poll again soon.
    answered: Instant,
    probing: Option<Instant>,
    /// The other edge by which the client polled last.
    front: Option<(EdgeId, Arc<Neighbour>)>,
    /// That edge is gone: by then the client has polled at another one, or its transport has failed.
    orphan: Option<Instant>,
    relay: Option<(Relay, Arc<Neighbour>)>,
    /// The session is on its way to the relay's edge.
    frozen: Option<Frozen>,
    /// It shall be, as soon as nothing waits for the client.
    wanted: Option<Wanted>,
    pinged: Option<Instant>,
    ping_at: Instant,
}

/// A poll that waits.
struct Poll {
    t: Option<String>,
    since: Instant,
    waiters: Vec<oneshot::Sender<Answered>>,
}

/// How the task ends.
enum Left {
    Closed(Closing),
    /// The socket's task has the session now.
    GivenUp(oneshot::Sender<()>),
    /// The relay's edge has the session now.
    Moved(oneshot::Sender<Answered>),
}

/// Serves a session until it ends or is given up to a socket of this edge.
pub(super) async fn run(hub: Arc<Hub>, engine: Arc<Engine>, mut commands: mpsc::Receiver<Command>) {
    metrics::opened(Transport::Polling);
    let now = Instant::now();
    let ping_at = now + hub.config.ping_interval;
    let mut driver = Driver {
        hub: Arc::clone(&hub),
        engine: Arc::clone(&engine),
        open: None,
        last: None,
        earlier: VecDeque::new(),
        answered: now,
        probing: None,
        front: None,
        orphan: None,
        relay: None,
        frozen: None,
        wanted: None,
        pinged: None,
        ping_at,
    };
    match driver.serve(&mut commands).await {
        Left::GivenUp(answer) => {
            hub.engines.remove(engine.id);
            // The socket's task may be gone with its socket.
            if answer.send(()).is_err() {
                engine.conversation.end("transport error").await;
                metrics::closed(Transport::Polling, close::NORMAL);
            }
        }
        Left::Moved(answer) => driver.depart(answer).await,
        Left::Closed(closing) => {
            let end = engine.conversation.end(&closing.reason);
            tokio::join!(end, driver.say_farewell(&closing, &mut commands));
            hub.engines.remove(engine.id);
            metrics::closed(engine.client.transport(), closing.code);
        }
    }
}

impl Driver {
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Left {
        loop {
            if let Some(closing) = self.engine.client.closing() {
                return Left::Closed(closing);
            }
            self.answer_with_what_waits();
            self.freeze_if_wanted();
            if self.frozen.is_some() {
                self.answer_with_nothing();
            }
            let relay = self.relay.as_ref().map(|(_, edge)| Arc::clone(edge));
            let front = self.front.as_ref().map(|(_, edge)| Arc::clone(edge));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => if let Err(left) = self.take(command) {
                        return left;
                    },
                    None => return Left::Closed(gone("transport error")),
                },
                () = self.engine.client.woken() => {}
                () = tokio::time::sleep_until(self.deadline()) => if let Err(closing) = self.tick() {
                    return Left::Closed(closing);
                },
                () = lost(relay) => return Left::Closed(gone("transport error")),
                () = lost(front) => {
                    self.front = None;
                    self.orphan = Some(Instant::now() + ORPHAN);
                }
            }
        }
    }

    fn take(&mut self, command: Command) -> Result<(), Left> {
        match command {
            Command::Poll {
                t,
                relay,
                front,
                answer,
            } => self.take_poll(t, relay, front, answer).map_err(Left::Closed)?,
            Command::Pong => {
                self.pinged = None;
                self.ping_at = Instant::now() + self.hub.config.ping_interval;
            }
            Command::Close => {
                let reason = "transport close".to_owned();
                return Err(Left::Closed(Closing {
                    code: close::NORMAL,
                    reason,
                    flush: false,
                }));
            }
            Command::Probe { answer } => {
                self.probing = Some(Instant::now() + CHANGE);
                let _ = answer.send(());
            }
            Command::Serves { relay, answer } => {
                let _ = answer.send(self.relay.as_ref().map(|(relay, _)| *relay) == relay);
            }
            Command::Relay { relay, answer } => {
                let changed = self.change_to(relay);
                let _ = answer.send(changed);
            }
            Command::Freeze { relay, answer } => self.freeze(relay, answer),
            Command::Thaw { relay } => self.thaw(Some(relay)),
            Command::Leave { relay, answer } => {
                if self.is_relayed_by(relay) {
                    return Err(Left::Moved(answer));
                }
                let _ = answer.send(Err(RequestError::BadRequest));
            }
            Command::GiveUp { answer } => {
                self.release_poll();
                return Err(Left::GivenUp(answer));
            }
        }
        Ok(())
    }

    fn change_to(&mut self, relay: Relay) -> Result<(), RequestError> {
        if let Some((current, _)) = &self.relay {
            return if *current == relay {
                Ok(())
            } else {
                Err(RequestError::BadRequest)
            };
        }
        if self.probing.is_none() {
            return Err(RequestError::BadRequest);
        }
        self.release_poll();
        // The client changes when its last poll was answered, so it has that answer.
        self.last = None;
        self.probing = None;
        self.relay = Some((relay, self.hub.neighbour(relay.edge)));
        (self.front, self.orphan) = (None, None);
        self.answered = Instant::now();
        self.engine.client.change_sink(Transport::Websocket, Sink::Pull);
        metrics::changed(Transport::Polling, Transport::Websocket);
        self.hub.note_transport(&self.engine.conversation);
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let timeout = self.hub.config.ping_timeout;
        let mut deadline = self.pinged.map_or(self.ping_at, |pinged| pinged + timeout);
        let frozen = self.frozen.as_ref().map(|frozen| frozen.until);
        let wanted = self.wanted.as_ref().map(|wanted| wanted.until);
        for until in [frozen, wanted, self.orphan] {
            deadline = deadline.min(until.unwrap_or(deadline));
        }
        if let Some(until) = self.probing {
            deadline = deadline.min(self.open.as_ref().map_or(until, |open| open.since + NUDGE));
        } else if self.open.is_none() {
            deadline = deadline.min(self.answered + timeout);
        }
        deadline
    }

    fn tick(&mut self) -> Result<(), Closing> {
        let now = Instant::now();
        let timeout = self.hub.config.ping_timeout;
        if self.frozen.as_ref().is_some_and(|frozen| now >= frozen.until) {
            self.thaw(None);
        }
        if self.orphan.is_some_and(|until| now >= until) {
            return Err(self.silent("transport error"));
        }
        if let Some(until) = self.probing {
            if self.open.as_ref().is_some_and(|open| now >= open.since + NUDGE) {
                self.release_poll();
            }
            if now >= until {
                // The upgrade failed, and polling goes on.
                self.probing = None;
                self.answered = now;
            }
        } else if !self.has_open_poll() && now >= self.answered + timeout {
            return Err(self.silent("transport error"));
        }
        match self.pinged {
            // A client posts one payload after the other, so its pong waits behind the one that is being taken.
            Some(pinged) if now >= pinged + timeout && self.engine.posts.taken_since(pinged) => {
                self.ping(now)
            }
            Some(pinged) if now >= pinged + timeout => {
                metrics::error("timeout");
                return Err(self.silent(PING_TIMEOUT));
            }
            None if now >= self.ping_at => {
                if !self.engine.conversation.has_entered() {
                    return Err(gone("no namespace was entered"));
                }
                self.ping(now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the session of a client from which nothing comes any more.
    fn silent(&self, reason: &str) -> Closing {
        self.engine.client.fall_silent();
        gone(reason)
    }

    fn ping(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.engine.client.send(Chunk::text(fixed::PING.as_bytes()));
    }

    /// Tells the client that its transport is closed; it may have to come and ask.
    async fn say_farewell(&mut self, closing: &Closing, commands: &mut mpsc::Receiver<Command>) {
        let mut answers = self.farewells(closing);
        let next = |body: Bytes, left: &VecDeque<Bytes>| Answer {
            body,
            last: left.is_empty(),
        };
        if self.has_open_poll()
            && let Some(body) = answers.pop_front()
        {
            self.answer(Ok(next(body, &answers)));
        }
        let ask = async {
            while !answers.is_empty()
                && let Some(command) = commands.recv().await
            {
                // Whoever asks for anything else learns that the session is gone.
                let Command::Poll { t, answer, .. } = command else {
                    continue;
                };
                let given = self.last.as_ref();
                let again = given.filter(|(answered, _)| t.is_some() && *answered == t);
                if let Some((_, given)) = again {
                    let _ = answer.send(Ok(given.clone()));
                } else if let Some(body) = answers.pop_front() {
                    let given = next(body, &answers);
                    let _ = answer.send(Ok(given.clone()));
                    self.last = Some((t, given));
                }
            }
        };
        if is_news(closing) {
            let _ = tokio::time::timeout(FAREWELL, ask).await;
        }
    }

    /// Returns the last answers to a client's polls.
    fn farewells(&self, closing: &Closing) -> VecDeque<Bytes> {
        let mut chunks = if closing.flush {
            self.engine.client.with_outbox(|outbox| outbox.take(MAX_ANSWER))
        } else {
            Vec::new()
        };
        if self.relay.is_some() {
            let mut body = self.encode(&chunks).to_vec();
            body.extend_from_slice(&close::close(closing.code, &closing.reason));
            return [body.into()].into();
        }
        let mut answers = VecDeque::new();
        // A client closes at once where it reads CLOSE, and takes what stands before it in the same answer only then: it
        // would show an offset from before that, and get it again.
        if is_news(closing) && !chunks.is_empty() {
            answers.push_back(self.encode(&std::mem::take(&mut chunks)));
        }
        // To a client that closed it itself there is nothing to say.
        let word = if closing.code == close::NORMAL {
            fixed::NOOP
        } else {
            fixed::CLOSE
        };
        chunks.push(Chunk::text(word.as_bytes()));
        answers.push_back(self.encode(&chunks));
        answers
    }
}

/// Whether a client has to be told why its session ended. To one that closed it, broke the protocol or fell silent the
/// session is unknown from then on, as the protocol has it.
fn is_news(closing: &Closing) -> bool {
    !matches!(closing.code, close::NORMAL | close::PROTOCOL_ERROR) && closing.reason != PING_TIMEOUT
}

async fn lost(front: Option<Arc<Neighbour>>) {
    match front {
        Some(front) => front.gone().await,
        None => std::future::pending().await,
    }
}

fn gone(reason: &str) -> Closing {
    Closing {
        code: close::POLICY,
        reason: reason.to_owned(),
        flush: false,
    }
}
