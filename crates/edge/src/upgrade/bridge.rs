//! Copies between a TLS connection and the socket that the rest of the edge uses in its place.
//!
//! A connection that is idle holds no buffer: what one side sends is read into a buffer of the thread and
//! handed on at once; only what the other side does not take is kept, and then nothing more is read.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Most bytes of one read: a TLS record.
const PIECE: usize = 16 * 1024;

/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(60);

/// Time for the client to take the end after the edge has closed its side.
const LINGER: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// Copies in both directions until the edge has closed its side, or the client is gone or stalls.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut tls: S, mut pair: UnixStream) {
    let (mut inwards, mut outwards) = (Copy::default(), Copy::default());
    let mut stall = pin!(tokio::time::sleep(STALL));
    let mut waits_since = None;
    let copied = poll_fn(|context| {
        // Where the edge hears nothing any more, what it said before is sent nevertheless.
        if let Poll::Ready(Err(Broken::Reader(error))) = inwards.poll(context, &mut tls, &mut pair) {
            return Poll::Ready(Err(error));
        }
        match outwards.poll(context, &mut pair, &mut tls) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::Reader(error) | Broken::Writer(error))) => {
                return Poll::Ready(Err(error));
            }
            Poll::Pending => {}
        }
        if !outwards.is_blocked() {
            waits_since = None;
            return Poll::Pending;
        }
        if waits_since.replace(outwards.moved) != Some(outwards.moved) {
            stall.as_mut().reset(Instant::now() + STALL);
        }
        stall
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    });
    match copied.await {
        Ok(()) => {
            drop(pair);
            // A socket closed over unread bytes is reset, and the client may lose what it was told last.
            let _ = tokio::time::timeout(LINGER, discard(&mut tls)).await;
        }
        Err(error) => tracing::debug!(%error, "tls connection ended"),
    }
}

async fn discard<S: AsyncRead + Unpin>(tls: &mut S) {
    let read = poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                if ready!(Pin::new(&mut *tls).poll_read(context, &mut buffer)).is_err()
                    || buffer.filled().is_empty()
                {
                    return Poll::Ready(());
                }
            }
        })
    });
    read.await;
}

/// Which end of a direction failed.
enum Broken {
    Reader(io::Error),
    Writer(io::Error),
}

/// One direction.
#[derive(Default)]
struct Copy {
    /// What was read and not taken yet.
    pending: Vec<u8>,
    taken: usize,
    /// Bytes that were taken in all.
    moved: u64,
    /// The writer may hold something back until it is flushed.
    unflushed: bool,
    ended: bool,
    done: bool,
}

impl Copy {
    /// Ready when everything up to the reader's end has been handed on.
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut writer = Pin::new(writer);
        while !self.done {
            while self.taken < self.pending.len() {
                let piece = &self.pending[self.taken..];
                let written = ready!(writer.as_mut().poll_write(context, piece)).and_then(not_zero);
                let written = written.map_err(Broken::Writer)?;
                self.taken += written;
                self.moved += written as u64;
            }
            (self.pending, self.taken) = (Vec::new(), 0);
            if self.ended {
                ready!(writer.as_mut().poll_shutdown(context)).map_err(Broken::Writer)?;
                self.done = true;
            } else if self.poll_piece(context, reader, writer.as_mut())?.is_pending() {
                if self.unflushed {
                    ready!(writer.as_mut().poll_flush(context)).map_err(Broken::Writer)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands on one read.
    fn poll_piece<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: Pin<&mut W>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(reader).poll_read(context, &mut buffer)) {
                Ok(()) => {}
                Err(error) if is_end(&error) => {
                    self.ended = true;
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(Broken::Reader(error))),
            }
            let piece = buffer.filled();
            if piece.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            self.unflushed = true;
            let written = match writer.poll_write(context, piece) {
                Poll::Ready(written) => written.and_then(not_zero).map_err(Broken::Writer)?,
                Poll::Pending => 0,
            };
            self.moved += written as u64;
            self.pending = piece[written..].to_vec();
            Poll::Ready(Ok(()))
        })
    }

    fn is_blocked(&self) -> bool {
        !self.pending.is_empty() || self.unflushed || self.ended
    }
}

/// A pair that is dropped over unread bytes, and a client that ends TLS without saying so, have ended too.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

fn not_zero(written: usize) -> io::Result<usize> {
    if written == 0 {
        Err(io::ErrorKind::WriteZero.into())
    } else {
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn bridged(buffer: usize) -> (DuplexStream, UnixStream, tokio::task::JoinHandle<()>) {
        let (client, tls) = duplex(buffer);
        let (edge, pair) = UnixStream::pair().unwrap();
        (client, edge, tokio::spawn(run(tls, pair)))
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_in_both_directions_under_back_pressure() {
        let (mut client, edge, task) = bridged(1000);
        let sent: Vec<u8> = (0..3_000_000_u32)
            .map(|number| (number * 31 % 251) as u8)
            .collect();
        let (mut from_edge, mut to_edge) = edge.into_split();
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut from_edge, &mut to_edge).await.unwrap();
        });
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let mut received = vec![0; sent.len()];
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(received == sent);
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        echo.await.unwrap();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_the_edge_said_last_arrives_although_it_does_not_listen_any_more() {
        let (mut client, mut edge, task) = bridged(64);
        let last = vec![7; 100_000];
        edge.write_all(&last).await.unwrap();
        client.write_all(b"nobody reads this").await.unwrap();
        drop(edge);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received == last);
        drop(client);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (client, mut edge, task) = bridged(10);
        edge.write_all(&[1; 1000]).await.unwrap();
        let began = Instant::now();
        drop(edge);
        task.await.unwrap();
        assert!(began.elapsed() >= STALL);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_told_to_the_edge() {
        let (client, mut edge, task) = bridged(1000);
        drop(client);
        assert_eq!(edge.read(&mut [0; 8]).await.unwrap(), 0);
        drop(edge);
        task.await.unwrap();
    }
}
