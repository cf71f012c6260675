//! What is wrong with settings that each look right.

mod addresses;
mod namespaces;
mod nats;
mod timing;

use carillon_auth::{Authorizer, Verifier};
use carillon_service::config::{ConfigError, Origins};

use super::Config;

/// Returns everything that is wrong, with the place of each.
pub(crate) fn problems(config: &Config, origins: &Origins) -> Vec<ConfigError> {
    let mut report = Report {
        origins,
        found: Vec::new(),
    };
    nats::check(config, &mut report);
    auth(config, &mut report);
    if let Some(clash) = config.edge.contradiction() {
        let set = |(key, _): &&(&str, &str)| origins.is_set(&["edge", key]);
        let (key, expected) = clash.iter().find(set).unwrap_or(&clash[0]);
        report.add(&["edge", key], format!("expected {expected}"));
    }
    for (key, index, problem) in config.edge.bad_entries() {
        report.add(&["edge", key, &index.to_string()], problem);
    }
    if let Err(problem) = config.publisher.check() {
        report.add_key(&problem.key, problem.problem);
    }
    if let Some((key, problem)) = config.telemetry.contradiction() {
        report.add(&["telemetry", key], problem);
    }
    addresses::check(config, &mut report);
    timing::check(config, &mut report);
    namespaces::check(config, &mut report);
    report.found
}

/// Collects problems.
struct Report<'a> {
    origins: &'a Origins,
    found: Vec<ConfigError>,
}

impl Report<'_> {
    fn add(&mut self, path: &[&str], problem: impl Into<String>) {
        self.found.push(ConfigError::at(self.origins, path, problem));
    }

    fn add_key(&mut self, key: &str, problem: impl Into<String>) {
        self.found.push(ConfigError::at_key(self.origins, key, problem));
    }
}

fn auth(config: &Config, report: &mut Report<'_>) {
    let checked = Verifier::new(&config.auth).and_then(|verifier| Authorizer::new(&config.auth, verifier));
    if let Err(problem) = checked {
        report.add_key(&problem.key, problem.problem);
    }
}
