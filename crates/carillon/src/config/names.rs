//! The short names of settings.

use std::net::SocketAddr;

use carillon_service::config::Alias;

/// The variables that deployments of the replaced gateways set already.
pub(super) const SHORT: &[Alias] = &[
    Alias::with("WS_PORT", &["edge", "listen"], with_port),
    Alias::new("WS_PATH", &["edge", "path"]),
    Alias::new("CORS_ORIGIN", &["edge", "cors_origin"]),
    Alias::new("JWT_SECRET", &["auth", "secret"]),
    Alias::new("NATS_URL", &["nats", "url"]),
    Alias::new("MQTT_URL", &["publisher", "mqtt", "*", "url"]),
];

/// Keeps the address of the file and changes its port.
fn with_port(current: Option<&str>, port: &str) -> Result<String, String> {
    let parsed: u16 = port
        .trim()
        .parse()
        .map_err(|_| format!("expected a port from 0 to 65535, got {port:?}"))?;
    let mut address = match current {
        Some(text) => text
            .parse()
            .map_err(|_| format!("expected an address such as \"127.0.0.1:7000\", got {text:?}"))?,
        None => carillon_edge::Config::default().listen,
    };
    SocketAddr::set_port(&mut address, parsed);
    Ok(address.to_string())
}
