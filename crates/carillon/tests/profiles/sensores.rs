//! sensores: measurements of devices, over plain WebSockets.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use carillon_testkit::clients::WsOptions;
use carillon_testkit::{nats, net, optional, wait};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Stage, profile, token};

/// A device's claims as its authors give them.
fn claims(email: &str, rol: &str) -> Value {
    json!({ "email": email, "rol": rol, "nombre": "Ana" })
}

/// A stage without a broker: nothing listens at its address.
async fn stage() -> Stage {
    let url = format!("mqtt://{}", net::free_addr());
    Stage::with("sensores", &[("MQTT_URL", &url)]).await
}

/// A real broker.
struct Broker {
    url: String,
    port: u16,
    _folder: tempfile::TempDir,
    _child: tokio::process::Child,
}

impl Broker {
    async fn start(binary: PathBuf) -> Self {
        let addr = net::free_addr();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\n",
            addr.port()
        );
        std::fs::write(&config, text).unwrap();
        let child = tokio::process::Command::new(binary)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        wait::until("the broker", LIMIT, async || {
            tokio::net::TcpStream::connect(addr).await.ok()
        })
        .await;
        Self {
            url: format!("mqtt://{addr}"),
            port: addr.port(),
            _folder: folder,
            _child: child,
        }
    }

    async fn publish(&self, topic: &str, payload: &str) {
        measure(self.port, topic, payload).await;
    }
}

/// Publishes as a device does, and waits for the acknowledgement.
async fn measure(port: u16, topic: &str, payload: &str) {
    let options = MqttOptions::new(format!("device-{}", net::free_port()), "127.0.0.1", port);
    let (client, mut events) = AsyncClient::new(options, 4);
    let payload = payload.as_bytes().to_vec();
    client
        .publish(topic, QoS::AtLeastOnce, false, payload)
        .await
        .unwrap();
    loop {
        let event = tokio::time::timeout(LIMIT, events.poll()).await.unwrap().unwrap();
        if matches!(event, Event::Incoming(Packet::PubAck(_))) {
            return;
        }
    }
}

#[tokio::test]
async fn what_a_broker_measures_comes_by_itself() {
    let Some(binary) = optional::mosquitto() else {
        return;
    };
    let broker = Broker::start(binary).await;
    let stage = Stage::with("sensores", &[("MQTT_URL", &broker.url)]).await;
    let (one, welcome) = stage.plain(0, claims("ana@x.example", "admin")).await;
    assert_eq!(welcome["userId"], "ana@x.example");
    let (two, _) = stage.plain(1, claims("ben@x.example", "user")).await;
    // The publisher may subscribe at the broker after this; a broker keeps nothing for who was not there yet.
    wait::until("the subscription at the broker", LIMIT, async || {
        broker.publish("sensores/d0/temperatura", "0").await;
        let heard = tokio::time::timeout(Duration::from_secs(1), one.next_event("temperature")).await;
        heard.ok()
    })
    .await;
    broker
        .publish("sensores/d1/temperatura", r#"{"valor":21.5,"unidad":"C"}"#)
        .await;
    broker.publish("sensores/d2/temperatura", "frío").await;
    for client in [&one, &two] {
        let heard = client
            .next_matching("a measurement", |message| message["payload"]["valor"] == 21.5)
            .await;
        assert_eq!(
            (&heard["topic"], &heard["event"]),
            (&json!("temperature"), &json!("temperature"))
        );
        assert!(heard["ts"].is_u64() && heard["offset"].is_string(), "{heard}");
        client
            .next_matching("a text", |message| message["payload"] == "frío")
            .await;
    }
}

#[tokio::test]
async fn devices_may_connect_to_nats_itself() {
    let port = net::free_port();
    let options = nats::Options {
        extra: format!("mqtt {{ listen: \"127.0.0.1:{port}\" }}\n"),
        ..nats::Options::default()
    };
    let server = nats::Server::start_with(options).await;
    let broker = format!("mqtt://{}", net::free_addr());
    let env = [("MQTT_URL", broker.as_str())];
    let stage = Stage::start(profile("sensores"), &env, Some(&server.url())).await;
    let (client, _) = stage.plain(1, claims("ana@x.example", "user")).await;
    let body = r#"{"event":"temperature","data":{"valor":22.5}}"#;
    measure(port, "rt/pub/main/temperature", body).await;
    let heard = client.next_event("temperature").await;
    assert_eq!(
        (&heard["topic"], &heard["payload"]),
        (&json!("temperature"), &json!({ "valor": 22.5 }))
    );
    assert!(heard["offset"].is_string(), "{heard}");
}

#[tokio::test]
async fn topics_are_subscribed_to_pinged_and_left() {
    let stage = stage().await;
    let (client, _) = stage.plain(1, claims("ana@x.example", "user")).await;
    stage
        .backend
        .publish("main.temperature", "temperature", json!({ "valor": 20 }))
        .await;
    assert_eq!(
        client.next_event("temperature").await["payload"],
        json!({ "valor": 20 })
    );

    let subscribed = client.subscribe("metricas/demo", None).await;
    assert_eq!(
        (&subscribed["type"], subscribed["offset"].is_string()),
        (&json!("subscribed"), true)
    );
    for _ in 0..2 {
        let sample = client
            .next_matching("a sample", |message| message["topic"] == "metricas/demo")
            .await;
        assert!(
            sample["payload"]["value"].is_number() && sample.get("offset").is_none(),
            "{sample}"
        );
    }
    client.send(&json!({ "type": "ping" }));
    let pong = client.next_of_type("pong").await;
    assert!(pong["ts"].is_u64() && pong["offset"].is_string(), "{pong}");
    client.send(&json!({ "type": "unsub", "topic": "metricas/demo" }));
    client.next_of_type("unsubscribed").await;
    client.send(&json!({ "type": "unsub", "topic": "temperature" }));
    assert_eq!(client.next_of_type("unsubscribed").await["topic"], "temperature");
    stage
        .backend
        .publish("main.temperature", "temperature", json!({ "valor": 21 }))
        .await;
    stage.backend.publish("main.all", "later", json!(1)).await;
    client.next_event("later").await;
    client.assert_no_message("measurement", |message| message["topic"] == "temperature");
}

#[tokio::test]
async fn a_topic_may_be_for_one_role_and_a_token_is_required() {
    let stage = stage().await;
    let (user, _) = stage.plain(0, claims("ana@x.example", "user")).await;
    let (admin, _) = stage.plain(1, claims("eva@x.example", "admin")).await;
    let refused = user.subscribe("admin/alarms", None).await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("forbidden"), &json!("Solo administradores"))
    );
    assert_eq!(admin.subscribe("admin/alarms", None).await["type"], "subscribed");
    stage
        .backend
        .publish("main.admin/alarms", "alarm", json!({ "level": 3 }))
        .await;
    assert_eq!(admin.next_event("alarm").await["payload"], json!({ "level": 3 }));
    assert_eq!(user.subscribe("elsewhere", None).await["code"], "forbidden");

    for query in ["", "?token=nonsense"] {
        let socket = stage
            .driver
            .ws(format!("ws://{}/ws{query}", stage.edges[0]), WsOptions::new());
        assert_eq!(socket.rejected().await.status, 401);
    }
    let options = WsOptions::new()
        .protocol("carillon.v1")
        .protocol(format!("bearer.{}", token(claims("ana@x.example", "user"))));
    let socket = stage.driver.ws(format!("ws://{}/ws", stage.edges[1]), options);
    assert_eq!(socket.opened().await, "carillon.v1");
}

#[tokio::test]
async fn what_was_missed_comes_with_the_offset() {
    let stage = stage().await;
    let (client, _) = stage.plain(0, claims("ana@x.example", "user")).await;
    stage
        .backend
        .publish("main.temperature", "temperature", json!(1))
        .await;
    let offset = client.next_event("temperature").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    client.cut();
    client.closed().await;
    for n in 2..5 {
        stage
            .backend
            .publish("main.temperature", "temperature", json!(n))
            .await;
    }
    let token = token(claims("ana@x.example", "user"));
    let url = format!("ws://{}/ws?token={token}&since={offset}", stage.edges[1]);
    let back = stage.driver.ws(url, WsOptions::new());
    assert_eq!(back.next_of_type("welcome").await["recovered"], true);
    for n in 2..5 {
        assert_eq!(back.next_event("temperature").await["payload"], n);
    }
}

#[tokio::test]
async fn who_does_not_answer_pings_is_closed() {
    let quick = profile("sensores").replace("ws_ping_interval = \"30s\"", "ws_ping_interval = \"1s\"");
    assert_ne!(quick, profile("sensores"));
    let url = format!("mqtt://{}", net::free_addr());
    let stage = Stage::config(quick, &[("MQTT_URL", &url)]).await;
    let (silent, _) = stage.plain(0, claims("ana@x.example", "user")).await;
    let (well, _) = stage.plain(1, claims("ben@x.example", "user")).await;
    silent.pause().await;
    well.pinged().await;
    well.pinged().await;
    wait::until("the end of the silent connection", LIMIT, async || {
        let user = stage.get("/v1/users/ana@x.example").await;
        (user["online"] == false).then_some(())
    })
    .await;
    assert_eq!(stage.get("/v1/users/ben@x.example").await["online"], true);
}
