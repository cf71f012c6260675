//! All clients of a load process, on one thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::client::{Client, Shared};
use super::feed::{Feed, Target};
use super::orders::{Answer, Kind};
use super::payload::{self, Finder, Stamp};
use super::tally::Tally;
use super::{Args, Speech, token};

const FEED: Token = Token(usize::MAX);
/// Clients that share a source address. It has about 28 000 ports, and the more of them are taken, the longer the kernel
/// looks for a free one: with 10 000 clients, and as many connections of before, that took longer than connecting.
const PER_ADDRESS: usize = 2_000;
/// Time without progress after which a measurement or a connect is over.
const STALL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);

pub(super) struct Fleet {
    args: Args,
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client>>,
    users: Vec<String>,
    ready: usize,
    /// How often all were disconnected.
    wave: usize,
    shared: Shared,
    feed: Feed,
    /// The number of the last event: of the room, or of each user.
    numbers: Vec<u32>,
    /// Whose turn it is.
    next: usize,
}

impl Fleet {
    pub(super) fn new(args: &Args, mut feed: Feed) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        poll.registry()
            .register(feed.stream(), FEED, Interest::READABLE | Interest::WRITABLE)?;
        let targets = if args.room.is_some() { 1 } else { args.clients };
        Ok(Self {
            poll,
            events: Events::with_capacity(2048),
            clients: (0..args.clients).map(|_| None).collect(),
            users: (0..args.clients)
                .map(|index| format!("u{:07}", args.first_user + index))
                .collect(),
            ready: 0,
            wave: 0,
            shared: Shared {
                speech: args.speech,
                tally: Tally::default(),
                finder: Finder::default(),
                scratch: vec![0; 256 * 1024].into(),
                now: 0,
            },
            feed,
            numbers: vec![0; targets],
            next: 0,
            args: args.clone(),
        })
    }

    /// Connects all clients that are not, so many at once.
    pub(super) fn connect(&mut self, at_once: usize) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        let missing: Vec<usize> = (0..self.clients.len())
            .filter(|index| self.clients[*index].is_none())
            .collect();
        let before = self.ready;
        let mut closed = self.shared.tally.closed;
        let (mut started, mut failed) = (0, 0);
        let mut progress = (Instant::now(), self.ready);
        while self.ready - before + failed < missing.len() {
            while started < missing.len() && started - failed - (self.ready - before) < at_once {
                self.open(missing[started])?;
                started += 1;
            }
            self.pump(TICK)?;
            failed += (self.shared.tally.closed - closed) as usize;
            closed = self.shared.tally.closed;
            if self.ready != progress.1 {
                progress = (Instant::now(), self.ready);
            } else if progress.0.elapsed() > 6 * STALL {
                break;
            }
        }
        Ok(Answer::Connected {
            connected: self.ready,
            failed: self.clients.len() - self.ready,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Closes every connection.
    pub(super) fn disconnect(&mut self) -> Answer {
        let begun = Instant::now();
        self.clients.iter_mut().for_each(|client| *client = None);
        self.ready = 0;
        self.wave += 1;
        Answer::Connected {
            connected: 0,
            failed: 0,
            seconds: begun.elapsed().as_secs_f64(),
        }
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let number = self.args.first_user + index;
        let server = self.args.servers[index % self.args.servers.len()];
        // Each process and each wave has addresses of its own: ports of closed connections stay taken for a minute.
        let net = Ipv4Addr::new(127, 1 + (std::process::id() % 250) as u8, 0, 2);
        let place = self.wave * self.args.clients.div_ceil(PER_ADDRESS) + number / PER_ADDRESS;
        let source = Ipv4Addr::from_bits(net.to_bits() + place as u32);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        // It goes on in the background.
        let _ = socket.connect(&server.into());
        let mut stream = TcpStream::from_std(socket.into());
        self.poll
            .registry()
            .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        self.clients[index] = Some(Client::new(stream));
        Ok(())
    }

    /// Handles what happens within a time.
    pub(super) fn pump(&mut self, limit: Duration) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            if event.token() == FEED {
                self.feed.read()?;
                self.feed.flush()?;
                continue;
            }
            let index = event.token().0;
            let Some(client) = &mut self.clients[index] else {
                continue;
            };
            let was_ready = client.is_ready();
            let room = self
                .args
                .room
                .as_deref()
                .filter(|_| self.shared.speech != Speech::Bare);
            let mint = || token::mint(&self.args.secret, &self.users[index], room);
            let mut worked = Ok(());
            if event.is_writable() && !was_ready {
                let server = self.args.servers[index % self.args.servers.len()];
                let bearer = if self.shared.speech == Speech::Ws {
                    mint()
                } else {
                    String::new()
                };
                worked = client.connected(&self.shared, server, &bearer);
            }
            if event.is_readable() && worked.is_ok() {
                self.shared.now = payload::now();
                worked = client.read(&mut self.shared, mint);
            }
            match worked {
                Ok(()) => self.ready += usize::from(client.is_ready() && !was_ready),
                Err(_) => {
                    self.ready -= usize::from(was_ready);
                    self.shared.tally.closed += 1;
                    let _ = self.poll.registry().deregister(client.stream());
                    self.clients[index] = None;
                }
            }
        }
        Ok(())
    }

    /// Publishes at a rate, and returns what arrived.
    pub(super) fn paced(&mut self, kind: Kind, rate: f64, time: Duration) -> anyhow::Result<Answer> {
        self.measure(kind, time, |begun, published, _| {
            published < (begun.elapsed().as_secs_f64() * rate) as u64
        })
    }

    /// Publishes whenever fewer than so many events are under way, and returns what arrived.
    pub(super) fn window(&mut self, kind: Kind, window: u64, time: Duration) -> anyhow::Result<Answer> {
        self.measure(kind, time, |_, _, under_way| under_way < window)
    }

    fn measure(
        &mut self,
        kind: Kind,
        time: Duration,
        is_due: impl Fn(Instant, u64, u64) -> bool,
    ) -> anyhow::Result<Answer> {
        self.shared.tally = Tally::default();
        let members = if self.args.room.is_some() {
            self.ready as u64
        } else {
            1
        };
        let (begun, began) = (Instant::now(), payload::now());
        let mut published = 0;
        while begun.elapsed() < time {
            while is_due(
                begun,
                published,
                published - self.shared.tally.delivered / members.max(1),
            ) {
                self.publish(kind);
                published += 1;
            }
            self.feed.flush()?;
            self.pump(TICK)?;
        }
        let expected = published * members;
        let mut progress = (Instant::now(), self.shared.tally.delivered);
        while self.shared.tally.delivered < expected && progress.0.elapsed() < STALL {
            self.feed.flush()?;
            self.pump(TICK)?;
            if self.shared.tally.delivered != progress.1 {
                progress = (Instant::now(), self.shared.tally.delivered);
            }
        }
        Ok(Answer::Measured(
            self.shared.tally.measured(published, expected, began),
        ))
    }

    fn publish(&mut self, kind: Kind) {
        let index = self.next % self.numbers.len();
        self.next += 1;
        self.numbers[index] += 1;
        let stamp = Stamp {
            time: payload::now(),
            number: self.numbers[index],
        };
        let target = match &self.args.room {
            Some(room) => Target::Room(room),
            None => Target::User {
                name: &self.users[index],
                index,
            },
        };
        self.feed.publish(kind, target, stamp);
    }
}
