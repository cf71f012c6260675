//! Times and sizes that depend on each other.

use std::time::Duration;

use super::Report;
use crate::config::Config;

/// Shortest history that is of use to a client that comes back.
const SHORTEST_HISTORY: Duration = Duration::from_secs(120);
/// Time between the end of a window and the moment at which the last event for it has been read.
const MARGIN: Duration = Duration::from_secs(30);
/// How long backends' events of connections are kept, and so their ids.
const LONGEST_DEDUPE: Duration = Duration::from_secs(24 * 3600);
/// A renewal may be lost twice before a lease is.
const RENEWALS_IN_LEASE: u32 = 3;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    history(config, report);
    dedupe(config, report);
    session(config, report);
    queue(config, report);
    if config.events.max_bytes == 0 {
        report.add(&["events", "max_bytes"], "expected more than zero");
    }
    if config.history.max_per_room == 0 {
        report.add(&["history", "max_per_room"], "expected more than zero");
    }
}

/// An event must be there for as long as somebody may come back for it.
fn history(config: &Config, report: &mut Report<'_>) {
    let max_age = config.history.max_age;
    if max_age < SHORTEST_HISTORY {
        let problem = format!(
            "expected at least {}, got {}",
            text(SHORTEST_HISTORY),
            text(max_age)
        );
        report.add(&["history", "max_age"], problem);
        return;
    }
    let away = [
        (["session", "recovery"], config.session.recovery),
        (["edge", "ping_interval"], config.edge.ping_interval),
        (["edge", "ping_timeout"], config.edge.ping_timeout),
    ];
    let needed: Duration = away.iter().map(|(_, part)| *part).sum::<Duration>() + MARGIN;
    if max_age > needed {
        return;
    }
    let set = |path: &&([&str; 2], Duration)| report.origins.is_set(&path.0);
    let to_blame = away.iter().filter(set).max_by_key(|(_, part)| *part);
    match to_blame.filter(|_| !report.origins.is_set(&["history", "max_age"])) {
        Some((path, _)) => report.add(
            path,
            format!(
                "expected session.recovery, edge.ping_interval, edge.ping_timeout and 30s together below \
                 history.max_age of {}, got {}",
                text(max_age),
                text(needed)
            ),
        ),
        None => report.add(
            &["history", "max_age"],
            format!(
                "expected more than {}, which is session.recovery, edge.ping_interval, edge.ping_timeout and 30s \
                 together, got {}",
                text(needed),
                text(max_age)
            ),
        ),
    }
}

/// An id is forgotten with its event; the default of `dedupe` gives way to a shorter history.
fn dedupe(config: &Config, report: &mut Report<'_>) {
    let (dedupe, max_age) = (config.history.dedupe, config.history.max_age);
    if dedupe > max_age.min(LONGEST_DEDUPE) && report.origins.is_set(&["history", "dedupe"]) {
        let problem = format!(
            "expected at most history.max_age of {}, and at most {}, got {}",
            text(max_age),
            text(LONGEST_DEDUPE),
            text(dedupe)
        );
        report.add(&["history", "dedupe"], problem);
    }
}

/// Every event must fit into the queue of a client.
fn queue(config: &Config, report: &mut Report<'_>) {
    let (queue, max_bytes) = (config.edge.queue, config.events.max_bytes);
    if queue >= max_bytes {
        return;
    }
    if report.origins.is_set(&["edge", "queue"]) || !report.origins.is_set(&["events", "max_bytes"]) {
        let problem = format!("expected at least events.max_bytes of {max_bytes}, got {queue}");
        report.add(&["edge", "queue"], problem);
    } else {
        let problem = format!("expected at most edge.queue of {queue}, got {max_bytes}");
        report.add(&["events", "max_bytes"], problem);
    }
}

fn session(config: &Config, report: &mut Report<'_>) {
    let (lease, renewal) = (config.session.lease, config.session.renewal);
    if renewal.is_zero() {
        report.add(&["session", "renewal"], "expected more than zero");
    } else if lease < renewal * RENEWALS_IN_LEASE {
        report.add(
            &["session", "lease"],
            format!(
                "expected at least {RENEWALS_IN_LEASE} times session.renewal of {}, got {}",
                text(renewal),
                text(lease)
            ),
        );
    }
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
