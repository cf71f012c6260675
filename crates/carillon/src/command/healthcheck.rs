//! `carillon healthcheck`: asks a service for its health, since its container has nothing else to ask with.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(2);
/// The status line is at the begin.
const MOST_READ: u64 = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to ask for, such as http://127.0.0.1:8000/readyz
    url: String,
}

/// Fails unless the answer is 200.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let status = tokio::time::timeout(TIMEOUT, status(&args.url));
    let status = status.await.context("no answer within 2s")??;
    anyhow::ensure!(status == "200", "the answer is {status}");
    Ok(())
}

async fn status(url: &str) -> anyhow::Result<String> {
    let rest = url
        .strip_prefix("http://")
        .context("expected an address such as http://127.0.0.1:8000/readyz")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)
        .await
        .with_context(|| format!("cannot connect to {host}"))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_READ).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    Ok(status.context("the answer is no HTTP")?.to_owned())
}
