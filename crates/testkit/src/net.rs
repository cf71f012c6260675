//! Ports that no other test takes.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// Below the range that the kernel hands out itself, so that a server may come back on its old port.
const PORTS: Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1 that is free and stays reserved for this process, among all test processes.
pub fn free_port() -> u16 {
    // A lock file for each port taken; the locks end with the process.
    static RESERVED: OnceLock<Mutex<HashMap<u16, File>>> = OnceLock::new();
    let mut reserved = RESERVED.get_or_init(Mutex::default).lock();

    let folder = std::env::temp_dir().join(format!(
        "carillon-test-ports-{}",
        rustix::process::getuid().as_raw()
    ));
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot create {}: {e}", folder.display()));
    for _ in 0..PORTS.len() {
        let port = fastrand::u16(PORTS);
        if reserved.contains_key(&port) {
            continue;
        }
        let path = folder.join(port.to_string());
        let file = File::options().create(true).append(true).open(&path);
        let file = file.unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(e)) => panic!("cannot lock {}: {e}", path.display()),
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            reserved.insert(port, file);
            return port;
        }
    }
    panic!("no free port between {} and {}", PORTS.start, PORTS.end);
}

/// [`free_port`] as an address of 127.0.0.1.
pub fn free_addr() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
