//! A room with members whose sockets are real, for the benchmark of the walk.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use carillon_bus::streams::EventsStream;
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::names;
use carillon_protocol::session::{Record, State as Standing, Transport};
use carillon_service::settings;

use crate::client::Client;
use crate::delivery::walk;
use crate::frame::{Broadcast, Wire};
use crate::namespace::Namespace;
use crate::outbox::Sink;
use crate::record::Keeper;
use crate::room::State;
use crate::rules::Rules;
use crate::session::Session;
use crate::socket::Socket;
use crate::turn::Turn;
use crate::user::User;

/// Bytes that may wait for a member; the benchmark empties the sockets before.
const QUEUE: usize = 1 << 20;

/// A room at an edge that has no NATS.
pub struct RoomWalk {
    namespace: Arc<Namespace>,
    room: names::Room,
    state: State,
    peers: Vec<UnixStream>,
    sequence: u64,
}

impl RoomWalk {
    /// Opens the sessions of a room: Socket.IO, or the JSON of `/ws`.
    pub async fn new(members: usize, is_json: bool) -> Self {
        let settings = settings::Namespace::default();
        let rules = Rules::compile("/", &settings).expect("the default rules are right");
        let stream = EventsStream {
            name: "EVENTS".to_owned(),
            epoch: 1,
        };
        let name = names::Namespace::main();
        let namespace = Arc::new(Namespace::new(0, name, settings, rules, stream, QUEUE));
        namespace.release();
        let mut walk = Self {
            namespace,
            room: names::Room::new("room").expect("this is a name of a room"),
            state: State::default(),
            peers: Vec::with_capacity(members),
            sequence: 0,
        };
        for _ in 0..members {
            walk.enter(is_json).await;
        }
        walk
    }

    async fn enter(&mut self, is_json: bool) {
        let (own, peer) = UnixStream::pair().expect("a pair of sockets can be made");
        for socket in [&own, &peer] {
            socket.set_nonblocking(true).expect("a socket may be nonblocking");
        }
        let own = tokio::net::UnixStream::from_std(own).expect("this is called in a runtime");
        own.writable().await.expect("a new socket can be written to");
        let sink = Sink::Socket(Arc::new(Socket::Pair(own)));
        let (wire, transport) = if is_json {
            (Wire::Json, Transport::Ws)
        } else {
            (Wire::SocketIo, Transport::Websocket)
        };
        let client = Arc::new(Client::new(wire, transport, sink, QUEUE));
        let sid = Sid::from_random(rand::random());
        let record = Record {
            owner: EdgeId::from_random([1; EdgeId::LEN]),
            term: 1,
            state: Standing::Live,
            user: None,
            namespace: self.namespace.name.clone(),
            transport,
            rooms: [].into(),
            ordered: Vec::new(),
            automatic: Vec::new(),
            left: Vec::new(),
            stays: None,
            epoch: 1,
            start: 0,
            since: 0,
            gone: None,
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: false,
        };
        let keeper = Keeper::new(sid, record, 0);
        let user = Arc::new(User::anonymous());
        let session = Session::new(sid, Arc::clone(&self.namespace), client, user, keeper);
        session.open(0);
        session.greeted();
        session.release();
        self.state.members.add(&session, 0);
        self.peers.push(peer);
    }

    /// Delivers so many events of 128 bytes to all members in one turn; durable ones have sequences.
    pub fn deliver(&mut self, events: usize, durable: bool) {
        let data = format!(r#"{{"s":"{}"}}"#, "x".repeat(120));
        let events: Vec<_> = (0..events)
            .map(|_| {
                self.sequence += 1;
                let event = Event {
                    name: "notification:new".to_owned(),
                    payload: Payload::One(Bytes::from(data.clone())),
                    id: None,
                    except: None,
                    time: 1,
                };
                let sequence = durable.then_some(self.sequence);
                Arc::new(Broadcast::new(event, self.room.clone(), sequence, None))
            })
            .collect();
        let mut turn = Turn::default();
        walk(Some(&mut turn), &mut self.state, &events);
        turn.end();
    }

    /// Reads what the members were sent, in bytes.
    pub fn drain(&mut self) -> usize {
        let (mut buffer, mut sum) = ([0; 64 * 1024], 0);
        for peer in &mut self.peers {
            loop {
                match peer.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => sum += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("a member's socket: {error}"),
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_walk_reaches_every_member_whatever_it_is_sent() {
        for is_json in [false, true] {
            let (mut one, mut ten) = (RoomWalk::new(1, is_json).await, RoomWalk::new(10, is_json).await);
            for (events, durable) in [(1, false), (1, true), (8, false), (8, true)] {
                one.deliver(events, durable);
                ten.deliver(events, durable);
                let bytes = one.drain();
                assert!(bytes > events * 128, "{events} events are {bytes} bytes");
                assert_eq!(ten.drain(), 10 * bytes);
            }
        }
    }
}
