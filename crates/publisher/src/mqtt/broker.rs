//! How to reach a broker.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use rumqttc::{MqttOptions, TlsConfiguration, Transport};

use crate::config::Mqtt;

/// The largest packet that MQTT has: one that was not read would come again and again before all others.
const MOST_BYTES: usize = 268_435_455;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A broker's address, as its URL gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    user: Option<String>,
    password: Option<String>,
}

/// Reads `mqtt://[user[:password]@]host[:port]`, or `mqtts://…`.
pub(crate) fn broker(url: &str) -> Result<Broker, &'static str> {
    const EXPECTED: &str = "expected mqtt://host:port or mqtts://host:port";
    let (tls, rest) = match url.split_once("://") {
        Some(("mqtt" | "tcp", rest)) => (false, rest),
        Some(("mqtts" | "ssl", rest)) => (true, rest),
        _ => return Err(EXPECTED),
    };
    let rest = rest.trim_end_matches('/');
    let (user, address) = match rest.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, rest),
    };
    let default = if tls { 8883 } else { 1883 };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse().map_err(|_| EXPECTED)?),
        _ => (address, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(EXPECTED);
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((user, "")) => (Some(decode(user)), None),
        Some((user, password)) => (Some(decode(user)), Some(decode(password))),
        None => (None, None),
    };
    Ok(Broker {
        host: host.to_owned(),
        port,
        tls,
        user,
        password,
    })
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionsError {
    #[error("{0}")]
    Url(&'static str),
    #[error("cannot read {path}: {source}")]
    Authority { path: String, source: std::io::Error },
}

/// Returns how to connect; the broker keeps the session, so that nothing is lost while a publisher takes over.
pub(super) async fn options(settings: &Mqtt, identity: &str) -> Result<MqttOptions, OptionsError> {
    let broker = broker(&settings.url).map_err(OptionsError::Url)?;
    let client = settings
        .client_id
        .clone()
        .unwrap_or_else(|| format!("carillon-{identity}"));
    let mut options = MqttOptions::new(client, broker.host, broker.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(false);
    options.set_manual_acks(true);
    options.set_max_packet_size(MOST_BYTES, MOST_BYTES);
    let password = settings
        .password
        .as_ref()
        .map(|password| password.expose().to_owned())
        .or(broker.password);
    if let Some(user) = settings.username.clone().or(broker.user) {
        options.set_credentials(user, password.unwrap_or_default());
    }
    if broker.tls {
        // The client of TLS takes the process's provider; one that is installed already is as good.
        let _ = rumqttc::tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let tls = match &settings.ca {
            Some(path) => {
                let read = tokio::fs::read(path).await;
                let ca = read.map_err(|source| OptionsError::Authority {
                    path: path.display().to_string(),
                    source,
                })?;
                TlsConfiguration::Simple {
                    ca,
                    alpn: None,
                    client_auth: None,
                }
            }
            None => TlsConfiguration::default(),
        };
        options.set_transport(Transport::tls_with_config(tls));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (url, host, port, tls) in [
            ("mqtt://127.0.0.1:1883", "127.0.0.1", 1883, false),
            ("mqtt://broker", "broker", 1883, false),
            ("mqtts://broker.example/", "broker.example", 8883, true),
            ("mqtt://[::1]:1884", "::1", 1884, false),
        ] {
            let read = broker(url).unwrap();
            assert_eq!(
                (read.host.as_str(), read.port, read.tls),
                (host, port, tls),
                "{url}"
            );
        }
        let read = broker("mqtt://user:p%40ss@broker:1").unwrap();
        assert_eq!(
            (read.user.as_deref(), read.password.as_deref()),
            (Some("user"), Some("p@ss"))
        );
        for url in [
            "",
            "broker:1883",
            "http://broker",
            "mqtt://",
            "mqtt://broker:port",
            "mqtt://a/b",
        ] {
            assert!(broker(url).is_err(), "{url}");
        }
    }
}
