//! The `carillon` binary as a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

pub use rustix::process::Signal;

use crate::child::{Child, Log};
use crate::{http, nats, wait};

/// The names in the environment that the program reads beside `CARILLON_…`.
const SHORT_NAMES: [&str; 6] = [
    "WS_PORT",
    "WS_PATH",
    "CORS_ORIGIN",
    "JWT_SECRET",
    "NATS_URL",
    "MQTT_URL",
];

/// What to start: `Carillon::command(env!("CARGO_BIN_EXE_carillon"), ["edge"]).config(text).start()`.
#[derive(Clone)]
pub struct Builder {
    program: PathBuf,
    args: Vec<OsString>,
    name: String,
    config: Option<String>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// Writes this text to a file and passes it as `--config`.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// Sets a variable. The test's own environment is not passed on where the program would read it.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The name in failure messages; without it the arguments stand there.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Starts the process. It is killed when the value is dropped.
    pub fn start(self) -> Carillon {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("cannot create a folder: {e}"));
        let mut process = Carillon {
            builder: self,
            folder,
            log: Arc::default(),
            child: None,
        };
        process.launch();
        process
    }

    /// Runs the process to its end and returns its status with all that it printed.
    pub async fn run(self, limit: Duration) -> (ExitStatus, String) {
        let process = self.start();
        let status = process.wait_exit(limit).await;
        (status, process.log.text())
    }
}

/// A running `carillon`.
pub struct Carillon {
    builder: Builder,
    folder: TempDir,
    log: Arc<Log>,
    child: Option<Child>,
}

impl Carillon {
    /// A command of the binary `program`, to be configured and started.
    pub fn command<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
    ) -> Builder {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let name = format!("carillon {}", words.join(" "));
        Builder {
            program: program.into(),
            args,
            name,
            config: None,
            env: Vec::new(),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// Everything it printed, over all restarts.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A folder of its own, with the config file; its working directory too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The config file that `--config` names.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("carillon.toml")
    }

    /// Replaces the config file in one step, for a reload or for the next start.
    pub fn rewrite_config(&mut self, text: impl Into<String>) {
        self.builder.config = Some(text.into());
        self.write_config();
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.child().status().is_none()
    }

    /// Waits for a line that contains `needle`, and returns it. Panics at once if the process ends.
    pub async fn wait_log(&self, needle: &str, limit: Duration) -> String {
        let found = wait::within(limit, async || {
            let line = self.log.find(needle);
            if line.is_none() {
                self.must_run(needle);
            }
            line
        });
        match found.await {
            Some(line) => line,
            None => panic!(
                "{} did not print {needle:?} within {limit:?}\n{}",
                self.builder.name,
                self.log.tail()
            ),
        }
    }

    /// Waits until `/readyz` at its admin address says 200. Panics at once if the process ends.
    pub async fn wait_ready(&self, admin: SocketAddr, limit: Duration) {
        self.wait_readyz(admin, 200, limit).await;
    }

    /// Waits until `/readyz` at its admin address says `status`.
    pub async fn wait_readyz(&self, admin: SocketAddr, status: u16, limit: Duration) {
        let http = http::client();
        let url = format!("http://{admin}/readyz");
        let mut last = None;
        let ready = wait::within(limit, async || {
            self.must_run("/readyz");
            let response = http.get(&url).send().await.ok()?;
            last = Some(response.status().as_u16());
            (last == Some(status)).then_some(())
        });
        if ready.await.is_none() {
            panic!(
                "{}: /readyz was not {status} within {limit:?}, but {last:?}\n{}",
                self.builder.name,
                self.log.tail()
            );
        }
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        self.child().signal(signal);
    }

    /// Ends it with SIGKILL.
    pub fn kill9(&self) {
        self.child().kill();
    }

    /// Stops all its threads; its sockets stay open and silent.
    pub fn pause(&self) {
        self.child().pause();
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    pub async fn wait_exit(&self, limit: Duration) -> ExitStatus {
        self.child().wait_exit(limit).await
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit(limit).await
    }

    /// Starts it again with the same arguments, environment and config, after SIGKILL if it runs.
    pub fn restart(&mut self) {
        self.child = None;
        self.launch();
    }

    fn launch(&mut self) {
        let Builder {
            program,
            args,
            name,
            config,
            env,
        } = &self.builder;
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1");
        for (key, _) in std::env::vars_os() {
            let text = key.to_string_lossy();
            if text.starts_with("CARILLON_") || SHORT_NAMES.contains(&text.as_ref()) {
                command.env_remove(&key);
            }
        }
        command.env("CARILLON_NATS_SERVER", nats::binary());
        if config.is_some() {
            self.write_config();
            command.arg("--config").arg(self.config_path());
        }
        command.envs(env.iter().map(|(key, value)| (key, value)));
        self.child = Some(Child::spawn(name, command, self.log.clone()));
    }

    fn write_config(&self) {
        let Some(text) = &self.builder.config else { return };
        let path = self.config_path();
        let part = path.with_extension("part");
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &path))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }

    fn child(&self) -> &Child {
        self.child
            .as_ref()
            .unwrap_or_else(|| panic!("{} was never started", self.builder.name))
    }

    fn must_run(&self, waiting_for: &str) {
        if let Some(status) = self.child().status() {
            panic!(
                "{} ended ({status}) while the test waited for {waiting_for}\n{}",
                self.builder.name,
                self.log.tail()
            );
        }
    }
}
