//! What processes and the machine used, as `/proc` tells it.

use std::fs;
use std::time::Instant;

use anyhow::Context as _;

use crate::process::Core;

/// Ticks of `/proc/PID/stat` in a second; Linux shows the same number on every machine.
const TICKS: f64 = 100.0;
const PAGE: u64 = 4096;

/// Returns the CPU time of a process, in seconds.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a process has ended")?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a process has ended")?;
    kilobytes(&status, "VmRSS:")
}

/// Returns the kernel's slab memory, which sockets, files and epoll entries are made of, in bytes.
pub(crate) fn slab() -> anyhow::Result<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo")?, "Slab:")
}

/// Returns the buffer memory of all TCP sockets, in bytes.
pub(crate) fn tcp_buffers() -> anyhow::Result<u64> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let line = sockstat
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .context("no TCP in sockstat")?;
    let pages: u64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
    Ok(pages * PAGE)
}

fn kilobytes(text: &str, key: &str) -> anyhow::Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .with_context(|| format!("no {key}"))?;
    let number: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(number * 1024)
}

/// A core's time at a moment.
pub(crate) struct Clock {
    core: Core,
    at: Instant,
    busy: f64,
    stolen: f64,
}

impl Clock {
    pub(crate) fn read(core: Core) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{core} ");
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .context("no such core")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
            anyhow::bail!("/proc/stat has an unknown form");
        };
        let busy = (user + nice + system + irq + softirq) / TICKS;
        Ok(Self {
            core,
            at: Instant::now(),
            busy,
            stolen: steal / TICKS,
        })
    }

    /// Returns the share of the time since then that others had the core, or the hypervisor took it.
    pub(crate) fn foreign_since(&self, own: f64) -> anyhow::Result<f64> {
        let now = Self::read(self.core)?;
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        let foreign = (now.busy - self.busy - own).max(0.0) + (now.stolen - self.stolen);
        Ok(foreign / seconds.max(0.001))
    }
}
