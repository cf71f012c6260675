use super::*;

#[test]
fn every_bad_file_is_one_clear_message() {
    for (text, message) in [
        (
            "[edge]\nlisen = \"x\"",
            r#"carillon.toml:2: edge.lisen: unknown key, did you mean "listen"?"#,
        ),
        (
            "\n[egde]\nlisten = \"x\"",
            r#"carillon.toml:2: egde: unknown key, did you mean "edge"?"#,
        ),
        (
            "[history]\nwhatever = 1",
            r#"carillon.toml:2: history.whatever: unknown key, expected "max_age""#,
        ),
        (
            "[zzzzzzzz]",
            r#"carillon.toml:1: zzzzzzzz: unknown key, expected "edge", "history", "publisher" or "namespaces""#,
        ),
        (
            "[edge]\nping_interval = \"soon\"",
            r#"carillon.toml:2: edge.ping_interval: expected a duration such as "25s", got "soon""#,
        ),
        (
            "[edge]\nping_interval = -1",
            r#"carillon.toml:2: edge.ping_interval: expected a duration such as "25s", got -1"#,
        ),
        (
            "[edge]\nidle = true",
            r#"carillon.toml:2: edge.idle: expected a duration such as "25s", got true"#,
        ),
        (
            "[edge]\nqueue = \"much\"",
            r#"carillon.toml:2: edge.queue: expected a size such as "256KiB", got "much""#,
        ),
        (
            "[edge]\nframe = \"8GiB\"",
            r#"carillon.toml:2: edge.frame: expected a size such as "256KiB", got "8GiB""#,
        ),
        (
            "[edge]\nlisten = \"localhost\"",
            r#"carillon.toml:2: edge.listen: expected an address such as "127.0.0.1:7000", got "localhost""#,
        ),
        (
            "[edge]\nlisten = 7000",
            r#"carillon.toml:2: edge.listen: expected an address such as "127.0.0.1:7000", got 7000"#,
        ),
        (
            "[edge]\nport = 70000",
            "carillon.toml:2: edge.port: expected an integer from 0 to 65535, got 70000",
        ),
        (
            "[edge]\nport = \"80\"",
            "carillon.toml:2: edge.port: expected an integer from 0 to 65535, got \"80\"",
        ),
        (
            "[edge]\nport = 1.5",
            "carillon.toml:2: edge.port: expected an integer from 0 to 65535, got 1.5",
        ),
        (
            "[edge]\nconnections = 0",
            "carillon.toml:2: edge.connections: expected an integer from 1 to 4294967295, got 0",
        ),
        (
            "[edge]\ncompress = 1",
            "carillon.toml:2: edge.compress: expected true or false, got 1",
        ),
        (
            "[edge]\nratio = \"x\"",
            "carillon.toml:2: edge.ratio: expected a number, got \"x\"",
        ),
        (
            "[edge]\npath = 1",
            "carillon.toml:2: edge.path: expected a path, got 1",
        ),
        (
            "[edge]\ncors_origin = \"x\"",
            "carillon.toml:2: edge.cors_origin: expected a list, got \"x\"",
        ),
        (
            "[edge]\ncors_origin = [\n  \"a\",\n  2,\n]",
            "carillon.toml:4: edge.cors_origin[1]: expected a string, got 2",
        ),
        (
            "[edge]\nstorage = \"disk\"",
            r#"carillon.toml:2: edge.storage: expected "file" or "memory", got "disk""#,
        ),
        (
            "[edge]\nstorage = 3",
            "carillon.toml:2: edge.storage: expected a string, or a table with one key, got 3",
        ),
        (
            "[edge]\nsecret = 12345",
            "carillon.toml:2: edge.secret: expected a string, got an integer",
        ),
        ("edge = 1", "carillon.toml:1: edge: expected a table, got 1"),
        ("[[edge]]", "carillon.toml:1: edge: expected a table, got a list"),
        (
            "[edge]\nport = 99999999999999999999",
            "carillon.toml:2: edge.port: expected an integer of at most 64 bits",
        ),
        (
            "[publisher]\n[[publisher.mqtt]]\nqos = 1",
            r#"carillon.toml:2: publisher.mqtt[0]: missing key "url""#,
        ),
        (
            "[[publisher.mqtt]]\nurl = \"a\"\n\n[[publisher.mqtt]]\nurl = \"b\"\nqos = 300",
            "carillon.toml:6: publisher.mqtt[1].qos: expected an integer from 0 to 255, got 300",
        ),
        (
            "[namespaces.\"/chat\"]\npattern = \"x\"",
            r#"carillon.toml:2: namespaces."/chat".pattern: expected a parameter in braces, got "x""#,
        ),
        (
            "[namespaces.\"/chat\"]\nlimit = \"x\"",
            r#"carillon.toml:2: namespaces."/chat".limit: expected a number or a table, got "x""#,
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = \"a\"\njoin = 3",
            r#"carillon.toml:1: namespaces."/".on[0]: expected a string, got 3"#,
        ),
        (
            "[edge]\npath = \"${HOME_DIR}/x\"",
            "carillon.toml:2: edge.path: expected the variable HOME_DIR to be set, or a default as in \"${HOME_DIR:-default}\"",
        ),
        (
            "[edge]\ncors_origin = [\"a\", \"${A\"]",
            "carillon.toml:2: edge.cors_origin[1]: expected \"}\" after \"${\", or \"$${\" for the characters themselves",
        ),
        (
            "[edge]\nport = 1\nport = 2",
            "carillon.toml:3: expected the key port once, got it twice",
        ),
        (
            "[edge]\npath = \"nats://user:pass@host\"\nport = \"nats://user:pass@host\"",
            r#"carillon.toml:3: edge.port: expected an integer from 0 to 65535, got "nats://…@host""#,
        ),
    ] {
        assert_eq!(problem(text, &[]), message, "{text}");
    }
    assert!(problem("[edge\nport = 1", &[]).starts_with("carillon.toml:1: "));
    assert!(problem("[edge]\nsecret = \"abc", &[]).starts_with("carillon.toml:2: "));
}

#[test]
fn every_bad_variable_is_one_clear_message() {
    for (variable, value, message) in [
        (
            "CARILLON_EDGE__LISEN",
            "x",
            r#"CARILLON_EDGE__LISEN: edge.lisen: unknown key, did you mean "listen"?"#,
        ),
        (
            "CARILLON_EGDE__LISTEN",
            "x",
            r#"CARILLON_EGDE__LISTEN: egde: unknown key, did you mean "edge"?"#,
        ),
        (
            "CARILLON_EDGE__PORT",
            "x",
            "CARILLON_EDGE__PORT: edge.port: expected an integer from 0 to 65535, got \"x\"",
        ),
        (
            "CARILLON_EDGE__PORT",
            "-1",
            "CARILLON_EDGE__PORT: edge.port: expected an integer from 0 to 65535, got -1",
        ),
        (
            "CARILLON_EDGE__COMPRESS",
            "maybe",
            "CARILLON_EDGE__COMPRESS: edge.compress: expected true or false, got \"maybe\"",
        ),
        (
            "CARILLON_EDGE__PING_INTERVAL",
            "soon",
            r#"CARILLON_EDGE__PING_INTERVAL: edge.ping_interval: expected a duration such as "25s", got "soon""#,
        ),
        (
            "CARILLON_EDGE__",
            "x",
            "CARILLON_EDGE__: expected a name such as CARILLON_SECTION__KEY",
        ),
        ("CARILLON_EDGE", "x", ""),
        (
            "CARILLON_EDGE__PORT__DEEPER",
            "x",
            "CARILLON_EDGE__PORT__DEEPER: edge.port: expected an integer from 0 to 65535, got a table",
        ),
        (
            "CARILLON_PUBLISHER__MQTT__1__URL",
            "x",
            "CARILLON_PUBLISHER__MQTT__1__URL: publisher.mqtt: expected a list, got a table",
        ),
        (
            "WS_PORT",
            "high",
            "WS_PORT: edge.listen: expected a port, got \"high\"",
        ),
        (
            "JWT_SECRET_FILE",
            "/does/not/exist",
            "JWT_SECRET_FILE: expected a readable file, got \"/does/not/exist\": No such file or directory (os error 2)",
        ),
    ] {
        let told = read("", &[(variable, value)])
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert_eq!(told, message, "{variable}={value}");
    }
    let both = [("JWT_SECRET", "a"), ("JWT_SECRET_FILE", "b")];
    assert_eq!(
        problem("", &both),
        "JWT_SECRET_FILE: expected one of JWT_SECRET and JWT_SECRET_FILE, got both"
    );
    let index = "[[publisher.mqtt]]\nurl = \"a\"";
    assert_eq!(
        problem(index, &[("CARILLON_PUBLISHER__MQTT__7__URL", "x")]),
        "CARILLON_PUBLISHER__MQTT__7__URL: publisher.mqtt: expected the number of an item, 0 to 1, got \"7\""
    );
}

#[test]
fn later_checks_name_the_same_places() {
    let text = "[edge]\nport = 1\n[namespaces.\"/\"]\n[[namespaces.\"/\".on]]\nevent = \"a\"\njoin = \"r\"\n\
                [[namespaces.\"/\".on]]\nevent = \"b\"\nwhen = \"x +\"\nrelay = { to = \"room\" }";
    let loaded = read(text, &[("CARILLON_HISTORY__MAX_AGE", "1s")]).unwrap();
    let rules = &loaded.value.namespaces["/"].on;
    assert_eq!(
        (rules[1].event.as_str(), rules[1].when.as_deref()),
        ("b", Some("x +"))
    );
    assert!(
        matches!((&rules[0].action, &rules[1].action), (Action::Join(room), Action::Relay { to }) if room == "r" && to == "room")
    );
    let error = ConfigError::at(
        &loaded.sources,
        &["namespaces", "/", "on", "1", "when"],
        "expected CEL",
    );
    assert_eq!(
        error.to_string(),
        r#"carillon.toml:9: namespaces."/".on[1].when: expected CEL"#
    );
    assert_eq!(
        ConfigError::at_key(&loaded.sources, r#"namespaces."/".on[1].when"#, "expected CEL"),
        error
    );
    let error = ConfigError::at(&loaded.sources, &["history", "max_age"], "expected 2m or more");
    assert_eq!(
        error.to_string(),
        "CARILLON_HISTORY__MAX_AGE: history.max_age: expected 2m or more"
    );
    assert_eq!(loaded.sources.locate(&["edge", "listen"]), "carillon.toml:1");
    assert_eq!(loaded.sources.locate(&["publisher", "mqtt"]), "carillon.toml");
    assert!(loaded.sources.is_set(&["edge", "port"]) && !loaded.sources.is_set(&["edge", "listen"]));
}

#[test]
fn a_missing_file_and_no_file_at_all() {
    let error = load::<Root>(&Source::default().file("/does/not/exist.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/does/not/exist.toml: expected a readable file: No such file or directory (os error 2)"
    );
    let loaded = load::<Root>(&Source::default()).unwrap();
    assert_eq!(loaded.value.edge.port, 1);
    assert_eq!(loaded.sources.locate(&["edge", "port"]), "configuration");
}
