//! A connected stream socket that can be written to without waiting.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

/// A client's TCP connection, or this side of the pair behind which a task speaks TLS.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Pair(UnixStream),
}

impl Socket {
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Pair(stream) => stream.try_write(bytes),
        }
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Pair(stream) => stream.try_write_vectored(slices),
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Pair(stream) => stream.try_read(buffer),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Pair(stream) => stream.readable().await,
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Pair(stream) => stream.writable().await,
        }
    }

    /// Whether there may be something to read; otherwise the task is woken when there is. One task only may ask.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Pair(stream) => stream.poll_read_ready(context),
        }
    }

    /// Whether something may be written; otherwise the task is woken when it may. One task only may ask.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Pair(stream) => stream.poll_write_ready(context),
        }
    }

    /// Ends this side: the peer reads what was written, then the end.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Pair(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        }
    }
}
