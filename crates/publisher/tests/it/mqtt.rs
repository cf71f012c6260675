use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use carillon_publisher::Mqtt;
use carillon_testkit::{net, optional, wait};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::stage::{LIMIT, Options, Stage, data, header};

/// A real broker on a port of its own.
struct Broker {
    binary: PathBuf,
    folder: PathBuf,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    async fn start() -> Option<Self> {
        let binary = optional::mosquitto()?;
        let addr = net::free_addr();
        let folder =
            std::env::temp_dir().join(format!("carillon-mqtt-{}-{}", std::process::id(), addr.port()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n",
            addr.port(),
            folder.display()
        );
        std::fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self {
            binary,
            folder,
            addr,
            child: None,
        };
        broker.launch().await;
        Some(broker)
    }

    async fn launch(&mut self) {
        let config: &Path = &self.folder.join("mosquitto.conf");
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(config)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
        wait::until("the broker", LIMIT, async || {
            tokio::net::TcpStream::connect(self.addr).await.ok()
        })
        .await;
    }

    async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGTERM, so that it writes its sessions down.
            let pid = child.id().unwrap().to_string();
            Command::new("kill").arg(pid).status().await.unwrap();
            child.wait().await.unwrap();
        }
    }

    /// Starts it anew without anything that it knew.
    async fn forget(&mut self) {
        self.stop().await;
        let _ = std::fs::remove_file(self.folder.join("mosquitto.db"));
        self.launch().await;
    }

    /// Publishes messages and waits until the broker has them.
    async fn publish(&self, messages: &[(&str, &[u8])]) {
        let name = format!("device-{}", fastrand::u64(..));
        let mut options = MqttOptions::new(name, self.addr.ip().to_string(), self.addr.port());
        options.set_max_packet_size(1 << 26, 1 << 26);
        let (client, mut events) = AsyncClient::new(options, messages.len() + 1);
        for (topic, payload) in messages {
            client
                .publish(*topic, QoS::AtLeastOnce, false, payload.to_vec())
                .await
                .unwrap();
        }
        let mut confirmed = 0;
        while confirmed < messages.len() {
            let event = tokio::time::timeout(LIMIT, events.poll()).await.unwrap().unwrap();
            confirmed += usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn stage(broker: &Broker) -> Stage {
    let url = format!("mqtt://{}", broker.addr);
    let sources = json!([
        { "url": url, "topic": "sensores/+/temperatura", "room": "temperature", "event": "temperature" },
        { "url": url, "topic": "raw/#", "room": "raw:{1}", "event": "{topic}" },
        { "url": url, "topic": "live/+", "room": "live", "event": "live", "ephemeral": true },
    ]);
    let mut options = Options::default();
    options.config.mqtt = serde_json::from_value::<Vec<Mqtt>>(sources).unwrap();
    Stage::with(options).await
}

/// Waits until a publisher reads from the broker.
async fn subscribed(stage: &Stage, broker: &Broker) {
    let mut deliveries = stage.bus.subscribe("rt.out.main.>", None).await.unwrap();
    let mut heard = std::collections::BTreeSet::new();
    wait::until_true("subscriptions at the broker", LIMIT, async || {
        broker
            .publish(&[
                ("raw/probe", b"0"),
                ("live/probe", b"0"),
                ("sensores/0/temperatura", b"0"),
            ])
            .await;
        while let Ok(Some(delivery)) =
            tokio::time::timeout(Duration::from_millis(200), deliveries.next()).await
        {
            heard.insert(delivery.subject);
        }
        heard.len() == 3
    })
    .await;
}

#[tokio::test]
async fn messages_become_events_signals_and_dead_letters() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let stage = stage(&broker).await;
    let publisher = stage.publisher().await;
    subscribed(&stage, &broker).await;
    let mut signals = stage.bus.subscribe("rt.out.main.r.live", None).await.unwrap();
    stage.bus.flush().await;
    broker
        .publish(&[
            ("raw/a/b", br#" {"t": 21.50} "#),
            ("raw/a/b", b"warm"),
            ("raw/a/b", b"\xff\xfe"),
            ("raw/a/b", b"22"),
            ("live/1", b"[1]"),
        ])
        .await;
    let stored = stage.room("raw:a/b", 3).await;
    assert_eq!(data(&stored), [r#"{"t": 21.50}"#, "\"warm\"", "22"]);
    assert_eq!(header(&stored[0], "Carillon-Event"), "raw/a/b");
    let letter = stage.dead("rt.dead.main.raw:a/b").await;
    assert_eq!(letter.body.as_ref(), b"\xff\xfe");
    assert!(header(&letter, "Carillon-Reason").starts_with("not_utf8: "));
    assert_eq!(header(&letter, "Carillon-Topic"), "raw/a/b");
    let signal = tokio::time::timeout(LIMIT, signals.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(signal.body.as_ref(), b"[1]");
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_publishers_source_is_taken_over_without_loss() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let stage = stage(&broker).await;
    let first = stage.publisher().await;
    subscribed(&stage, &broker).await;
    let before = stage.room("temperature", 1).await.len();
    let numbers = |range: std::ops::Range<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    let send = async |numbers: Vec<String>| {
        let messages: Vec<(&str, &[u8])> = numbers
            .iter()
            .map(|number| ("sensores/7/temperatura", number.as_bytes()))
            .collect();
        broker.publish(&messages).await;
    };
    send(numbers(0..100)).await;
    first.kill();
    send(numbers(100..200)).await;
    let second = stage.publisher().await;
    send(numbers(200..300)).await;
    let stored = wait::until("the last message", LIMIT, async || {
        let stored = data(&stage.room("temperature", before).await).split_off(before);
        stored.contains(&"299".to_owned()).then_some(stored)
    })
    .await;
    // What was stored and not yet acknowledged at the death came again.
    assert_eq!(stored, numbers(0..300));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_handed_over_without_loss_or_repetition() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let url = format!("mqtt://{}", broker.addr);
    let sources = json!([
        { "url": url, "topic": "one/+", "room": "one", "event": "e" },
        { "url": url, "topic": "two/+", "room": "two", "event": "e", "qos": 2 },
    ]);
    let mut options = Options::default();
    options.config.mqtt = serde_json::from_value::<Vec<Mqtt>>(sources).unwrap();
    let stage = Stage::with(options).await;
    let mut publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.main.r.one", None).await.unwrap();
    wait::until_true("subscriptions at the broker", LIMIT, async || {
        broker.publish(&[("one/x", b"0"), ("two/x", b"0")]).await;
        !stage.room("one", 0).await.is_empty() && !stage.room("two", 0).await.is_empty()
    })
    .await;
    let mut expected = 1;
    for _ in 0..3 {
        let numbers: Vec<String> = (expected..expected + 300)
            .map(|number| number.to_string())
            .collect();
        expected += 300;
        let messages: Vec<(&str, &[u8])> = numbers
            .iter()
            .flat_map(|number| [("one/x", number.as_bytes()), ("two/x", number.as_bytes())])
            .collect();
        let first = (expected - 300).to_string();
        let stop = async {
            // In the middle of them.
            while deliveries.next().await.unwrap().body != first {}
            publisher.stop().await;
            stage.publisher().await
        };
        ((), publisher) = tokio::join!(broker.publish(&messages), stop);
        let last = (expected - 1).to_string();
        for room in ["one", "two"] {
            wait::until_true(format!("the last message in {room}"), LIMIT, async || {
                data(&stage.room(room, 0).await).contains(&last)
            })
            .await;
        }
    }
    let numbers: Vec<String> = (1..expected).map(|number| number.to_string()).collect();
    for room in ["one", "two"] {
        let mut stored = data(&stage.room(room, 0).await);
        stored.retain(|number| number != "0");
        assert_eq!(stored, numbers, "{room}");
    }
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_look_alike_are_all_stored() {
    let Some(mut broker) = Broker::start().await else {
        return;
    };
    let stage = stage(&broker).await;
    let publisher = stage.publisher().await;
    let messages = [("sensores/7/temperatura", &b"21.5"[..]); 40];
    for round in 1..=2 {
        subscribed(&stage, &broker).await;
        broker.publish(&messages).await;
        let same = wait::until("all of them", LIMIT, async || {
            let mut stored = data(&stage.room("temperature", 0).await);
            stored.retain(|data| data == "21.5");
            (stored.len() >= round * messages.len()).then_some(stored.len())
        });
        assert_eq!(same.await, round * messages.len());
        // A broker that begins anew counts its packets from 1 again.
        broker.forget().await;
    }
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_very_large_message_becomes_a_dead_letter_and_blocks_nothing() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let stage = stage(&broker).await;
    let publisher = stage.publisher().await;
    subscribed(&stage, &broker).await;
    let large = vec![b'x'; 17 << 20];
    broker
        .publish(&[("raw/large", &large), ("raw/large", b"1")])
        .await;
    assert_eq!(data(&stage.room("raw:large", 1).await), ["1"]);
    let letter = stage.dead("rt.dead.main.raw:large").await;
    assert!(header(&letter, "Carillon-Reason").starts_with("too_large: "));
    assert_eq!(header(&letter, "Carillon-Size"), large.len().to_string());
    assert_eq!(letter.body.len(), 64 * 1024);
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_is_read_again() {
    let Some(mut broker) = Broker::start().await else {
        return;
    };
    let stage = stage(&broker).await;
    let publisher = stage.publisher().await;
    subscribed(&stage, &broker).await;
    broker.stop().await;
    broker.launch().await;
    subscribed(&stage, &broker).await;
    let before = stage.room("temperature", 1).await.len();
    broker.publish(&[("sensores/7/temperatura", b"99")]).await;
    assert_eq!(
        data(&stage.room("temperature", before + 1).await).last().unwrap(),
        "99"
    );
    publisher.stop().await;
}
