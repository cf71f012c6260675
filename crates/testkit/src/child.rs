//! Child processes that never outlive the test process.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::{optional, wait};

/// A line is kept until this many newer ones came.
const LINES_KEPT: usize = 50_000;
const LINES_SHOWN: usize = 200;
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running child; dropped, it is killed and waited for. Its output is shown when the test fails.
pub(crate) struct Child {
    name: String,
    pid: Pid,
    inner: Mutex<process::Child>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

impl Child {
    /// Starts `command`; what it prints goes to `log`.
    pub(crate) fn spawn(name: &str, command: Command, log: Arc<Log>) -> Self {
        let stdout_log = log.clone();
        Self::spawn_reading(name, command, log, move |line| stdout_log.add(line))
    }

    /// Starts `command` and hands each line of its stdout to `on_line`; stderr goes to `log`.
    pub(crate) fn spawn_reading(
        name: &str,
        command: Command,
        log: Arc<Log>,
        on_line: impl FnMut(String) + Send + 'static,
    ) -> Self {
        let mut command = dying_with_us(command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut inner =
            spawn_on_lasting_thread(command).unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let errors = log.clone();
        let stdout = inner.stdout.take().map(|source| read_lines(source, on_line));
        let stderr = inner
            .stderr
            .take()
            .map(|source| read_lines(source, move |line| errors.add(line)));
        let readers = stdout.into_iter().chain(stderr).collect();
        Self {
            name: name.to_owned(),
            pid: Pid::from_child(&inner),
            inner: Mutex::new(inner),
            log,
            readers,
        }
    }

    pub(crate) fn take_stdin(&self) -> Option<process::ChildStdin> {
        self.inner.lock().stdin.take()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The exit status, once it has one.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        let status = self.inner.lock().try_wait();
        status.unwrap_or_else(|e| panic!("cannot wait for {}: {e}", self.name))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The pid cannot belong to another process before it has been waited for.
        let mut inner = self.inner.lock();
        if let Ok(None) = inner.try_wait() {
            kill_process(self.pid, signal)
                .unwrap_or_else(|e| panic!("cannot signal {} ({signal:?}): {e}", self.name));
        }
    }

    /// Stops every thread with SIGSTOP, and returns once they stand: the signal alone takes a moment.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + LAST_WORDS * 5;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let folder = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let Ok(tasks) = std::fs::read_dir(folder) else {
            // There is no such folder on other systems.
            return true;
        };
        tasks.flatten().all(|task| {
            let state = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The name before it may hold anything.
            state
                .rsplit(')')
                .next()
                .is_none_or(|rest| !rest.starts_with(" R") && !rest.starts_with(" S"))
        })
    }

    pub(crate) fn kill(&self) -> ExitStatus {
        self.signal(Signal::KILL);
        let status = self.inner.lock().wait();
        status.unwrap_or_else(|e| panic!("cannot wait for {}: {e}", self.name))
    }

    pub(crate) async fn wait_exit(&self, limit: Duration) -> ExitStatus {
        let Some(status) = wait::within(limit, async || self.status()).await else {
            panic!("{} still runs after {limit:?}\n{}", self.name, self.log.tail());
        };
        // Its last words may still be in the pipe; a grandchild may hold that open for ever.
        wait::within(LAST_WORDS, async || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        })
        .await;
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} (pid {})\n{}", self.name, self.pid(), self.log.tail());
        }
        let inner = self.inner.get_mut();
        let _ = inner.kill();
        let _ = inner.wait();
    }
}

/// What a child printed, line by line.
#[derive(Default)]
pub struct Log {
    lines: Mutex<VecDeque<String>>,
}

impl Log {
    /// The first line that contains `needle`.
    pub fn find(&self, needle: &str) -> Option<String> {
        self.lines
            .lock()
            .iter()
            .find(|line| line.contains(needle))
            .cloned()
    }

    /// How many lines contain `needle`.
    pub fn count(&self, needle: &str) -> usize {
        self.lines
            .lock()
            .iter()
            .filter(|line| line.contains(needle))
            .count()
    }

    /// All lines that are still kept.
    pub fn text(&self) -> String {
        join(self.lines.lock().iter())
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let lines = self.lines.lock();
        join(lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)))
    }

    /// Forgets everything, so that a later search finds only what comes from now on.
    pub fn clear(&self) {
        self.lines.lock().clear();
    }

    pub(crate) fn add(&self, line: String) {
        let mut lines = self.lines.lock();
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

fn join<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    lines.flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn read_lines(
    source: impl Read + Send + 'static,
    mut on_line: impl FnMut(String) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line) {
            on_line(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

/// Lets the kernel kill the child when the test process dies without a chance to clean up.
fn dying_with_us(command: Command) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let available = *SETPRIV.get_or_init(|| {
        optional::find("setpriv").is_some_and(|path| {
            let probe = Command::new(path).args(["--pdeathsig", "KILL", "true"]).output();
            probe.is_ok_and(|output| output.status.success())
        })
    });
    if !available {
        return command;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// The death signal follows the thread that started the child, not its process, and the thread of a
/// test ends with the test: children start on a thread that never ends.
fn spawn_on_lasting_thread(command: Command) -> io::Result<process::Child> {
    type Job = (Command, mpsc::Sender<io::Result<process::Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in inbox {
                let _ = done.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (done, result) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    spawner.lock().send((command, done)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}
