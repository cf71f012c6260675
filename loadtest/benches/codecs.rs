//! The codecs on an event's way: what is read from NATS, encoded once, and patched for a client that is ahead.

use bytes::{Bytes, BytesMut};
use carillon_protocol::clientjson;
use carillon_protocol::event::{Draft, Event, Payload};
use carillon_protocol::headers::{Fields, name};
use carillon_protocol::offset::Offset;
use carillon_protocol::socketio::{self, encode};
use carillon_protocol::websocket::{Decoder, Opcode, frame};
use divan::{Bencher, black_box, counter::BytesCount};

const SIZES: [usize; 2] = [128, 1024];
const OFFSET: Offset = Offset {
    epoch: 7,
    sequence: 42,
};

fn main() {
    divan::main();
}

fn data(size: usize) -> String {
    format!(r#"{{"s":"{}"}}"#, "x".repeat(size - 8))
}

fn socket_io(data: &str) -> Vec<u8> {
    let mut text = vec![b'4'];
    socketio::encode::Event {
        namespace: "/",
        id: None,
        name: "notification:new",
        arguments: data,
        attachments: 0,
        offset: Some(OFFSET),
    }
    .write(&mut text);
    text
}

/// What a publisher does with a body.
#[divan::bench(args = SIZES)]
fn read_draft(bencher: Bencher, size: usize) {
    let body = format!(
        r#"{{"event":"notification:new","data":{},"id":"n-1"}}"#,
        data(size)
    );
    bencher
        .counter(BytesCount::new(size))
        .bench(|| Draft::read(black_box(body.as_bytes()), 7).is_ok());
}

/// What an edge does with a delivery, before it is encoded.
#[divan::bench(args = SIZES)]
fn read_delivery(bencher: Bencher, size: usize) {
    let block = b"NATS/1.0\r\nCarillon-Event: notification:new\r\nCarillon-Time: 1700000000000\r\n\
                  Nats-Sequence: 42\r\nNats-Last-Sequence: 41\r\n\r\n";
    let body = Bytes::from(data(size));
    bencher.counter(BytesCount::new(size)).bench(|| {
        let fields = Fields::read(black_box(block));
        let sequence = fields.number(name::SEQUENCE);
        (
            sequence,
            Event::from_message(|header| fields.get(header), body.clone()),
        )
    });
}

#[divan::bench(args = SIZES)]
fn encode_socket_io(bencher: Bencher, size: usize) {
    let data = data(size);
    bencher
        .counter(BytesCount::new(size))
        .bench(|| socket_io(black_box(&data)));
}

#[divan::bench(args = SIZES)]
fn encode_json(bencher: Bencher, size: usize) {
    let payload = Payload::One(data(size).into());
    bencher.counter(BytesCount::new(size)).bench(|| {
        clientjson::encode::Event {
            topic: "room:bench",
            time: 1_700_000_000_000,
            name: "notification:new",
            id: None,
            payload: black_box(&payload),
            ask: None,
            offset: Some(OFFSET),
        }
        .encode()
    });
}

/// A client that is ahead of the frame: a copy with another tail.
#[divan::bench(args = SIZES)]
fn patch_offset(bencher: Bencher, size: usize) {
    let text = socket_io(&data(size));
    bencher.counter(BytesCount::new(size)).bench(|| {
        let mut copy = black_box(&text).clone();
        encode::patch(&mut copy, OFFSET);
        copy
    });
}

/// A client's frame, with its mask.
#[divan::bench(args = SIZES)]
fn decode_client_frame(bencher: Bencher, size: usize) {
    let text = frame(Opcode::Text, data(size).as_bytes());
    // A client's frame is a server's with the mask bit and a mask behind the length.
    let head = text.len() - size;
    let mut masked = text.to_vec();
    masked[1] |= 0x80;
    masked.splice(head..head, [1, 2, 3, 4]);
    for (index, byte) in masked[head + 4..].iter_mut().enumerate() {
        *byte ^= [1, 2, 3, 4][index % 4];
    }
    let mut check = Decoder::new(1 << 20);
    assert!(check.decode(&mut BytesMut::from(&masked[..])).is_ok());
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| (Decoder::new(1 << 20), BytesMut::from(&masked[..])))
        .bench_values(|(mut decoder, mut buffer)| decoder.decode(&mut buffer).is_ok());
}
