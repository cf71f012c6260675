//! What an idle connection consists of, so that it does not grow unnoticed.

use std::mem::size_of;

use crate::client::Client;
use crate::conversation::Conversation;
use crate::room::Cell;
use crate::session::Session;
use crate::socket::Socket;
use crate::transport::websocket::Connection;
use crate::user::User;

#[test]
fn an_idle_connection_is_small() {
    let (engine, plain) = crate::http::task_sizes();
    let sizes = [
        ("task of a Socket.IO connection", engine, 408),
        ("task of a plain connection", plain, 408),
        ("connection", size_of::<Connection>(), 256),
        ("client", size_of::<Client>(), 256),
        ("socket", size_of::<Socket>(), 48),
        ("conversation", size_of::<Conversation>(), 320),
        ("session", size_of::<Session>(), 624),
        ("user", size_of::<User>(), 128),
        ("room", size_of::<Cell>(), 128),
    ];
    for (what, size, bound) in sizes {
        println!("{what}: {size} bytes");
        assert!(size <= bound, "{what}: {size} bytes");
    }
}
