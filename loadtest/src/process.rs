//! Processes that are measured: each pinned to a core, and gone with its handle.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A core, as `taskset` counts them.
pub(crate) type Core = usize;

/// A running process; it is killed when the value is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    name: String,
}

impl Process {
    /// Starts a program on a core. Its errors go where ours go.
    pub(crate) fn start(
        name: &str,
        core: Core,
        program: impl AsRef<OsStr>,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        // Whatever happens to this process, nothing that it started stays behind.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()])
            .arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        configure(&mut command);
        let child = command.spawn().context("cannot run setpriv")?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until somebody listens at an address.
    pub(crate) fn wait_listening(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.wait("listen", || TcpStream::connect(address).is_ok())
    }

    /// Waits until `/readyz` at an address says so.
    pub(crate) fn wait_ready(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.wait("be ready", || is_ready(address).unwrap_or(false))
    }

    fn wait(&mut self, what: &str, is_done: impl Fn() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_done() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended with {status}", self.name);
            }
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "{} did not {what} in time",
                self.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b" 200"))
}
