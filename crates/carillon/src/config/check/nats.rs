//! Where NATS is, and what is kept there.

use super::Report;
use crate::config::Config;

const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    let nats = &config.nats;
    if !nats.url.split(',').all(|url| is_server(url.trim())) {
        // The text is not shown: it may hold a password.
        report.add(
            &["nats", "url"],
            "expected server URLs such as \"nats://127.0.0.1:4222\", separated by commas",
        );
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if nats.prefix.is_empty() || !nats.prefix.bytes().all(is_token) {
        let problem = format!("expected letters, digits, - and _, got {:?}", nats.prefix);
        report.add(&["nats", "prefix"], problem);
    }
    if ![1, 3, 5].contains(&nats.replicas) {
        report.add(
            &["nats", "replicas"],
            format!("expected 1, 3 or 5, got {}", nats.replicas),
        );
    }
    if nats.credentials.is_some() && nats.nkey.is_some() {
        report.add(&["nats", "nkey"], "expected either this or nats.credentials");
    }
    match (&nats.tls.certificate, &nats.tls.key) {
        (Some(_), None) => report.add(&["nats", "tls", "certificate"], "expected nats.tls.key beside it"),
        (None, Some(_)) => report.add(&["nats", "tls", "key"], "expected nats.tls.certificate beside it"),
        _ => {}
    }
}

fn is_server(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split('/').next().unwrap_or_default();
    let port_is_right = match host.rsplit_once(':') {
        Some((_, port)) if !host.ends_with(']') => port.parse::<u16>().is_ok(),
        _ => true,
    };
    SCHEMES.contains(&scheme)
        && !host.is_empty()
        && !host.starts_with(':')
        && port_is_right
        && !host.contains(char::is_whitespace)
}
