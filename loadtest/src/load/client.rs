//! One client: its handshake, and the frames that it gets.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::Speech;
use super::payload::Finder;
use super::tally::Tally;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

pub(super) struct Client {
    stream: TcpStream,
    state: State,
    /// The beginning of a frame that is not whole yet; empty most of the time.
    partial: Vec<u8>,
    /// The number of the last event.
    last: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    /// The request is sent.
    Upgrading,
    /// The protocol's own greeting is under way.
    Greeting,
    Ready,
}

/// What all clients share.
pub(super) struct Shared {
    pub(super) speech: Speech,
    pub(super) tally: Tally,
    pub(super) finder: Finder,
    pub(super) scratch: Box<[u8]>,
    /// The time of stamps, read once for each socket.
    pub(super) now: u64,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            state: State::Connecting,
            partial: Vec::new(),
            last: 0,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket can be used: the request is sent.
    pub(super) fn connected(&mut self, shared: &Shared, server: SocketAddr, token: &str) -> io::Result<()> {
        if self.state != State::Connecting {
            return Ok(());
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if self
            .stream
            .peer_addr()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
        {
            return Ok(());
        }
        let path = match shared.speech {
            Speech::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Speech::Ws | Speech::Bare => "/ws",
        };
        let bearer = match shared.speech {
            Speech::Ws => format!("Authorization: Bearer {token}\r\n"),
            Speech::SocketIo | Speech::Bare => String::new(),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{bearer}\r\n"
        );
        self.stream.set_nodelay(true)?;
        self.stream.write_all(request.as_bytes())?;
        self.state = State::Upgrading;
        Ok(())
    }

    /// Reads what is there, once: what a short read leaves is announced again.
    pub(super) fn read(&mut self, shared: &mut Shared, token: impl Fn() -> String) -> io::Result<()> {
        loop {
            let mut scratch = std::mem::take(&mut shared.scratch);
            let read = self.stream.read(&mut scratch);
            let taken = match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self
                    .take(&scratch[..read], shared, &token)
                    .map(|()| read == scratch.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            };
            shared.scratch = scratch;
            if !taken? {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], shared: &mut Shared, token: &impl Fn() -> String) -> io::Result<()> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, shared, token)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let used = self.frames(&joined, shared, token)?;
        if used < joined.len() {
            joined.drain(..used);
            self.partial = joined;
        }
        Ok(())
    }

    /// Handles whole frames and returns how many bytes they took.
    fn frames(
        &mut self,
        bytes: &[u8],
        shared: &mut Shared,
        token: &impl Fn() -> String,
    ) -> io::Result<usize> {
        let mut used = 0;
        if self.state == State::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other("the upgrade was refused"));
            }
            self.state = State::Greeting;
            used = end + 4;
        }
        while let Some((opcode, start, end)) = frame(&bytes[used..]) {
            let payload = &bytes[used + start..used + end];
            match opcode {
                TEXT => self.text(payload, shared, token)?,
                PING => self.send(PONG, payload)?,
                CLOSE => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
            used += end;
        }
        Ok(used)
    }

    fn text(&mut self, payload: &[u8], shared: &mut Shared, token: &impl Fn() -> String) -> io::Result<()> {
        if self.state == State::Greeting {
            return self.greeting(payload, shared.speech, token);
        }
        if let Some(stamp) = shared.finder.find(payload) {
            shared.tally.count(stamp, &mut self.last, shared.now);
        } else if payload == b"2" && shared.speech == Speech::SocketIo {
            self.send(TEXT, b"3")?;
        }
        Ok(())
    }

    fn greeting(&mut self, payload: &[u8], speech: Speech, token: &impl Fn() -> String) -> io::Result<()> {
        let ready: &[u8] = match speech {
            Speech::SocketIo if payload.starts_with(b"0") => {
                return self.send(TEXT, format!(r#"40{{"token":"{}"}}"#, token()).as_bytes());
            }
            Speech::SocketIo | Speech::Bare => b"40",
            Speech::Ws => br#"{"type":"welcome""#,
        };
        if !payload.starts_with(ready) {
            return Err(io::Error::other("the client was refused"));
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Sends a short frame, with a mask of zeros.
    fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }
}

/// Returns opcode, begin and end of the payload of the first frame, if it is whole.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&opcode, &length) = (bytes.first()?, bytes.get(1)?);
    let (start, length): (usize, usize) = match length {
        126 => (
            4,
            usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        ),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?,
        ),
        short => (2, usize::from(short)),
    };
    let end = start.checked_add(length)?;
    (bytes.len() >= end).then_some((opcode & 0xf, start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_seen_once_it_is_whole() {
        for (length, head) in [(5, 2), (200, 4), (70_000, 10)] {
            let mut bytes = vec![0x81];
            match head {
                2 => bytes.push(length as u8),
                4 => bytes.extend([&[126], &(length as u16).to_be_bytes()[..]].concat()),
                _ => bytes.extend([&[127], &(length as u64).to_be_bytes()[..]].concat()),
            }
            bytes.resize(head + length, b'x');
            assert_eq!(frame(&bytes[..bytes.len() - 1]), None);
            assert_eq!(frame(&bytes), Some((TEXT, head, head + length)));
        }
    }
}
