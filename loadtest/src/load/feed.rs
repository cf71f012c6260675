//! Where events are published: NATS, or the feed of a reference server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;

use super::orders::Kind;
use super::payload::{self, Stamp};
use super::{Args, Speech};
use crate::reference::{EVERYONE, write_message};

/// Time for the server to take the connection.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Feed {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    dialect: Dialect,
    /// The event, with the place of the stamp in it.
    event: Vec<u8>,
    stamp: usize,
    pub(super) acknowledged: u64,
}

enum Dialect {
    Nats,
    Reference,
}

/// Whom an event is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Room(&'a str),
    User { name: &'a str, index: usize },
}

impl Feed {
    pub(super) fn connect(args: &Args) -> anyhow::Result<Self> {
        let mut stream = std::net::TcpStream::connect_timeout(&args.feed, PATIENCE)?;
        stream.set_nodelay(true)?;
        let (data, stamp) = payload::template(args.bytes);
        let (dialect, before, after) = match args.speech {
            Speech::Bare => {
                stream.read_exact(&mut [0])?;
                (Dialect::Reference, r#"42["e","#, "]")
            }
            Speech::SocketIo | Speech::Ws => {
                greet(&mut stream)?;
                (Dialect::Nats, r#"{"event":"e","data":"#, "}")
            }
        };
        let event = [before.as_bytes(), &data, after.as_bytes()].concat();
        let (event, stamp) = match dialect {
            Dialect::Nats => (event, before.len() + stamp),
            Dialect::Reference => {
                let (head, length) = (text_header(event.len()), event.len());
                debug_assert_eq!(length, before.len() + data.len() + after.len());
                ([&head[..], &event].concat(), head.len() + before.len() + stamp)
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            out: Vec::new(),
            input: Vec::new(),
            dialect,
            event,
            stamp,
            acknowledged: 0,
        })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Queues an event; [`Feed::flush`] sends it.
    pub(super) fn publish(&mut self, kind: Kind, target: Target<'_>, stamp: Stamp) {
        payload::write(&mut self.event[self.stamp..], stamp);
        match self.dialect {
            Dialect::Reference => {
                let number = match target {
                    Target::Room(_) => EVERYONE,
                    Target::User { index, .. } => index as u32,
                };
                write_message(&mut self.out, number, &self.event);
            }
            Dialect::Nats => {
                let subject = if kind == Kind::Signal {
                    "PUB rt.signal.main."
                } else {
                    "PUB rt.pub.main."
                };
                self.out.extend_from_slice(subject.as_bytes());
                match target {
                    Target::Room(room) => self.out.extend_from_slice(room.as_bytes()),
                    Target::User { name, .. } => {
                        self.out.extend_from_slice(b"user:");
                        self.out.extend_from_slice(name.as_bytes());
                    }
                }
                if kind == Kind::Durable {
                    self.out.extend_from_slice(b" _INBOX.bench.a");
                }
                self.out
                    .extend_from_slice(format!(" {}\r\n", self.event.len()).as_bytes());
                self.out.extend_from_slice(&self.event);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes what waits, as far as it is taken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads acknowledgements and pings.
    pub(super) fn read(&mut self) -> anyhow::Result<()> {
        let mut scratch = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => anyhow::bail!("the feed was closed"),
                Ok(read) => self.input.extend_from_slice(&scratch[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut used = 0;
        while let Some((length, operation)) = operation(&self.input[used..])? {
            match operation {
                Operation::Message { body, .. } => {
                    let body = &self.input[used..][body];
                    anyhow::ensure!(
                        memchr::memmem::find(body, b"\"error\"").is_none(),
                        "an event was not stored: {}",
                        String::from_utf8_lossy(body)
                    );
                    self.acknowledged += 1;
                }
                Operation::Ping => self.out.extend_from_slice(b"PONG\r\n"),
                Operation::Other => {}
            }
            used += length;
        }
        self.input.drain(..used);
        self.flush()?;
        Ok(())
    }
}

/// Says hello to NATS, and hears acknowledgements from now on.
fn greet(stream: &mut std::net::TcpStream) -> io::Result<()> {
    let mut info = String::new();
    BufReader::with_capacity(1, stream.try_clone()?).read_line(&mut info)?;
    stream.write_all(
        b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":false}\r\nSUB _INBOX.bench.* 1\r\n",
    )
}

/// Connects to NATS with a subscription, for whoever reads and writes by itself.
pub(super) fn nats(address: SocketAddr, subject: &str) -> io::Result<std::net::TcpStream> {
    let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    greet(&mut stream)?;
    stream.write_all(format!("SUB {subject} 2\r\n").as_bytes())?;
    Ok(stream)
}

/// What NATS says, as far as a load process cares.
pub(super) enum Operation {
    Message {
        reply: Option<std::ops::Range<usize>>,
        body: std::ops::Range<usize>,
    },
    Ping,
    Other,
}

/// Returns the next whole operation with its length.
pub(super) fn operation(input: &[u8]) -> anyhow::Result<Option<(usize, Operation)>> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&input[..end])?.trim_end();
    if let Some(rest) = line.strip_prefix("MSG ") {
        let parts: Vec<&str> = rest.split_ascii_whitespace().collect();
        let size: usize = parts.last().map_or(Ok(0), |size| size.parse())?;
        let reply = (parts.len() == 4).then(|| {
            let begin = parts[2].as_ptr() as usize - input.as_ptr() as usize;
            begin..begin + parts[2].len()
        });
        let length = end + 1 + size + 2;
        let message = Operation::Message {
            reply,
            body: end + 1..end + 1 + size,
        };
        return Ok((input.len() >= length).then_some((length, message)));
    }
    anyhow::ensure!(!line.starts_with("-ERR"), "NATS refused: {line}");
    let operation = if line == "PING" {
        Operation::Ping
    } else {
        Operation::Other
    };
    Ok(Some((end + 1, operation)))
}

fn text_header(length: usize) -> Vec<u8> {
    match length {
        short @ 0..126 => vec![0x81, short as u8],
        long => [&[0x81, 126], &(long as u16).to_be_bytes()[..]].concat(),
    }
}
