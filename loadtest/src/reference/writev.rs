//! Tokio on one thread: a task and a queue for each connection, one `writev` for what waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{BEGIN, EVERYONE, HELLO, listener, next_message};

/// Messages that may wait for one connection; a connection that is slower is given up.
const QUEUE: usize = 8192;
/// Most buffers of one `writev`.
const BATCH: usize = 64;

type Connections = Arc<std::sync::Mutex<Vec<mpsc::Sender<Bytes>>>>;

/// Serves until the process is killed.
pub(crate) fn run(listen: SocketAddr, feed: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let clients = TcpListener::from_std(listener(listen)?)?;
        let feeds = TcpListener::from_std(listener(feed)?)?;
        let connections = Connections::default();
        loop {
            tokio::select! {
                accepted = clients.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let (sender, receiver) = mpsc::channel(QUEUE);
                    lock(&connections).push(sender);
                    tokio::spawn(serve(stream, receiver));
                }
                accepted = feeds.accept() => {
                    // One load process at a time; a new one numbers its connections from zero again.
                    lock(&connections).clear();
                    let (mut feed, _) = accepted?;
                    feed.write_all(BEGIN).await?;
                    tokio::spawn(distribute(feed, Arc::clone(&connections)));
                }
            }
        }
    })
}

fn lock(connections: &Connections) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Bytes>>> {
    connections
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn distribute(mut feed: TcpStream, connections: Connections) {
    let mut input = BytesMut::with_capacity(64 * 1024);
    while !matches!(feed.read_buf(&mut input).await, Ok(0) | Err(_)) {
        let connections = lock(&connections);
        while let Some(message) = next_message(&mut input) {
            let to = match message.target {
                EVERYONE => &connections[..],
                one => connections
                    .get(one as usize)
                    .map_or(&[][..], std::slice::from_ref),
            };
            for queue in to {
                // A full queue shows as a loss in the result.
                let _ = queue.try_send(message.frame.clone());
            }
        }
    }
}

async fn serve(stream: TcpStream, mut queue: mpsc::Receiver<Bytes>) {
    let mut waiting = Vec::new();
    let mut greeted = false;
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut waiting, BATCH) => {
                if taken == 0 || write(&stream, std::mem::take(&mut waiting)).await.is_err() {
                    return;
                }
            }
            ready = stream.readable() => match ready.and_then(|()| read(&stream)) {
                Ok(false) => {}
                Ok(true) if greeted => {}
                Ok(true) => {
                    greeted = true;
                    if write(&stream, vec![Bytes::from_static(HELLO)]).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

/// Reads and forgets; tells whether something came.
fn read(stream: &TcpStream) -> io::Result<bool> {
    match stream.try_read(&mut [0; 512]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

async fn write(stream: &TcpStream, frames: Vec<Bytes>) -> io::Result<()> {
    let mut frames = VecDeque::from(frames);
    while !frames.is_empty() {
        match write_some(stream, &mut frames) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            written => written?,
        }
    }
    Ok(())
}

fn write_some(stream: &TcpStream, frames: &mut VecDeque<Bytes>) -> io::Result<()> {
    let mut slices: [IoSlice<'_>; BATCH] = std::array::from_fn(|_| IoSlice::new(&[]));
    for (slot, frame) in slices.iter_mut().zip(&*frames) {
        *slot = IoSlice::new(frame);
    }
    let mut written = stream.try_write_vectored(&slices[..frames.len()])?;
    while let Some(frame) = frames.front_mut() {
        if written < frame.len() {
            frame.advance(written);
            break;
        }
        written -= frame.len();
        frames.pop_front();
    }
    Ok(())
}
