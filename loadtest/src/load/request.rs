//! Plain NATS requests, as a measure of what the machine takes for a way there and back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::feed::{Operation, nats, operation};
use super::orders::Answer;
use super::payload::{self, Stamp};
use super::tally::Tally;

const SUBJECT: &str = "bench.request";
/// Time for the last replies.
const TAIL: Duration = Duration::from_millis(500);
/// Time for the reply of a router.
const REPLY: Duration = Duration::from_secs(5);

/// Sends requests at a rate, answers them over another connection, and returns their times.
pub(super) fn measure(address: SocketAddr, rate: f64, time: Duration) -> anyhow::Result<Answer> {
    let responder = nats(address, SUBJECT)?;
    let answering = respond(responder.try_clone()?);
    let requester = nats(address, "bench.unused")?;
    let reading = collect(requester.try_clone()?);
    let begun = Instant::now();
    let began = payload::now();
    let mut sent = 0;
    let (mut body, at) = payload::template(128);
    let mut out = Vec::new();
    let mut writer = requester.try_clone()?;
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            sent += 1;
            payload::write(
                &mut body[at..],
                Stamp {
                    time: payload::now(),
                    number: sent as u32,
                },
            );
            write!(out, "PUB {SUBJECT} _INBOX.bench.r {}\r\n", body.len())?;
            out.extend_from_slice(&body);
            out.extend_from_slice(b"\r\n");
        }
        writer.write_all(&out)?;
        out.clear();
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(TAIL);
    for stream in [&requester, &responder] {
        stream.shutdown(Shutdown::Both)?;
    }
    let _ = answering.join();
    let tally = reading
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of replies failed"))?;
    Ok(Answer::Measured(tally.measured(sent, sent, began)))
}

/// Asks how many are present in a room; `None` where nobody answers.
pub(crate) fn presence(address: SocketAddr, subject: &str) -> anyhow::Result<Option<u64>> {
    #[derive(serde::Deserialize)]
    struct Presence {
        count: u64,
    }

    let mut stream = nats(address, "bench.unused")?;
    stream.set_read_timeout(Some(REPLY))?;
    stream.write_all(format!("PUB {subject} _INBOX.bench.p 0\r\n\r\n").as_bytes())?;
    let closer = stream.try_clone()?;
    let mut count = None;
    // It ends with the reply, or with the time.
    let _ = each_message(&mut stream, |_, body| {
        count = serde_json::from_slice::<Presence>(body)
            .ok()
            .map(|presence| presence.count);
        let _ = closer.shutdown(Shutdown::Both);
    });
    Ok(count)
}

fn respond(mut stream: TcpStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok(writer) = stream.try_clone() else { return };
        let mut out = Vec::new();
        let end = each_message(&mut stream, |reply, body| {
            if let Some(reply) = reply {
                out.clear();
                for part in [
                    b"PUB ",
                    reply,
                    format!(" {}\r\n", body.len()).as_bytes(),
                    body,
                    b"\r\n",
                ] {
                    out.extend_from_slice(part);
                }
                let _ = (&writer).write_all(&out);
            }
        });
        drop(end);
    })
}

fn collect(mut stream: TcpStream) -> std::thread::JoinHandle<Tally> {
    std::thread::spawn(move || {
        let (mut tally, mut finder, mut last) = (Tally::default(), payload::Finder::default(), 0);
        // It ends when the connection is shut down.
        let _ = each_message(&mut stream, |_, body| {
            if let Some(stamp) = finder.find(body) {
                tally.count(stamp, &mut last, payload::now());
            }
        });
        tally
    })
}

fn each_message(stream: &mut TcpStream, mut take: impl FnMut(Option<&[u8]>, &[u8])) -> anyhow::Result<()> {
    let mut input = Vec::new();
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut scratch)?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&scratch[..read]);
        let mut used = 0;
        while let Some((length, operation)) = operation(&input[used..])? {
            match operation {
                Operation::Message { reply, body } => {
                    let bytes = &input[used..];
                    take(reply.map(|reply| &bytes[reply]), &bytes[body]);
                }
                Operation::Ping => stream.write_all(b"PONG\r\n")?,
                Operation::Other => {}
            }
            used += length;
        }
        input.drain(..used);
    }
}
