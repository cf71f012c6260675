//! The key under which the cluster's tickets are issued.

use std::time::Duration;

use carillon_bus::{Bucket, Bus, TableError};
use tokio::time::Instant;

/// Its name in the bucket CLUSTER.
const KEY: &str = "session.key";
/// How long the edge waits at its start for the bucket.
const START: Duration = Duration::from_secs(60);
/// Pause before a bucket that takes nothing is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads the key, made by whichever edge is first.
pub(crate) async fn read(bus: &Bus) -> Result<Vec<u8>, TableError> {
    let table = bus.table(Bucket::Cluster);
    let deadline = Instant::now() + START;
    loop {
        if let Some(entry) = table.get_within(KEY, START).await? {
            return Ok(entry.value.to_vec());
        }
        let random: [u8; 32] = rand::random();
        match table.create(KEY, random.to_vec().into(), None).await {
            // Without an answer the next read tells.
            Ok(_) | Err(TableError::Conflict | TableError::Away) => {}
            // A bucket that is new in a cluster is not known to each of its servers yet.
            Err(TableError::Store(error)) if error.is_transient() && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_protocol::headers::Headers;
    use carillon_service::settings::Nats;
    use carillon_testkit::nats::Server;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_bucket_that_takes_nothing_yet_is_waited_for() {
        let server = Server::start().await;
        let settings = Nats {
            url: server.url(),
            ..Nats::default()
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        let configure = async |call: &str, subject: &str| {
            let stream = json!({
                "name": "KV_RT_CLUSTER", "subjects": [subject], "storage": "memory", "allow_direct": true,
                "max_msgs_per_subject": 1,
            });
            let subject = format!("$JS.API.STREAM.{call}.KV_RT_CLUSTER");
            let answer = bus
                .request(&subject, &Headers::new(), stream.to_string().into(), START)
                .await;
            let answer: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
            assert_eq!(answer["error"], Value::Null);
        };
        configure("CREATE", "elsewhere").await;
        let key = read(&bus);
        tokio::pin!(key);
        let early = tokio::time::timeout(2 * PAUSE, &mut key).await;
        assert!(early.is_err(), "{early:?}");
        configure("UPDATE", "$KV.RT_CLUSTER.>").await;
        let key = key.await.unwrap();
        assert_eq!((key.len(), read(&bus).await), (32, Ok(key.clone())));
    }
}
