use crate::token::{claims, secret};
use crate::{carillon, run};

#[tokio::test]
async fn variables_lie_over_the_file() {
    for (variables, config, expected) in [
        // A value of the right type is taken, wherever it comes from.
        (vec![("CARILLON_EDGE__PING_INTERVAL", "30s")], "", "ok"),
        (
            vec![("CARILLON_EDGE__PING_INTERVAL", "x")],
            "",
            "CARILLON_EDGE__PING_INTERVAL: edge.ping_interval: ",
        ),
        (
            vec![("CARILLON_EDGE__LISEN", "x")],
            "",
            "CARILLON_EDGE__LISEN: edge.lisen: unknown key",
        ),
        (
            vec![("CARILLON_NATS__REPLICAS", "2")],
            "[nats]\nreplicas = 3",
            "CARILLON_NATS__REPLICAS: nats.replicas: ",
        ),
        (
            vec![("WS_PORT", "65536")],
            "",
            "WS_PORT: edge.listen: expected a port from 0 to 65535, got \"65536\"",
        ),
        (
            vec![("WS_PORT", "64600")],
            "[edge]\nlisten = \"10.0.0.1:1\"",
            "got 10.0.0.1:64600",
        ),
        (
            vec![("WS_PATH", "ws")],
            "",
            "WS_PATH: edge.path: expected a path that begins with a slash",
        ),
        (
            vec![("CORS_ORIGIN", "https://a.example, https://b.example")],
            "",
            "ok",
        ),
        (
            vec![("CORS_ORIGIN", "https://a.example, b.example")],
            "",
            "CORS_ORIGIN: edge.cors_origin[1]: expected an origin such as ",
        ),
        (
            vec![("CARILLON_EDGE__TRUSTED_PROXIES", "proxy")],
            "",
            "CARILLON_EDGE__TRUSTED_PROXIES: edge.trusted_proxies[0]: expected an address such as ",
        ),
        (vec![("NATS_URL", "http://x")], "", "NATS_URL: nats.url: "),
        (
            vec![("NATS_URL", "http://x"), ("CARILLON_NATS__URL", "nats://x")],
            "",
            "ok",
        ),
        (
            vec![("JWT_SECRET_FILE", "/nonexistent")],
            "",
            "JWT_SECRET_FILE: expected a readable file",
        ),
        (
            vec![("MQTT_URL", "http://x")],
            "[[publisher.mqtt]]\nurl = \"mqtt://b\"\ntopic = \"a\"\nroom = \"r\"\nevent = \"e\"",
            "MQTT_URL: publisher.mqtt[0].url: ",
        ),
        (vec![("MQTT_URL", "http://x")], "", "ok"),
        (
            vec![("PORT", "7")],
            "[edge]\nlisten = \"127.0.0.1:${PORT}\"",
            "ok",
        ),
        (
            vec![],
            "[edge]\nlisten = \"127.0.0.1:${PORT_X}\"",
            "expected the variable PORT_X to be set",
        ),
        // Orchestrators set such names for every service.
        (vec![("CARILLON_EDGE_PORT", "tcp://10.0.0.1:7000")], "", "ok"),
    ] {
        let builder = variables
            .iter()
            .fold(carillon(["check"]), |builder, (name, value)| {
                builder.env(*name, *value)
            });
        let (ok, text) = run(builder.config(config)).await;
        assert_eq!(ok, expected == "ok", "{variables:?} {text}");
        assert!(
            text.contains(expected),
            "{variables:?} gave {text}, expected {expected}"
        );
    }
}

#[tokio::test]
async fn a_secret_may_stand_in_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let by_file = carillon(["token", "--user", "1"]).env("JWT_SECRET_FILE", file.display().to_string());
    let (ok, token) = run(by_file).await;
    assert!(ok, "{token}");
    assert_eq!(claims(&token, secret("from-a-file")).await["sub"], "1");
    let (ok, text) = run(carillon(["check"]).env("CARILLON_AUTH__SECRET__X", "hunter2")).await;
    assert!(!ok && !text.contains("hunter2"), "{text}");
}
