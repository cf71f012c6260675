//! One partition of INGEST, read by the one publisher that owns it.

use crate::connection::Bus;
use crate::durable::{Delivered, Durable, DurableError, Memory, Start};

/// The work queue of a partition.
pub struct Ingest(Durable);

impl Ingest {
    /// Takes a partition over: the former owner's consumer goes, and a new one begins at the ack floor, so that
    /// what was not acknowledged comes again in order.
    pub async fn open(bus: &Bus, stream: &str, partition: u32, term: u64) -> Result<Self, DurableError> {
        let former = former_consumers(bus, stream, partition).await?;
        for name in former {
            Durable::delete(bus, stream, &name).await?;
        }
        let name = consumer_name(partition, term);
        Durable::open(
            bus,
            stream,
            &name,
            Self::filters(bus, partition),
            Start::All,
            Memory::Server,
        )
        .await
        .map(Self)
    }

    /// Returns the subjects of a partition.
    fn filters(bus: &Bus, partition: u32) -> Vec<String> {
        let mut filters = vec![bus.subjects().ingest(partition)];
        if partition == 0 {
            // What the partition function does not fit is kept as it came.
            filters.push(bus.subjects().all("pub"));
        }
        filters
    }

    /// Returns the next message.
    pub async fn next(&mut self) -> Result<Delivered, DurableError> {
        self.0.next().await
    }
}

fn consumer_name(partition: u32, term: u64) -> String {
    format!("publisher-{partition}-{term}-{:08x}", fastrand::u32(..))
}

async fn former_consumers(bus: &Bus, stream: &str, partition: u32) -> Result<Vec<String>, DurableError> {
    use futures_util::TryStreamExt;

    let server = |error: String| DurableError::Server(error);
    let stream = bus
        .inner
        .jetstream
        .get_stream(stream)
        .await
        .map_err(|error| server(error.to_string()))?;
    let names: Vec<String> = stream
        .consumer_names()
        .try_collect()
        .await
        .map_err(|error| server(error.to_string()))?;
    let prefix = format!("publisher-{partition}-");
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with(&prefix))
        .collect())
}
