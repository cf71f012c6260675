//! The nats-server of `dev`: a child that never outlives this process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use carillon_service::listen;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::program::Program;
use super::store::Store;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);
/// Larger than any event with its headers, so that what is too large is refused by a publisher, with a reason.
const MAX_PAYLOAD: u64 = 8 << 20;
const LOG: &str = "nats-server.log";
const CONFIG: &str = "nats-server.conf";

/// A server that runs.
pub(super) struct Server {
    program: Program,
    store: Store,
    address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a server. Must be called on the main thread, with which its life ends.
    pub(super) fn launch(program: Program, store: Store, address: SocketAddr) -> anyhow::Result<Self> {
        // The server's own words for a taken port are many, and in its log.
        drop(listen::bind("nats-server", address, 1)?);
        let child = launch(&program, &store, address)?;
        Ok(Self {
            program,
            store,
            address,
            child,
        })
    }

    /// Returns where it takes clients.
    pub(super) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Returns what it is, for people.
    pub(super) fn description(&self) -> String {
        let folder = self.store.folder().display();
        let version = self.program.version;
        match self.store.is_kept() {
            true => format!("nats-server {version}, streams kept in {folder}"),
            false => format!("nats-server {version}, streams are new at every start"),
        }
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Starts it again with the same streams at the same address.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = launch(&self.program, &self.store, self.address)?;
        self.ready().await
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It has not been waited for, so the id is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("the nats-server does not stop, it is killed");
            let _ = self.child.kill().await;
        }
    }

    /// Waits for the file that the server writes once it listens, and takes the address from it.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().unwrap_or_default();
        let ready = async {
            loop {
                if let Some(address) = listening(&self.store.run(), pid) {
                    return Ok(address);
                }
                if let Some(status) = self.child.try_wait()? {
                    anyhow::bail!(
                        "the nats-server ended at its start ({status}): {}",
                        last_words(&self.store)
                    );
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let ready = tokio::time::timeout(START_LIMIT, ready).await;
        self.address =
            ready.with_context(|| format!("the nats-server was not ready after {START_LIMIT:?}"))??;
        Ok(())
    }
}

/// Runs the program by way of this one, so that the kernel kills it with us.
fn launch(program: &Program, store: &Store, address: SocketAddr) -> anyhow::Result<Child> {
    let run = store.run();
    let config = run.join(CONFIG);
    fs::write(&config, settings(store, address))
        .context("the settings of the nats-server cannot be written")?;
    let log = File::options().create(true).append(true).open(run.join(LOG))?;
    let own = match cfg!(target_os = "linux") {
        // Whatever has become of the file since we were started from it.
        true => Path::new("/proc/self/exe").to_owned(),
        false => std::env::current_exe().context("this program cannot be found")?,
    };
    Command::new(own)
        .arg("nats-child")
        .arg("--parent")
        .arg(std::process::id().to_string())
        .arg(&program.path)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for us: the services have something to say to NATS before it goes.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("the nats-server cannot be started")
}

fn settings(store: &Store, address: SocketAddr) -> String {
    let port = match address.port() {
        0 => -1,
        port => i32::from(port),
    };
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "server_name: carillon-dev\nhost: \"{}\"\nport: {port}\nmax_payload: {MAX_PAYLOAD}\nmax_pending: 256MB\n\
         ports_file_dir: {}\njetstream {{ store_dir: {} }}\n",
        address.ip(),
        quoted(&store.run()),
        quoted(&store.jetstream()),
    )
}

/// Reads the ports file of a process.
fn listening(folder: &Path, pid: u32) -> Option<SocketAddr> {
    let suffix = format!("_{pid}.ports");
    let entries = fs::read_dir(folder).ok()?.flatten();
    let file = entries
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(&suffix))?;
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.strip_prefix("nats://")?.parse().ok()
}

/// Returns the last line of the server's log that tells of a failure.
fn last_words(store: &Store) -> String {
    let log = fs::read_to_string(store.run().join(LOG)).unwrap_or_default();
    let is_failure =
        |line: &&str| line.contains("[FTL]") || line.contains("[ERR]") || line.starts_with("error");
    let line = log.lines().rev().find(is_failure).or_else(|| log.lines().last());
    line.unwrap_or("it said nothing").to_owned()
}
