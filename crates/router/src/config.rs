//! The `[router]` section.

use std::net::SocketAddr;
use std::time::Duration;

use carillon_service::config::duration;
use serde::Deserialize;

/// `[router]`: the view over all sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the HTTP interface listens.
    pub listen: SocketAddr,
    /// Where health and metrics are served; the port of `listen` plus 1000 by default.
    pub admin: Option<SocketAddr>,
    /// How long before a transport was lost a delivery may already have missed its client. What was published
    /// to a user in that time counts as published while the user was offline.
    #[serde(with = "duration")]
    pub offline_margin: Duration,
    /// How long requests may take to end once the router stops.
    #[serde(with = "duration")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7200)),
            admin: None,
            offline_margin: Duration::from_secs(2),
            drain: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Returns where health and metrics are served.
    pub fn admin(&self) -> SocketAddr {
        let port = match self.listen.port() {
            0 => 0,
            port => port.saturating_add(1000),
        };
        self.admin.unwrap_or(SocketAddr::new(self.listen.ip(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_port_follows_the_listener() {
        let config = Config::default();
        assert_eq!(config.admin(), SocketAddr::from(([127, 0, 0, 1], 8200)));
        let config = Config {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            ..Config::default()
        };
        assert_eq!(config.admin().port(), 0);
    }
}
