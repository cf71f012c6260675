//! Binding addresses, and serving plain HTTP on them.

mod serve;

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

pub use serve::{Limits, serve};

/// Connections that the kernel holds until they are accepted.
pub const DEFAULT_BACKLOG: u32 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, or another service of this one, has the address.
    #[error("the {service} cannot listen on {address}: address already in use")]
    InUse {
        /// Who wanted it.
        service: &'static str,
        /// What it wanted.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("the {service} cannot listen on {address}")]
    Refused {
        /// Who wanted it.
        service: &'static str,
        /// What it wanted.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on an address; must be called within a runtime.
///
/// An address that was left a moment ago is free at once, one that somebody listens on is not.
pub fn bind(service: &'static str, address: SocketAddr, backlog: u32) -> Result<TcpListener, BindError> {
    try_bind(address, backlog).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { service, address },
        _ => BindError::Refused {
            service,
            address,
            source,
        },
    })
}

fn try_bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_one_clear_sentence() {
        let first = bind("edge", "127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("router", address, 16).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the router cannot listen on {address}: address already in use")
        );
        drop(first);
        bind("router", address, 16).unwrap();
    }

    #[tokio::test]
    async fn another_refusal_names_the_service_too() {
        let error = bind("admin", "203.0.113.7:1".parse().unwrap(), 16).unwrap_err();
        assert_eq!(error.to_string(), "the admin cannot listen on 203.0.113.7:1");
        assert!(std::error::Error::source(&error).is_some());
    }
}
