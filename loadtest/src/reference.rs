//! Servers to compare with. They take ready-made frames from a feed and write them to one connection or to all;
//! whatever a client sends first is answered with the same bytes.

pub(crate) mod epoll;
pub(crate) mod writev;

use bytes::{Buf, Bytes, BytesMut};

/// Every connection, where a feed message names one.
pub(crate) const EVERYONE: u32 = u32::MAX;
/// What a client gets for its first bytes: the end of an upgrade, and a frame that says it is connected.
const HELLO: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x0440{}";
/// What a feed is told once its connections are numbered from zero: clients may come.
const BEGIN: &[u8] = b"+";
/// Listen backlog, as the edge's.
const BACKLOG: i32 = 4096;

/// A message of the feed: the number of a connection, or [`EVERYONE`], and a frame.
struct Message {
    target: u32,
    frame: Bytes,
}

/// Writes a message of the feed.
pub(crate) fn write_message(buffer: &mut Vec<u8>, target: u32, frame: &[u8]) {
    buffer.extend_from_slice(&target.to_le_bytes());
    buffer.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    buffer.extend_from_slice(frame);
}

fn next_message(buffer: &mut BytesMut) -> Option<Message> {
    let (target, rest) = buffer.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let target = u32::from_le_bytes(*target);
    let length = u32::from_le_bytes(*length) as usize;
    if rest.len() < length {
        return None;
    }
    buffer.advance(8);
    Some(Message {
        target,
        frame: buffer.split_to(length).freeze(),
    })
}

fn listener(address: std::net::SocketAddr) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Socket, Type};

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_is_written_once_it_is_whole() {
        let mut written = Vec::new();
        write_message(&mut written, 7, b"frame");
        for cut in 0..written.len() {
            assert!(next_message(&mut BytesMut::from(&written[..cut])).is_none());
        }
        let mut buffer = BytesMut::from(&written[..]);
        let message = next_message(&mut buffer).unwrap();
        assert_eq!(
            (message.target, &message.frame[..], buffer.len()),
            (7, &b"frame"[..], 0)
        );
    }
}
