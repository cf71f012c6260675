use std::future::ready;

use carillon_service::listen;
use carillon_testkit::wait::until_true;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const GET: &str = "GET / HTTP/1.1\r\nhost: edge\r\n\r\n";

/// A door on a free port.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) stop: Stop,
    pub(crate) task: JoinHandle<()>,
}

impl Edge {
    pub(crate) fn open<S, F>(door: Door, service: S) -> Self
    where
        S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = listen::bind("edge", ([127, 0, 0, 1], 0).into(), BACKLOG).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let task = tokio::spawn(serve(listener, door, service, stop.clone()));
        Self { address, stop, task }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

pub(crate) fn door() -> Door {
    Door {
        proxies: Arc::new(Proxies::parse(&["127.0.0.1"]).unwrap()),
        tls: None,
        max_connections: 100,
        handshake_timeout: LIMIT,
    }
}

/// Reads the head of a response and as much of the body as comes with it.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains("\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            text.push(char::from(byte[0]));
        }
    };
    tokio::time::timeout(LIMIT, read)
        .await
        .expect("a response in time");
    text
}

async fn told(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = head(stream).await;
    let length = text
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split('\r').next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    text.push_str(std::str::from_utf8(&body).unwrap());
    text
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    // A reset is an end as well.
    let _ = tokio::time::timeout(LIMIT, read)
        .await
        .expect("the connection ends in time");
    rest
}

fn address(_request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Body>> {
    ready(Response::new(full(format!("{} {}", peer.address, peer.secure))))
}

#[tokio::test]
async fn each_request_has_the_address_that_a_trusted_proxy_tells() {
    let edge = Edge::open(door(), address);
    let mut stream = edge.connect().await;
    assert!(told(&mut stream, GET).await.ends_with("127.0.0.1 false"));
    let forwarded =
        "GET / HTTP/1.1\r\nhost: e\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n\r\n";
    assert!(told(&mut stream, forwarded).await.ends_with("192.0.2.7 true"));
}

#[tokio::test]
async fn a_slow_or_large_or_broken_head_ends_only_its_own_connection() {
    let door = Door {
        handshake_timeout: Duration::from_millis(200),
        ..door()
    };
    let edge = Edge::open(door, address);
    let mut silent = edge.connect().await;
    let mut slow = edge.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    assert!(rest(&mut silent).await.is_empty());
    assert!(rest(&mut slow).await.is_empty());

    let mut large = edge.connect().await;
    let _ = large
        .write_all(format!("GET / HTTP/1.1\r\ncookie: {}\r\n\r\n", "x".repeat(100_000)).as_bytes())
        .await;
    let answer = rest(&mut large).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let mut many = edge.connect().await;
    let _ = many
        .write_all(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)).as_bytes())
        .await;
    let answer = rest(&mut many).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let mut broken = edge.connect().await;
    broken.write_all(b"\x16\x03\x01 not http\r\n\r\n").await.unwrap();
    assert!(rest(&mut broken).await.starts_with(b"HTTP/1.1 400"));

    assert!(
        told(&mut edge.connect().await, GET)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn past_the_bound_connections_are_told_to_come_back() {
    let edge = Edge::open(
        Door {
            max_connections: 2,
            ..door()
        },
        address,
    );
    let mut held = [edge.connect().await, edge.connect().await];
    for stream in &mut held {
        assert!(told(stream, GET).await.starts_with("HTTP/1.1 200"));
    }
    for _ in 0..5 {
        let mut refused = edge.connect().await;
        let answer = told(&mut refused, GET).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("\r\nretry-after: ") && answer.contains(r#""code":"overloaded""#),
            "{answer}"
        );
        assert!(rest(&mut refused).await.is_empty());
    }
    drop(held);
    until_true("a free place", LIMIT, async || {
        told(&mut edge.connect().await, GET).await.contains("200 OK")
    })
    .await;
}

#[tokio::test]
async fn a_seat_holds_its_place_after_the_connection() {
    let (seats, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let edge = Edge::open(
        Door {
            max_connections: 1,
            ..door()
        },
        move |request: Request<Incoming>, _| {
            seats
                .send(request.extensions().get::<Seat>().unwrap().clone())
                .unwrap();
            ready(Response::new(empty()))
        },
    );
    let mut first = edge.connect().await;
    told(&mut first, GET).await;
    let seat = taken.recv().await.unwrap();
    first.shutdown().await.unwrap();
    assert!(rest(&mut first).await.is_empty());
    assert!(
        told(&mut edge.connect().await, GET)
            .await
            .starts_with("HTTP/1.1 503")
    );
    drop(seat);
    until_true("a free place", LIMIT, async || {
        told(&mut edge.connect().await, GET).await.contains("200 OK")
    })
    .await;
}

#[tokio::test]
async fn a_stop_lets_running_requests_end_and_takes_no_more() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let begun = Arc::new(Semaphore::new(0));
    let running = Arc::clone(&begun);
    let edge = Edge::open(door(), move |_, _| {
        let mut wait = wait.clone();
        running.add_permits(1);
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            Response::new(full("done"))
        }
    });
    let mut stream = edge.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    begun.acquire().await.unwrap().forget();
    edge.stop.accepting.cancel();
    until_true("a closed listener", LIMIT, async || {
        TcpStream::connect(edge.address).await.is_err()
    })
    .await;
    assert!(!edge.task.is_finished());
    go.send(true).unwrap();
    let answer = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(
        answer.contains("connection: close") && answer.ends_with("done"),
        "{answer}"
    );
    tokio::time::timeout(LIMIT, edge.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_cuts_off_what_still_runs() {
    let begun = Arc::new(Semaphore::new(0));
    let running = Arc::clone(&begun);
    let edge = Edge::open(door(), move |_, _| {
        running.add_permits(1);
        ready(Response::new(stream(futures_util::stream::pending())))
    });
    let mut client = edge.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    begun.acquire().await.unwrap().forget();
    edge.stop.everything.cancel();
    tokio::time::timeout(LIMIT, edge.task).await.unwrap().unwrap();
    rest(&mut client).await;
}

#[tokio::test]
async fn a_broken_stream_ends_the_transport_before_its_end() {
    let edge = Edge::open(door(), |_, _| {
        let pieces = futures_util::stream::iter([Ok("data: 1\n\n".into()), Err(Broken)]);
        ready(Response::new(stream(pieces)))
    });
    let mut client = edge.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let answer = String::from_utf8(rest(&mut client).await).unwrap();
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}
