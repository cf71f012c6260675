//! The streams and buckets of the cluster: made at the start, grown when the configuration grows, and never
//! changed in a way that loses data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType, Stream, SubjectTransform,
};
use carillon_protocol::names::Namespace;
use carillon_service::settings::{History, Storage};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use crate::connection::Bus;
use crate::table::Bucket;

/// How long a bucket tells that a key is gone.
const MARKER_TTL: Duration = Duration::from_secs(60);

/// What the configuration asks of the streams.
#[derive(Debug, Clone)]
pub struct Layout {
    pub history: History,
    /// Each namespace with the name of its stream.
    pub namespaces: Vec<(Namespace, String)>,
    /// Partitions of INGEST.
    pub partitions: u32,
}

/// The names of the streams.
#[derive(Debug, Clone)]
pub struct Streams {
    pub ingest: String,
    pub dead: String,
    pub offline: String,
    pub lifecycle: String,
    pub events: BTreeMap<Namespace, EventsStream>,
    pub partitions: u32,
}

/// The stream that holds the events of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsStream {
    pub name: String,
    /// Changes when the stream is made anew, so that old offsets are known as such.
    pub epoch: u32,
}

/// Why the streams are not as the configuration asks.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("stream {stream}: {text}")]
    Server { stream: String, text: String },
    #[error(
        "stream {stream} has {field} {found}, the configuration asks for {wanted}: that would lose data, so change \
         the stream or the configuration by hand"
    )]
    Disagrees {
        stream: String,
        field: &'static str,
        found: String,
        wanted: String,
    },
}

impl Streams {
    /// Returns the stream of a namespace.
    pub fn of(&self, namespace: &Namespace) -> Option<&EventsStream> {
        self.events.get(namespace)
    }
}

/// Makes what is missing and grows what has grown.
pub async fn ensure(bus: &Bus, layout: &Layout) -> Result<Streams, EnsureError> {
    let names = Names { bus, layout };
    let ingest = names.ingest();
    let dead = names.log("DEAD", "dead", Duration::from_secs(30 * 24 * 3600));
    let offline = names.log("OFFLINE", "offline", Duration::from_secs(7 * 24 * 3600));
    let lifecycle = names.lifecycle();
    for config in [&ingest, &dead, &offline, &lifecycle] {
        ensure_stream(bus, config).await?;
    }
    for bucket in Bucket::ALL {
        ensure_stream(bus, &names.bucket(bucket)).await?;
    }
    let mut shared: BTreeMap<&str, Vec<&Namespace>> = BTreeMap::new();
    for (namespace, stream) in &layout.namespaces {
        shared.entry(stream).or_default().push(namespace);
    }
    let mut events = BTreeMap::new();
    for (stream, namespaces) in shared {
        let config = names.events(stream, &namespaces);
        let info = ensure_stream(bus, &config).await?;
        let epoch = epoch(&config.name, &info);
        for namespace in namespaces {
            events.insert(
                namespace.clone(),
                EventsStream {
                    name: config.name.clone(),
                    epoch,
                },
            );
        }
    }
    Ok(Streams {
        ingest: ingest.name,
        dead: dead.name,
        offline: offline.name,
        lifecycle: lifecycle.name,
        events,
        partitions: layout.partitions,
    })
}

/// The 32 bits by which a stream is told from one of the same name made later.
fn epoch(name: &str, info: &Info) -> u32 {
    let text = format!("{name} {}", info.created.unix_timestamp_nanos());
    let hash = Sha256::digest(text.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

struct Names<'a> {
    bus: &'a Bus,
    layout: &'a Layout,
}

impl Names<'_> {
    fn name(&self, name: &str) -> String {
        stream_name(self.bus.subjects().prefix(), name)
    }

    fn all(&self, kind: &str) -> String {
        self.bus.subjects().all(kind)
    }

    fn base(&self, name: &str) -> Config {
        let storage = match self.layout.history.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        };
        Config {
            name: self.name(name),
            num_replicas: self.bus.inner.settings.replicas,
            storage,
            allow_direct: true,
            allow_message_ttl: true,
            max_message_size: -1,
            ..Config::default()
        }
    }

    fn ingest(&self) -> Config {
        let prefix = self.bus.subjects().prefix();
        Config {
            subjects: vec![self.all("pub"), self.all("ingest")],
            retention: RetentionPolicy::WorkQueue,
            // No longer than EVENTS: what is known here is looked for there.
            duplicate_window: self.layout.history.memory(),
            allow_message_schedules: true,
            subject_transform: Some(SubjectTransform {
                source: format!("{prefix}.pub.*.*"),
                destination: format!(
                    "{prefix}.ingest.{{{{partition({},1)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}",
                    self.layout.partitions
                ),
            }),
            ..self.base("INGEST")
        }
    }

    fn events(&self, stream: &str, namespaces: &[&Namespace]) -> Config {
        let history = &self.layout.history;
        let prefix = self.bus.subjects().prefix();
        let name = match stream {
            "events" => "EVENTS".to_owned(),
            other => format!("EVENTS_{}", other.to_uppercase()),
        };
        let subject = |namespace: &&Namespace| format!("{prefix}.event.{}.*.*", namespace.token());
        Config {
            subjects: namespaces.iter().map(subject).collect(),
            max_age: history.max_age,
            max_bytes: if history.max_bytes == 0 {
                -1
            } else {
                i64::try_from(history.max_bytes).unwrap_or(i64::MAX)
            },
            max_messages_per_subject: i64::try_from(history.max_per_room).unwrap_or(i64::MAX),
            discard: DiscardPolicy::Old,
            duplicate_window: history.memory(),
            allow_atomic_publish: true,
            allow_rollup: true,
            republish: Some(Republish {
                source: self.all("event"),
                destination: self.all("out"),
                headers_only: false,
            }),
            ..self.base(&name)
        }
    }

    fn log(&self, name: &str, kind: &str, max_age: Duration) -> Config {
        Config {
            subjects: vec![self.all(kind)],
            max_age,
            ..self.base(name)
        }
    }

    fn lifecycle(&self) -> Config {
        Config {
            duplicate_window: self.layout.history.dedupe,
            republish: Some(Republish {
                source: self.all("lifecycle"),
                destination: self.all("up"),
                headers_only: false,
            }),
            ..self.log("LIFECYCLE", "lifecycle", Duration::from_secs(24 * 3600))
        }
    }

    fn bucket(&self, bucket: Bucket) -> Config {
        let name = bucket.name(self.bus);
        Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            deny_delete: true,
            allow_rollup: true,
            subject_delete_marker_ttl: Some(MARKER_TTL),
            ..self.base("")
        }
    }
}

/// Returns the name of a stream or bucket below a prefix.
pub(crate) fn stream_name(prefix: &str, name: &str) -> String {
    let prefix: String = prefix
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("{prefix}_{name}")
}

async fn ensure_stream(bus: &Bus, wanted: &Config) -> Result<Info, EnsureError> {
    let server = |text: String| EnsureError::Server {
        stream: wanted.name.clone(),
        text,
    };
    for _ in 0..20 {
        match bus.inner.jetstream.get_stream(&wanted.name).await {
            Ok(stream) => {
                let info = stream.cached_info().clone();
                let Some(grown) = grow(&info.config, wanted)? else {
                    return Ok(info);
                };
                let (found, asked) = (partitions(&info.config), partitions(wanted));
                if found != asked && events_wait(bus, &stream).await.map_err(server)? {
                    return Err(EnsureError::Disagrees {
                        stream: wanted.name.clone(),
                        field: "publisher.partitions",
                        found: format!("{} for events that wait", found.unwrap_or_default()),
                        wanted: asked.unwrap_or_default(),
                    });
                }
                return bus
                    .inner
                    .jetstream
                    .update_stream(&grown)
                    .await
                    .map_err(|error| server(error.to_string()));
            }
            Err(error) if is_missing(&error) => {}
            // A cluster that elects its meta leader answers nothing for a while.
            Err(error) if is_passing(&error.to_string()) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            Err(error) => return Err(server(error.to_string())),
        }
        match bus.inner.jetstream.create_stream(wanted).await {
            Ok(stream) => return Ok(stream.cached_info().clone()),
            // Another service made it in the meantime, or the cluster is not settled yet.
            Err(error) if is_raced(&error) || is_passing(&error.to_string()) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(server(error.to_string())),
        }
    }
    Err(server("the server did not make the stream in time".to_owned()))
}

/// Returns by how many partitions a stream spreads namespaces.
fn partitions(config: &Config) -> Option<String> {
    let destination = &config.subject_transform.as_ref()?.destination;
    let (_, rest) = destination.split_once("partition(")?;
    Some(rest.split_once(',')?.0.to_owned())
}

/// Returns whether INGEST has events in a partition. With other partitions nobody may read them, or who reads them does
/// so beside the owner of what comes after them. Events for later are in none before their time.
async fn events_wait(bus: &Bus, stream: &Stream<Info>) -> Result<bool, String> {
    let subjects = format!("{}.ingest.*.*.*", bus.subjects().prefix());
    let info = stream.info_with_subjects(subjects).await;
    let mut waiting = info.map_err(|error| error.to_string())?;
    match waiting.next().await {
        Some(Ok(_)) => Ok(true),
        Some(Err(error)) => Err(error.to_string()),
        None => Ok(false),
    }
}

fn is_missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(api) if api.error_code().0 == 10059)
}

fn is_raced(error: &async_nats::jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(api) if api.error_code().0 == 10058)
}

fn is_passing(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "timed out",
        "timeout",
        "temporarily unavailable",
        "no suitable peers",
        "no responders",
        "insufficient resources",
    ]
    .iter()
    .any(|passing| text.contains(passing))
}

/// Returns the configuration to update to, or `None` where nothing is to do.
fn grow(found: &Config, wanted: &Config) -> Result<Option<Config>, EnsureError> {
    let disagrees = |field, found: String, wanted_value: String| {
        Err(EnsureError::Disagrees {
            stream: wanted.name.clone(),
            field,
            found,
            wanted: wanted_value,
        })
    };
    if found.storage != wanted.storage {
        return disagrees(
            "storage",
            format!("{:?}", found.storage),
            format!("{:?}", wanted.storage),
        );
    }
    if found.retention != wanted.retention {
        return disagrees(
            "retention",
            format!("{:?}", found.retention),
            format!("{:?}", wanted.retention),
        );
    }
    let unlimited = |limit: i64| if limit <= 0 { i64::MAX } else { limit };
    let limits = [
        (
            "max_bytes",
            unlimited(found.max_bytes),
            unlimited(wanted.max_bytes),
        ),
        (
            "max_per_room",
            unlimited(found.max_messages_per_subject),
            unlimited(wanted.max_messages_per_subject),
        ),
    ];
    for (field, found, wanted) in limits {
        if wanted < found {
            return disagrees(field, found.to_string(), wanted.to_string());
        }
    }
    let age = |age: Duration| if age.is_zero() { Duration::MAX } else { age };
    if age(wanted.max_age) < age(found.max_age) {
        return disagrees(
            "max_age",
            format!("{:?}", found.max_age),
            format!("{:?}", wanted.max_age),
        );
    }
    let subjects: BTreeSet<String> = found.subjects.iter().chain(&wanted.subjects).cloned().collect();
    let known: BTreeSet<String> = found.subjects.iter().cloned().collect();
    let same = subjects == known
        && found.max_age == wanted.max_age
        && unlimited(found.max_bytes) == unlimited(wanted.max_bytes)
        && unlimited(found.max_messages_per_subject) == unlimited(wanted.max_messages_per_subject)
        && found.num_replicas == wanted.num_replicas
        && found.duplicate_window == effective_window(wanted)
        && found.allow_atomic_publish == wanted.allow_atomic_publish
        && found.allow_message_ttl == wanted.allow_message_ttl
        && found
            .subject_transform
            .as_ref()
            .map(|transform| &transform.destination)
            == wanted
                .subject_transform
                .as_ref()
                .map(|transform| &transform.destination);
    if same {
        return Ok(None);
    }
    Ok(Some(Config {
        subjects: subjects.into_iter().collect(),
        ..wanted.clone()
    }))
}

/// The server sets a window of two minutes (or the age, if that is less) where none is asked for.
fn effective_window(wanted: &Config) -> Duration {
    if !wanted.duplicate_window.is_zero() {
        return wanted.duplicate_window;
    }
    let default = Duration::from_secs(120);
    if wanted.max_age.is_zero() {
        default
    } else {
        default.min(wanted.max_age)
    }
}

#[cfg(test)]
mod tests;
