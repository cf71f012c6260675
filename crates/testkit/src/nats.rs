//! A real `nats-server` with JetStream for one test.

mod binary;
mod cluster;
mod raw;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

pub use self::binary::binary;
pub use self::cluster::Cluster;
pub use self::raw::STRANGE_HEADERS;
use crate::child::{Child, Log};
use crate::{http, net, wait};

/// Above the largest event with its headers, as in production.
pub const MAX_PAYLOAD: usize = 8 << 20;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest message it takes, in bytes.
    pub max_payload: usize,
    /// Whether it runs JetStream.
    pub jetstream: bool,
    /// More lines for its config file: accounts, TLS, MQTT.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_payload: MAX_PAYLOAD,
            jetstream: true,
            extra: String::new(),
        }
    }
}

/// One server; it keeps its port and its store over restarts, and is killed when dropped.
pub struct Server {
    name: String,
    options: Options,
    client: SocketAddr,
    monitor: SocketAddr,
    folder: TempDir,
    log: Arc<Log>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with JetStream on a free port and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a server with these options and waits until it is ready.
    pub async fn start_with(options: Options) -> Self {
        let mut server = Self::new("nats", options);
        server.restart().await;
        server
    }

    /// A server that is not running yet.
    fn new(name: &str, options: Options) -> Self {
        Self {
            name: name.to_owned(),
            options,
            client: net::free_addr(),
            monitor: net::free_addr(),
            folder: tempfile::tempdir().unwrap_or_else(|e| panic!("cannot create a folder: {e}")),
            log: Arc::default(),
            child: None,
        }
    }

    /// `nats://127.0.0.1:PORT`, whether it runs or not.
    pub fn url(&self) -> String {
        format!("nats://{}", self.client)
    }

    /// The address that clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.client
    }

    /// The address of its own HTTP monitoring.
    pub fn monitor(&self) -> SocketAddr {
        self.monitor
    }

    /// What it printed, over all restarts.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where JetStream keeps its files.
    pub fn store(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.status().is_none())
    }

    /// A client of this server.
    pub async fn connect(&self) -> async_nats::Client {
        let client = async_nats::connect(self.url()).await;
        client.unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.url()))
    }

    /// Ends it with SIGTERM and waits until it is gone.
    pub async fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            child.signal(Signal::TERM);
            child.wait_exit(STOP_LIMIT).await;
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
        }
    }

    /// Stops its threads with SIGSTOP: its connections stay open and silent.
    pub fn pause(&self) {
        self.running().pause();
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    /// Starts it again on the same port and store, after a graceful stop if it still runs, and waits
    /// until it is ready.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.launch();
        self.ready().await;
    }

    fn running(&self) -> &Child {
        self.child
            .as_ref()
            .unwrap_or_else(|| panic!("{} is not running", self.name))
    }

    fn launch(&mut self) {
        let config = self.folder.path().join("nats.conf");
        std::fs::write(&config, self.config())
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", config.display()));
        let mut command = Command::new(binary());
        command.arg("--config").arg(&config);
        self.child = Some(Child::spawn(&self.name, command, self.log.clone()));
    }

    fn config(&self) -> String {
        let Options {
            max_payload,
            jetstream,
            extra,
        } = &self.options;
        let mut text = format!(
            "server_name: \"{}\"\nlisten: \"{}\"\nhttp: \"{}\"\nmax_payload: {max_payload}\nmax_pending: 256MB\n",
            self.name, self.client, self.monitor
        );
        if *jetstream {
            let store = self.folder.path().join("store");
            let _ = writeln!(text, "jetstream {{ store_dir: \"{}\" }}", store.display());
        }
        text + extra
    }

    async fn ready(&self) {
        let http = http::client();
        let health = format!("http://{}/healthz", self.monitor);
        let ready = wait::within(START_LIMIT, async || {
            if let Some(status) = self.running().status() {
                panic!("{} ended at its start ({status})\n{}", self.name, self.log.tail());
            }
            let response = http.get(&health).send().await.ok()?;
            response.status().is_success().then_some(())
        });
        if ready.await.is_none() {
            panic!(
                "{} was not ready after {START_LIMIT:?}\n{}",
                self.name,
                self.log.tail()
            );
        }
    }
}
