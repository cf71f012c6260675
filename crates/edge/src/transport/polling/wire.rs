//! The socket of a client that is about to leave polling, or whose session is elsewhere.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon_protocol::websocket::{Decoder, Message, Opcode, Step, close};

use crate::frame::Chunk;
use crate::socket::Socket;

/// Bytes that one read takes.
const READ: usize = 4096;
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(20);

/// Messages in, frames out.
pub(super) struct Wire<'a> {
    socket: &'a Socket,
    decoder: Decoder,
    buffer: BytesMut,
}

impl<'a> Wire<'a> {
    pub(super) fn new(socket: &'a Socket, leftover: &Bytes, max_message: usize) -> Self {
        Self {
            socket,
            decoder: Decoder::new(max_message),
            buffer: BytesMut::from(&leftover[..]),
        }
    }

    /// Waits for the next message; `None` when the socket has ended, or what came means nothing.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            match self.receive().await? {
                Message::Ping(payload) => {
                    let pong = Chunk::new(Opcode::Pong, &payload);
                    write(self.socket, &pong.bytes).await.ok()?;
                }
                message => return Some(message),
            }
        }
    }

    /// Waits until the client has sent something; nothing of it is taken. `None` when the socket has ended.
    pub(super) async fn input(&mut self) -> Option<()> {
        while self.buffer.is_empty() {
            // A quiet client keeps no buffer.
            self.buffer = BytesMut::new();
            self.fill().await?;
        }
        Some(())
    }

    /// Waits until the socket seems to have something, and reads that.
    async fn fill(&mut self) -> Option<()> {
        self.socket.readable().await.ok()?;
        let mut scratch = [0; READ];
        match self.socket.try_read(&mut scratch) {
            Ok(0) => None,
            Ok(read) => {
                self.buffer.extend_from_slice(&scratch[..read]);
                Some(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(()),
            Err(_) => None,
        }
    }

    /// Returns whether nothing of the next message was taken.
    pub(super) fn is_between_messages(&self) -> bool {
        self.decoder.is_between_messages()
    }

    /// Waits for the next message as [`Wire::next`] does, but leaves it to the caller to answer a ping.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        loop {
            if !self.buffer.is_empty() {
                match self.decoder.decode(&mut self.buffer) {
                    Ok(Step::Message(message)) => return Some(message),
                    Ok(Step::Need(_)) => {}
                    Err(error) => {
                        farewell(self.socket, error.close_code(), &format!("bad_frame: {error}")).await;
                        return None;
                    }
                }
            }
            self.fill().await?;
        }
    }

    /// Returns what was read behind the last message.
    pub(super) fn into_leftover(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// Writes everything, or fails when the client does not take it.
pub(super) async fn write(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    let write = async {
        while !bytes.is_empty() {
            match socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::time::timeout(WRITE, write)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Closes the socket from this side.
pub(super) async fn farewell(socket: &Socket, code: u16, reason: &str) {
    // Who is gone already needs no farewell.
    let _ = write(socket, &close::close(code, reason)).await;
}
