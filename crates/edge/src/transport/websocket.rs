//! A WebSocket: one task reads and keeps the timers; what others could not write at once, it writes too.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use carillon_protocol::engineio::{Packet, fixed};
use carillon_protocol::websocket::{Decoder, Message, Opcode, Step, close};
use tokio::time::Instant;

use crate::client::{Client, Closing};
use crate::conversation::Conversation;
use crate::entrance::PING_TIMEOUT;
use crate::frame::Chunk;
use crate::metrics;
use crate::plain::Plain;
use crate::socket::Socket;

/// No close frame was received or can be sent (RFC 6455, section 7.4.1).
const ABNORMAL: u16 = 1006;
/// Bytes that one read takes.
const READ: usize = 16 * 1024;
/// How long a close frame may take to leave, with what waits before it; a slow client is to learn of it too.
const GOODBYE: Duration = Duration::from_secs(5);

thread_local! {
    /// Reads go through one buffer per thread: an idle connection keeps none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// What a connected client speaks.
pub(crate) enum Speaker {
    SocketIo(Arc<Conversation>),
    Json(Arc<Plain>),
}

/// How a client shows that it is there.
#[derive(Clone, Copy)]
pub(crate) struct Heartbeat {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Time in which a Socket.IO client must have asked to enter a namespace.
    pub(crate) handshake: Duration,
}

/// A connected WebSocket.
pub(crate) struct Connection {
    client: Arc<Client>,
    socket: Arc<Socket>,
    speaker: Speaker,
    decoder: Decoder,
    buffer: BytesMut,
    heartbeat: Heartbeat,
    /// A ping is out that was not answered yet.
    pinged: Option<Instant>,
    /// When the first ping is due.
    first: Instant,
    deadline: Instant,
    /// The socket did not take what waits.
    blocked: bool,
}

/// What a connection has waited for.
#[derive(Default)]
struct Ready {
    readable: bool,
    woken: bool,
    writable: bool,
    due: bool,
}

impl Connection {
    pub(crate) fn new(
        client: Arc<Client>,
        socket: Arc<Socket>,
        leftover: &[u8],
        speaker: Speaker,
        heartbeat: Heartbeat,
        max_message: usize,
    ) -> Self {
        Self {
            client,
            socket,
            speaker,
            decoder: Decoder::new(max_message),
            buffer: BytesMut::from(leftover),
            heartbeat,
            pinged: None,
            first: Instant::now() + heartbeat.interval,
            deadline: Instant::now() + heartbeat.interval.min(heartbeat.handshake),
            blocked: false,
        }
    }

    /// Pings a client soon that something else has served before, and pinged up to an interval ago.
    ///
    /// Not at once: what a client hears first after it has changed to a WebSocket is the answer to what it sent.
    pub(crate) fn ping_soon(&mut self) {
        self.first = self.first.min(Instant::now() + self.heartbeat.timeout / 4);
        self.deadline = self.deadline.min(self.first);
    }

    /// Serves the connection until it ends, and returns why.
    ///
    /// The future is what an idle connection's task consists of, so it holds nothing that is needed rarely.
    pub(crate) async fn serve(&mut self) -> Closing {
        let closing = self.run().await;
        Box::pin(goodbye(&self.client, &self.socket, &closing)).await;
        closing
    }

    async fn run(&mut self) -> Closing {
        let mut timer = pin!(tokio::time::sleep_until(self.deadline));
        loop {
            if !self.buffer.is_empty()
                && let Err(closing) = Box::pin(self.read_messages()).await
            {
                return closing;
            }
            if let Some(closing) = self.client.closing() {
                return closing;
            }
            if timer.deadline() != self.deadline {
                timer.as_mut().reset(self.deadline);
            }
            let ready = self.ready(timer.as_mut(), true).await;
            if let Err(closing) = self.act(&ready) {
                return closing;
            }
        }
    }

    /// Waits for anything to do.
    ///
    /// The socket is asked by [`Socket::poll_readable`] and not by a future of its own, each of which would keep a
    /// place in a list.
    async fn ready(&self, mut timer: Pin<&mut tokio::time::Sleep>, reading: bool) -> Ready {
        let mut woken = pin!(self.client.woken());
        poll_fn(|context| {
            // An error shows at the next read or write.
            let ready = Ready {
                readable: reading && self.socket.poll_readable(context).is_ready(),
                woken: woken.as_mut().poll(context).is_ready(),
                writable: self.blocked && self.socket.poll_writable(context).is_ready(),
                due: timer.as_mut().poll(context).is_ready(),
            };
            if ready.readable || ready.woken || ready.writable || ready.due {
                Poll::Ready(ready)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn act(&mut self, ready: &Ready) -> Result<(), Closing> {
        if ready.readable {
            self.fill()?;
        }
        if ready.woken || ready.writable {
            let empty = self.client.with_outbox(|outbox| outbox.flush()).map_err(gone)?;
            self.blocked = !empty;
        }
        if ready.due {
            // A pong may be among what was read, or still to be read.
            if ready.readable {
                self.ping_again();
            } else {
                self.beat()?;
            }
        }
        Ok(())
    }

    /// Awaits what a message brings about. Nothing is read meanwhile, so that messages keep their order; the client is
    /// pinged and sent what waits for it.
    ///
    /// What it takes is in a box: most messages are pongs and need nothing.
    async fn meanwhile(
        &mut self,
        mut work: Pin<Box<impl Future<Output = Result<(), Closing>>>>,
    ) -> Result<(), Closing> {
        let mut timer = pin!(tokio::time::sleep_until(self.deadline));
        loop {
            let ready = tokio::select! {
                biased;
                done = &mut work => return done,
                ready = self.ready(timer.as_mut(), false) => ready,
            };
            if ready.woken || ready.writable {
                // An error shows at the next read.
                self.blocked = matches!(self.client.with_outbox(|outbox| outbox.flush()), Ok(false));
            }
            if ready.due {
                self.ping_again();
                timer.as_mut().reset(self.deadline);
            }
        }
    }

    /// Reads what the socket has into the buffer.
    fn fill(&mut self) -> Result<(), Closing> {
        SCRATCH.with_borrow_mut(|scratch| match self.socket.try_read(scratch) {
            Ok(0) => Err(Closing {
                code: ABNORMAL,
                reason: "transport close".to_owned(),
                flush: false,
            }),
            Ok(read) => {
                self.client.hear();
                self.buffer.extend_from_slice(&scratch[..read]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(gone(error)),
        })
    }

    async fn read_messages(&mut self) -> Result<(), Closing> {
        while !self.buffer.is_empty() {
            let step = self.decoder.decode(&mut self.buffer).map_err(|error| {
                metrics::error("bad_frame");
                Closing {
                    code: error.close_code(),
                    reason: format!("bad_frame: {error}"),
                    flush: true,
                }
            })?;
            match step {
                Step::Message(message) => self.message(message).await?,
                Step::Need(_) => return Ok(()),
            }
        }
        self.buffer = BytesMut::new();
        Ok(())
    }

    async fn message(&mut self, message: Message) -> Result<(), Closing> {
        match message {
            Message::Ping(payload) => {
                self.client.send(Chunk::new(Opcode::Pong, &payload));
                Ok(())
            }
            Message::Pong(_) => {
                self.alive();
                Ok(())
            }
            Message::Close(received) => {
                self.client.part();
                let code = received.map_or(close::NORMAL, |close| close.code);
                Err(Closing {
                    code,
                    reason: "transport close".to_owned(),
                    flush: false,
                })
            }
            Message::Text(text) => match &self.speaker {
                Speaker::SocketIo(conversation) => {
                    let conversation = Arc::clone(conversation);
                    self.engine_packet(&conversation, text.as_str()).await
                }
                Speaker::Json(plain) => {
                    let plain = Arc::clone(plain);
                    // A plain client that sends anything is there.
                    self.pinged = None;
                    self.meanwhile(Box::pin(plain.text(text.as_str()))).await
                }
            },
            Message::Binary(bytes) => match &self.speaker {
                Speaker::SocketIo(conversation) => {
                    let conversation = Arc::clone(conversation);
                    self.meanwhile(Box::pin(conversation.binary(bytes))).await
                }
                Speaker::Json(plain) => {
                    plain.bad_message(&carillon_protocol::clientjson::Problem::Binary.into())
                }
            },
        }
    }

    async fn engine_packet(&mut self, conversation: &Arc<Conversation>, text: &str) -> Result<(), Closing> {
        // A client that shall send no binary frames sends bytes as it does where it polls.
        let packet = Packet::from_polling(text).map_err(|error| {
            metrics::error("bad_frame");
            Closing {
                code: close::PROTOCOL_ERROR,
                reason: format!("bad_packet: {error}"),
                flush: true,
            }
        })?;
        match packet {
            Packet::Message(text) => self.meanwhile(Box::pin(conversation.text(text))).await,
            Packet::Binary(bytes) => self.meanwhile(Box::pin(conversation.binary(bytes))).await,
            Packet::Pong { .. } => {
                self.alive();
                Ok(())
            }
            Packet::Close => {
                self.client.part();
                Err(Closing {
                    code: close::NORMAL,
                    reason: "transport close".to_owned(),
                    flush: false,
                })
            }
            // Leftovers of an upgrade.
            Packet::Upgrade | Packet::Noop | Packet::Ping { .. } => Ok(()),
            _ => Err(Closing {
                code: close::PROTOCOL_ERROR,
                reason: "bad_packet: unexpected".to_owned(),
                flush: true,
            }),
        }
    }

    fn alive(&mut self) {
        self.pinged = None;
        self.deadline = Instant::now() + self.heartbeat.interval;
    }

    /// Asks whether the client is there, or gives it up.
    fn beat(&mut self) -> Result<(), Closing> {
        let now = Instant::now();
        if let Some(pinged) = self.pinged {
            if now.duration_since(pinged) >= self.heartbeat.timeout {
                metrics::error("timeout");
                self.client.fall_silent();
                return Err(Closing {
                    code: close::POLICY,
                    reason: PING_TIMEOUT.to_owned(),
                    flush: false,
                });
            }
            self.deadline = pinged + self.heartbeat.timeout;
            return Ok(());
        }
        if let Speaker::SocketIo(conversation) = &self.speaker
            && !conversation.has_entered()
        {
            return Err(Closing {
                code: close::POLICY,
                reason: "no namespace was entered".to_owned(),
                flush: false,
            });
        }
        if now < self.first {
            self.deadline = self.first;
            return Ok(());
        }
        self.ping();
        self.pinged = Some(now);
        self.deadline = now + self.heartbeat.timeout;
        Ok(())
    }

    /// Pings a client of which something is still to be read: whether it answers cannot be told yet.
    fn ping_again(&mut self) {
        let now = Instant::now();
        if now < self.first {
            self.deadline = self.first;
            return;
        }
        self.ping();
        self.pinged = None;
        self.deadline = now + self.heartbeat.interval;
    }

    fn ping(&self) {
        self.client.send(match self.speaker {
            Speaker::SocketIo(_) => Chunk::text(fixed::PING.as_bytes()),
            Speaker::Json(_) => Chunk::new(Opcode::Ping, b""),
        });
    }
}

/// Sends what shall still be sent, and a close frame.
pub(crate) async fn goodbye(client: &Client, socket: &Socket, closing: &Closing) {
    if closing.code == ABNORMAL {
        return;
    }
    let frame = close::close(closing.code, &closing.reason);
    let goodbye = async {
        if closing.flush {
            while !client.with_outbox(|outbox| outbox.flush())? {
                socket.writable().await?;
            }
        } else if client.with_outbox(|outbox| outbox.is_waiting()) {
            // A frame may be half written: nothing can follow it.
            return Ok(());
        }
        let mut rest = &frame[..];
        while !rest.is_empty() {
            socket.writable().await?;
            match socket.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        linger(socket).await
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Reads and drops what the client still sends: a socket that is closed with something unread resets the
/// connection, and the client loses what it was told last.
async fn linger(socket: &Socket) -> io::Result<()> {
    socket.finish()?;
    loop {
        socket.readable().await?;
        match SCRATCH.with_borrow_mut(|scratch| socket.try_read(scratch)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn gone(_: io::Error) -> Closing {
    Closing {
        code: ABNORMAL,
        reason: "transport error".to_owned(),
        flush: false,
    }
}
