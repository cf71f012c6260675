use super::*;

#[test]
fn variables_count_more_than_the_file_and_long_names_more_than_short() {
    let file = "[edge]\nlisten = \"0.0.0.0:80\"\nport = 5\n[[publisher.mqtt]]\nurl = \"a\"\n[[publisher.mqtt]]\nurl = \"b\"";
    let loaded = read(file, &[]).unwrap();
    assert_eq!(loaded.value.edge.listen.to_string(), "0.0.0.0:80");
    assert_eq!(loaded.sources.locate(&["edge", "listen"]), "carillon.toml:2");

    let short = [
        ("WS_PORT", "81"),
        ("MQTT_URL", "c"),
        ("CORS_ORIGIN", "https://a, https://b"),
    ];
    let loaded = read(file, &short).unwrap();
    assert_eq!(loaded.value.edge.listen.to_string(), "0.0.0.0:81");
    assert_eq!(loaded.value.edge.cors_origin, ["https://a", "https://b"]);
    assert_eq!(
        loaded
            .value
            .publisher
            .mqtt
            .iter()
            .map(|m| m.url.as_str())
            .collect::<Vec<_>>(),
        ["c", "c"]
    );
    assert_eq!(loaded.sources.locate(&["edge", "listen"]), "WS_PORT");
    assert_eq!(
        read("", &short).unwrap().value.edge.listen.to_string(),
        "127.0.0.1:81"
    );
    assert!(read("", &short).unwrap().value.publisher.mqtt.is_empty());

    let long = [
        ("WS_PORT", "81"),
        ("CARILLON_EDGE__LISTEN", "[::1]:82"),
        ("CARILLON_EDGE__PORT", "6"),
    ];
    let loaded = read(file, &long).unwrap();
    assert_eq!(loaded.value.edge.listen.to_string(), "[::1]:82");
    assert_eq!(loaded.value.edge.port, 6);
    assert_eq!(
        read(file, &[("WS_PORT", "")])
            .unwrap()
            .value
            .edge
            .listen
            .to_string(),
        "0.0.0.0:80"
    );
}

#[test]
fn text_becomes_whatever_type_a_setting_has() {
    let loaded = read(
        "[edge]\nport = \"${PORT:-9}\"",
        &[
            ("CARILLON_EDGE__SECRET", "12345"),
            ("CARILLON_EDGE__COMPRESS", "Yes"),
            ("CARILLON_EDGE__RATIO", "0.5"),
            ("CARILLON_EDGE__CONNECTIONS", " 7 "),
            ("CARILLON_EDGE__PING_INTERVAL", "10"),
            ("CARILLON_EDGE__IDLE", "2m"),
            ("CARILLON_EDGE__QUEUE", "64KiB"),
            ("CARILLON_EDGE__STORAGE", "memory"),
            ("CARILLON_EDGE__PATH", ""),
            ("CARILLON_EDGE__PAIR", "[1, 2]"),
            ("CARILLON_EDGE__CORS_ORIGIN", "[\"a,b\", \"c\"]"),
            ("CARILLON_HISTORY__MAX_AGE", "24h"),
            ("CARILLON_PUBLISHER__MQTT__0__URL", "mqtt://x"),
            ("CARILLON_PUBLISHER__MQTT__0__QOS", "2"),
            ("CARILLON_EDGE_PORT", "tcp://10.0.0.1:7000"),
            ("CARILLON_NATS_SERVER", "/usr/bin/nats-server"),
        ],
    );
    let Root {
        edge,
        history,
        publisher,
        ..
    } = loaded.unwrap().value;
    assert_eq!(
        (edge.port, edge.secret.as_str(), edge.compress, edge.ratio),
        (9, "12345", true, 0.5)
    );
    assert_eq!((edge.connections.get(), edge.ping_interval.as_secs()), (7, 10));
    assert_eq!((edge.idle, edge.queue), (Some(Duration::from_secs(120)), 65536));
    assert_eq!(
        (edge.storage, edge.path, edge.pair),
        (Storage::Memory, None, (1, 2))
    );
    assert_eq!(edge.cors_origin, ["a,b", "c"]);
    assert_eq!(history.max_age, Duration::from_secs(24 * 3600));
    assert_eq!(
        (publisher.mqtt[0].url.as_str(), publisher.mqtt[0].qos),
        ("mqtt://x", 2)
    );
}

#[test]
fn a_file_holds_a_value_and_messages_hide_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s3cret\n\n").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(
        read("", &[("JWT_SECRET_FILE", path)]).unwrap().value.edge.secret,
        "s3cret\n"
    );
    assert_eq!(
        read("", &[("CARILLON_EDGE__SECRET_FILE", path)])
            .unwrap()
            .value
            .edge
            .secret,
        "s3cret\n"
    );
    assert_eq!(
        problem("", &[("CARILLON_EDGE__PORT_FILE", path)]),
        "CARILLON_EDGE__PORT_FILE: edge.port: expected an integer from 0 to 65535, got a string"
    );
}
