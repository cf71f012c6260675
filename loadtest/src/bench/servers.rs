//! The servers: a cluster of processes and both references, on ports of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tempfile::TempDir;

use super::Machine;
use crate::process::Process;

/// The secret of tokens.
pub(super) const SECRET: &str = "bench-secret";

/// Everything that is measured, running.
pub(super) struct Servers {
    pub(super) edges: Vec<Server>,
    pub(super) nats: Server,
    pub(super) publisher: Process,
    pub(super) router: Process,
    pub(super) epoll: Reference,
    pub(super) writev: Reference,
    /// Holds the streams; removed at the end.
    _folder: TempDir,
}

pub(super) struct Server {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

pub(super) struct Reference {
    pub(super) server: Server,
    pub(super) feed: SocketAddr,
}

impl Servers {
    /// Starts a cluster with a number of edges, and the references; `heartbeat` is the time between two pings in
    /// seconds.
    pub(super) fn start(machine: &Machine, edges: u16, heartbeat: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, machine.base_port + offset));
        let address = port(0);
        let store = folder.path().join("streams");
        let mut process = Process::start(
            "nats-server",
            machine.load_core,
            &machine.nats_server,
            |command| {
                command.args([
                    "--addr",
                    "127.0.0.1",
                    "--port",
                    &address.port().to_string(),
                    "--jetstream",
                ]);
                command
                    .arg("--store_dir")
                    .arg(&store)
                    .arg("--log")
                    .arg(folder.path().join("nats.log"));
            },
        )?;
        process.wait_listening(address)?;
        let nats = Server { process, address };
        let config = folder.path().join("carillon.toml");
        fs::write(&config, settings(address, heartbeat)).context("cannot write the settings")?;
        let carillon = fs::canonicalize(&machine.carillon)
            .with_context(|| format!("{} is missing: build it for release", machine.carillon.display()))?;
        let service = |name: &str, core, listen: SocketAddr, admin: SocketAddr| {
            Process::start(name, core, &carillon, |command| {
                command.arg(name).arg("--config").arg(&config);
                let section = name.to_uppercase();
                command.env(format!("CARILLON_{section}__LISTEN"), listen.to_string());
                command.env(format!("CARILLON_{section}__ADMIN"), admin.to_string());
            })
        };
        let mut router = service("router", machine.load_core, port(1), port(2))?;
        let mut publisher = service("publisher", machine.load_core, port(3), port(4))?;
        router.wait_ready(port(2))?;
        publisher.wait_ready(port(4))?;
        let mut started = Vec::new();
        for number in 0..edges {
            let (address, admin) = (port(20 + 2 * number), port(21 + 2 * number));
            let mut process = service("edge", machine.server_core, address, admin)?;
            process.wait_ready(admin)?;
            started.push(Server { process, address });
        }
        let reference = |kind, address: SocketAddr, feed: SocketAddr| {
            let program = std::env::current_exe()?;
            let mut process = Process::start(kind, machine.server_core, program, |command| {
                let (listen, feed) = (address.to_string(), feed.to_string());
                command.args(["serve", kind, "--listen", &listen, "--feed", &feed]);
            })?;
            process.wait_listening(address)?;
            anyhow::Ok(Reference {
                server: Server { process, address },
                feed,
            })
        };
        Ok(Self {
            edges: started,
            nats,
            publisher,
            router,
            epoll: reference("epoll", port(5), port(6))?,
            writev: reference("writev", port(7), port(8))?,
            _folder: folder,
        })
    }
}

fn settings(nats: SocketAddr, heartbeat: u32) -> String {
    format!(
        r#"[nats]
url = "nats://{nats}"

[auth]
secret = "{SECRET}"

[edge]
ping_interval = "{heartbeat}s"
ping_timeout = "20s"
ws_ping_interval = "{heartbeat}s"
# Only one of the edges has clients in most takes.
rebalance = false

[telemetry]
log = "error"

[namespaces."/"]
auto_join = [{{ room = "{{user.claims.room}}", when = "has(user.claims.room)" }}]
"#
    )
}
