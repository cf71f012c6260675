//! Addresses that one service cannot have twice.

use std::net::SocketAddr;

use super::Report;
use crate::config::Config;

/// What is added to the port of a service for its health and metrics.
const ADMIN_OFFSET: u16 = 1000;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    for (service, listen, admin) in [
        ("edge", config.edge.listen, config.edge.admin),
        ("router", config.router.listen, config.router.admin),
        ("publisher", config.publisher.listen, config.publisher.admin),
    ] {
        match admin {
            Some(admin) if collide(listen, admin) => {
                report.add(
                    &[service, "admin"],
                    format!("expected another address than {service}.listen, got {admin}"),
                );
            }
            None if listen.port().checked_add(ADMIN_OFFSET).is_none() => {
                report.add(
                    &[service, "listen"],
                    format!(
                        "expected a port of at most {}, or {service}.admin, which is the port plus {ADMIN_OFFSET} \
                         by default, got {listen}",
                        u16::MAX - ADMIN_OFFSET
                    ),
                );
            }
            _ => {}
        }
    }
}

/// Port 0 is any that is free.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    same_host && one.port() == other.port() && one.port() != 0
}
