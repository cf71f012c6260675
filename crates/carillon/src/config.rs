//! The settings of all services: one file, with variables laid over it.

mod check;
mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use carillon_bus::Layout;
use carillon_protocol::names::Namespace;
use carillon_service::config::{self, ConfigError, Environment, Loaded, Source};
use carillon_service::{settings, telemetry};
use serde::Deserialize;

pub(crate) use check::problems;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the cluster's state and traffic live.
    pub(crate) nats: settings::Nats,
    /// Which tokens and API keys are accepted.
    pub(crate) auth: carillon_auth::Config,
    /// What clients connect to.
    pub(crate) edge: carillon_edge::Config,
    /// The view over all sessions.
    pub(crate) router: carillon_router::Config,
    /// How events come in.
    pub(crate) publisher: carillon_publisher::Config,
    /// How long durable events can be replayed.
    pub(crate) history: settings::History,
    /// How long a client may be away.
    pub(crate) session: settings::Session,
    /// Limits of an event.
    pub(crate) events: settings::Events,
    /// Logs and traces.
    pub(crate) telemetry: telemetry::Config,
    /// What clients may do; without any there is the main namespace, in which no room can be joined.
    pub(crate) namespaces: settings::Namespaces,
}

/// Everything that is wrong with a config, one line each.
#[derive(Debug)]
pub(crate) struct Problems(pub(crate) Vec<ConfigError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads the file and the process's variables, and checks each setting by itself.
pub(crate) fn read(file: Option<&Path>) -> Result<Loaded<Config>, Problems> {
    let variables = std::env::vars_os();
    let environment: Environment = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let source = Source::new(environment);
    read_from(match file {
        Some(file) => source.file(file),
        None => source,
    })
}

/// Reads the settings and checks them against each other.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded<Config>, Problems> {
    let mut loaded = read(file)?;
    let problems = problems(&loaded.value, &loaded.sources);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    loaded.value.complete(settings::Namespace::default);
    Ok(loaded)
}

fn read_from(source: Source) -> Result<Loaded<Config>, Problems> {
    config::load(&source.aliases(names::SHORT)).map_err(|problem| Problems(vec![problem]))
}

impl Config {
    /// Adds the main namespace where the settings name none.
    pub(crate) fn complete(&mut self, main: impl FnOnce() -> settings::Namespace) {
        if self.namespaces.is_empty() {
            self.namespaces.insert("/".to_owned(), main());
        }
    }

    /// Returns the streams that the services need.
    pub(crate) fn layout(&self) -> Layout {
        // Names that are none were refused before.
        let namespaces = self.namespaces.iter();
        let namespaces =
            namespaces.filter_map(|(name, rules)| Some((Namespace::new(name).ok()?, rules.stream.clone())));
        Layout {
            history: self.history.clone(),
            namespaces: namespaces.collect(),
            partitions: self.publisher.partitions,
        }
    }

    /// Returns why no client could connect to an edge, if that is so.
    pub(crate) fn closed_to_clients(&self) -> Option<&'static str> {
        let admits_anyone = self.namespaces.values().any(|namespace| namespace.anonymous);
        (!self.auth.has_token_keys() && !admits_anyone).then_some(
            "no key for tokens is configured: set auth.secret (or JWT_SECRET), or auth.keys with a secret, a public \
             key or a key set",
        )
    }
}
