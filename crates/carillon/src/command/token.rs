//! `carillon token`: a token for development.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use carillon_auth::{MintError, TokenRequest};
use carillon_service::config::duration;
use serde_json::Value;

use crate::cli::File;
use crate::{config, shell};

/// Bytes of a user's id that a token may have.
const MAX_USER: usize = 200;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The user's id
    #[arg(long, value_name = "ID", value_parser = user)]
    user: String,
    /// The user's role
    #[arg(long)]
    role: Option<String>,
    /// A further claim, its value as JSON or plain text; may be repeated
    #[arg(long = "claim", value_name = "K=JSON", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Time until the token expires, such as 30s or 2h; without it it never does
    #[arg(long, value_parser = ttl)]
    ttl: Option<Duration>,
    /// The secret to sign with, instead of the settings'; that of `carillon dev` is dev-secret
    #[arg(long)]
    secret: Option<String>,
    #[command(flatten)]
    file: File,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut auth = config::read(args.file.config.as_deref())?.value.auth;
    if let Some(secret) = args.secret {
        auth.secret = Some(secret.into());
    }
    let request = TokenRequest {
        user: args.user,
        role: args.role,
        claims: args.claims.into_iter().collect(),
        ttl: args.ttl,
    };
    let token = match carillon_auth::mint(&auth, &request, now()) {
        Err(MintError::NoSecret) => anyhow::bail!(
            "no secret is configured to sign with: give --secret (that of `carillon dev` is dev-secret), or set \
             auth.secret or JWT_SECRET"
        ),
        token => token.context("cannot make a token")?,
    };
    shell::say(&token)?;
    Ok(())
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_USER {
        return Err(format!("a user's id has 1 to {MAX_USER} bytes"));
    }
    Ok(text.to_owned())
}

/// Text that does not begin as JSON does may stand without quotes.
fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("expected a name before =".to_owned());
    }
    let value = match serde_json::from_str(value) {
        Ok(value) => value,
        Err(error) if value.starts_with(['{', '[', '"']) => return Err(format!("not JSON: {error}")),
        Err(_) => Value::String(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

fn ttl(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a duration such as 30s or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_json_or_plain_text() {
        for (text, value) in [
            ("x=1", json!(1)),
            ("x=[\"a\"]", json!(["a"])),
            ("x=true", json!(true)),
            ("x=Ana María", json!("Ana María")),
            ("x=a=b", json!("a=b")),
            ("x=", json!("")),
        ] {
            assert_eq!(claim(text), Ok(("x".to_owned(), value)), "{text}");
        }
        for text in ["x", "=1", "x=[1", "x={a}", "x=\"a"] {
            assert!(claim(text).is_err(), "{text}");
        }
    }
}
