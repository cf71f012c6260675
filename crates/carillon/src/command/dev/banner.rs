//! What `dev` prints: where everything is, and how to try it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use carillon_auth::TokenRequest;
use carillon_service::readiness::Readiness;
use carillon_service::settings::Nats;

use super::Args;
use super::nats::Server;
use super::plan::{API_KEY, Plan, SECRET};
use crate::command::token;
use crate::service::{Bound, Kind};
use crate::shell;

/// The user of the token that is printed.
const USER: &str = "42";

/// A service and where it is.
pub(super) struct Service {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) readiness: Readiness,
}

impl Service {
    pub(super) fn new(bound: &Bound) -> Self {
        Self {
            kind: bound.kind,
            address: bound.address,
            admin: bound.admin,
            readiness: bound.readiness.clone(),
        }
    }
}

/// Prints the addresses, that everything is ready, a token, and commands to try.
pub(super) fn print(
    plan: &Plan,
    args: &Args,
    services: &[Service],
    nats: &Nats,
    server: Option<&Server>,
) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut shown: Vec<&Service> = services.iter().collect();
    shown.sort_by_key(|service| match service.kind {
        Kind::Edge => 0,
        Kind::Publisher => 1,
        Kind::Router => 2,
    });
    let scheme = match plan.config.edge.tls {
        Some(_) => "https",
        None => "http",
    };
    for service in &shown {
        let scheme = match service.kind {
            Kind::Edge => scheme,
            Kind::Router | Kind::Publisher => "http",
        };
        let Service {
            kind, address, admin, ..
        } = service;
        let url = format!("{scheme}://{address}");
        let _ = writeln!(
            text,
            "{:<10} {url:<28} health and metrics http://{admin}",
            kind.name()
        );
    }
    let about = server.map_or_else(|| "not started by dev".to_owned(), Server::description);
    let _ = writeln!(text, "{:<10} {:<28} {about}", "nats", nats.url);
    let edge = shown.iter().find(|service| service.kind == Kind::Edge);
    let publisher = shown.iter().find(|service| service.kind == Kind::Publisher);
    let (Some(edge), Some(publisher)) = (edge, publisher) else {
        anyhow::bail!("a cluster has an edge and a publisher");
    };
    if plan.config.edge.demo {
        let _ = writeln!(text, "{:<10} {scheme}://{}/demo", "demo page", edge.address);
    }
    text.push_str("\ncarillon dev: ready\n");
    text.push_str(&commands(
        plan,
        args,
        &format!("{scheme}://{}", edge.address),
        publisher.address,
        nats,
    ));
    // The cluster is there, whether somebody reads this or not.
    if let Err(error) = shell::say(&text) {
        tracing::warn!(%error, "the addresses cannot be printed");
    }
    Ok(())
}

fn commands(plan: &Plan, args: &Args, edge: &str, publisher: SocketAddr, nats: &Nats) -> String {
    let mut text = String::new();
    let program = std::env::args().next().unwrap_or_else(|| "carillon".to_owned());
    let mut options = String::new();
    if let Some(file) = &args.file.config {
        let _ = write!(options, " --config {}", file.display());
    }
    let token_options = match plan.is_default_secret {
        true => format!("{options} --secret {SECRET}"),
        false => options.clone(),
    };
    if nats.url != Nats::default().url {
        let _ = write!(options, " --nats {}", nats.url);
    }
    let request = TokenRequest {
        user: USER.to_owned(),
        ..TokenRequest::default()
    };
    let token = match carillon_auth::mint(&plan.config.auth, &request, token::now()) {
        Ok(token) => {
            let _ = writeln!(text, "\na token for the user {USER}:\n  {token}");
            let _ = writeln!(
                text,
                "\nmore tokens:\n  {program} token{token_options} --user 43 --role admin"
            );
            token
        }
        Err(error) => {
            let _ = writeln!(text, "\nno token: {error}");
            "TOKEN".to_owned()
        }
    };
    let namespaces = &plan.config.namespaces;
    let main = namespaces.contains_key("/");
    let namespace = namespaces.keys().next().filter(|_| !main);
    text.push_str("\nto try it, each in a shell of its own:\n");
    match namespace {
        None => {
            let _ = writeln!(text, "  curl -N '{edge}/sse?token={token}'");
        }
        Some(name) => {
            let _ = writeln!(
                text,
                "  node -e \"require('socket.io-client').io('{edge}{name}', {{auth: {{token: '{token}'}}}}).onAny(console.log)\""
            );
            let _ = write!(options, " --namespace {name}");
        }
    }
    let _ = writeln!(
        text,
        "  {program} publish{options} user:{USER} notification:new '{{\"text\":\"from the shell\"}}'"
    );
    let key = match plan.config.auth.api_keys.first().and_then(|key| key.key.as_ref()) {
        Some(key) if key.expose() == API_KEY => API_KEY,
        _ => "API_KEY",
    };
    let place = namespace.map_or_else(String::new, |name| format!("\"namespace\":\"{name}\","));
    let _ = write!(
        text,
        "  curl -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n    -d \
         '{{{place}\"rooms\":[\"user:{USER}\"],\"event\":\"notification:new\",\"data\":{{\"text\":\"from HTTP\"}}}}' \
         http://{publisher}/v1/events"
    );
    text
}
