//! `carillon dead`: refused bodies, and the way back for them.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use carillon_bus::{Bus, Limit, StoredMessage};
use carillon_protocol::headers::{Headers, name};
use serde_json::{Map, Value, json};

use crate::shell::{self, Cluster};

/// Letters read at once.
const PART: Limit = Limit {
    messages: 200,
    bytes: 8 << 20,
};
/// How long a publisher may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(2);
/// Present where only the beginning of a body was kept.
const SIZE: &str = "Carillon-Size";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists refused bodies, one JSON line each
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Shows one with its headers and its body
    Show {
        /// The number from the list
        sequence: u64,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Puts bodies back on the subjects they came on, and takes them off the list
    Replay {
        /// The numbers from the list; all without one
        #[arg(value_name = "SEQUENCE")]
        sequences: Vec<u64>,
        /// All, as without a number
        #[arg(long)]
        all: bool,
        /// Only those whose reason begins so, such as not_json
        #[arg(long, value_name = "CODE")]
        reason: Option<String>,
        #[command(flatten)]
        cluster: Cluster,
    },
}

/// Which letters are meant.
#[derive(Debug, Clone, Default, clap::Args)]
struct Filter {
    /// Only those whose reason begins so, such as not_json
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// At most so many, the oldest first
    #[arg(long, default_value_t = 1000, value_name = "N")]
    limit: usize,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let result = match args.action {
        Action::List { filter, cluster } => list(&cluster.connect().await?, &filter).await,
        Action::Show { sequence, cluster } => show(&cluster.connect().await?, sequence).await,
        Action::Replay {
            sequences,
            all: _,
            reason,
            cluster,
        } => replay(&cluster.connect().await?, &sequences, reason).await,
    };
    match result {
        Err(error) if shell::is_closed(&error) => Ok(()),
        result => result,
    }
}

async fn list(bus: &Bus, filter: &Filter) -> anyhow::Result<()> {
    for letter in Letters::open(bus).await?.find(filter).await? {
        shell::say_json(&json!({
            "sequence": letter.sequence,
            "time": time(&letter),
            "subject": letter.headers.get(name::SUBJECT),
            "reason": letter.headers.get(name::REASON),
            "size": letter.headers.number(SIZE).unwrap_or(letter.body.len() as u64),
        }))?;
    }
    Ok(())
}

async fn show(bus: &Bus, sequence: u64) -> anyhow::Result<()> {
    let letter = Letters::open(bus).await?.one(sequence).await?;
    let headers = own_headers(&letter);
    let headers: Map<String, Value> = headers
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    shell::say_json(&json!({
        "sequence": letter.sequence,
        "time": time(&letter),
        "headers": headers,
        "body": String::from_utf8_lossy(&letter.body),
    }))
}

async fn replay(bus: &Bus, sequences: &[u64], reason: Option<String>) -> anyhow::Result<()> {
    let letters = Letters::open(bus).await?;
    let mut chosen = Vec::new();
    if sequences.is_empty() {
        let filter = Filter {
            reason,
            limit: usize::MAX,
        };
        chosen = letters.find(&filter).await?;
    } else {
        for &sequence in sequences {
            let letter = letters.one(sequence).await?;
            chosen.extend(has_reason(&letter, reason.as_deref()).then_some(letter));
        }
    }
    let mut failed = 0;
    for letter in &chosen {
        match put_back(bus, letter).await {
            Ok(subject) => {
                bus.remove(&letters.stream, letter.sequence).await?;
                shell::say(&format!("{}: put back on {subject}", letter.sequence))?;
            }
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", letter.sequence);
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} were not put back", chosen.len());
    Ok(())
}

/// Publishes a body where it came from; the id names this return, so that it takes effect once.
async fn put_back(bus: &Bus, letter: &StoredMessage) -> anyhow::Result<String> {
    let subject = letter
        .headers
        .get(name::SUBJECT)
        .context("it has no subject to go back to")?;
    anyhow::ensure!(
        letter.headers.get(SIZE).is_none(),
        "only the beginning of its body was kept"
    );
    let added = [name::REASON, name::SUBJECT];
    let kept =
        own_headers(letter).filter(|(name, _)| !added.iter().any(|own| own.eq_ignore_ascii_case(name)));
    let mut headers = Headers::new();
    for (name, value) in kept {
        headers.push(name, value);
    }
    let subjects = bus.subjects();
    if subjects.tokens("signal", subject).is_some() {
        // No stream takes a signal: without a publisher it would be gone.
        let owner = format!("{}.lease.publisher.0", subjects.prefix());
        bus.request(&owner, &Headers::new(), Bytes::new(), PATIENCE)
            .await
            .context("no publisher takes the signal now; the letter is kept")?;
        bus.publish(subject, &headers, letter.body.clone()).await?;
        bus.flush().await;
    } else if subjects.tokens("pub", subject).is_some() {
        headers.push(name::MSG_ID, format!("dead-{}-{}", letter.time, letter.sequence));
        bus.store(subject, &headers, letter.body.clone()).await?;
    } else {
        anyhow::bail!("it did not come over NATS but from {subject:?}");
    }
    Ok(subject.to_owned())
}

/// The stream of dead letters.
struct Letters<'a> {
    bus: &'a Bus,
    stream: String,
    subjects: String,
}

impl<'a> Letters<'a> {
    async fn open(bus: &'a Bus) -> anyhow::Result<Self> {
        let subjects = bus.subjects().all("dead");
        let stream = bus.stream_of(&subjects).await?;
        Ok(Self {
            bus,
            stream: stream
                .context("there is no stream of dead letters: no carillon has run with this NATS yet")?,
            subjects,
        })
    }

    async fn find(&self, filter: &Filter) -> anyhow::Result<Vec<StoredMessage>> {
        let (mut found, mut reached) = (Vec::new(), 0);
        while reached < u64::MAX && found.len() < filter.limit {
            let read = self
                .bus
                .read(&self.stream, &self.subjects, reached, u64::MAX, PART);
            let page = read.await?;
            reached = page.reached;
            let letters = page.messages.into_iter();
            found.extend(letters.filter(|letter| has_reason(letter, filter.reason.as_deref())));
        }
        found.truncate(filter.limit);
        Ok(found)
    }

    async fn one(&self, sequence: u64) -> anyhow::Result<StoredMessage> {
        let before = sequence.checked_sub(1).context("numbers begin at 1")?;
        let read = self
            .bus
            .read(&self.stream, &self.subjects, before, sequence, PART);
        let letter = read.await?.messages.pop();
        letter.with_context(|| format!("there is no dead letter {sequence}"))
    }
}

fn has_reason(letter: &StoredMessage, reason: Option<&str>) -> bool {
    let found = letter.headers.get(name::REASON).unwrap_or_default();
    reason.is_none_or(|reason| found.starts_with(reason))
}

/// The headers that the letter was written with, without those of the server.
fn own_headers(letter: &StoredMessage) -> impl Iterator<Item = (&str, &str)> {
    let of_server = |name: &str| name.to_ascii_lowercase().starts_with("nats-");
    letter.headers.iter().filter(move |(name, _)| !of_server(name))
}

fn time(letter: &StoredMessage) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(letter.time)).to_string()
}
