//! One thread, epoll, one `send` for each message and connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::BytesMut;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use super::{BEGIN, EVERYONE, HELLO, listener, next_message};

const CLIENTS: Token = Token(usize::MAX);
const FEEDS: Token = Token(usize::MAX - 1);
const FEED: Token = Token(usize::MAX - 2);

struct Connection {
    stream: TcpStream,
    greeted: bool,
    /// What the socket did not take: without it a frame would be torn.
    rest: Vec<u8>,
}

/// Serves until the process is killed.
pub(crate) fn run(listen: SocketAddr, feed: SocketAddr) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut clients = TcpListener::from_std(listener(listen)?);
    let mut feeds = TcpListener::from_std(listener(feed)?);
    poll.registry()
        .register(&mut clients, CLIENTS, Interest::READABLE)?;
    poll.registry().register(&mut feeds, FEEDS, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut feed: Option<TcpStream> = None;
    let mut input = BytesMut::new();
    let mut scratch = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                CLIENTS => accept(&clients, poll.registry(), &mut connections)?,
                FEEDS => {
                    // One load process at a time; a new one numbers its connections from zero again.
                    let Ok((mut stream, _)) = feeds.accept() else {
                        continue;
                    };
                    poll.registry().register(&mut stream, FEED, Interest::READABLE)?;
                    input.clear();
                    connections.clear();
                    stream.write_all(BEGIN)?;
                    feed = Some(stream);
                }
                FEED => {
                    while let Some(stream) = &mut feed {
                        match stream.read(&mut scratch) {
                            Ok(0) => feed = None,
                            Ok(read) => input.extend_from_slice(&scratch[..read]),
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(_) => feed = None,
                        }
                        while let Some(message) = next_message(&mut input) {
                            match message.target {
                                EVERYONE => connections
                                    .iter_mut()
                                    .flatten()
                                    .for_each(|to| to.send(&message.frame)),
                                one => {
                                    if let Some(Some(to)) = connections.get_mut(one as usize) {
                                        to.send(&message.frame);
                                    }
                                }
                            }
                        }
                    }
                }
                Token(index) => {
                    let Some(slot) = connections.get_mut(index) else {
                        continue;
                    };
                    if slot
                        .as_mut()
                        .is_some_and(|connection| connection.serve(&mut scratch).is_err())
                    {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, Token(connections.len()), interest)?;
                connections.push(Some(Connection {
                    stream,
                    greeted: false,
                    rest: Vec::new(),
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Connection {
    fn send(&mut self, frame: &[u8]) {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(frame);
            return;
        }
        // A broken connection is seen when it is read.
        let written = self.stream.write(frame).unwrap_or(0);
        self.rest.extend_from_slice(&frame[written..]);
    }

    fn serve(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if !self.greeted => {
                    self.greeted = true;
                    self.send(HELLO);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
