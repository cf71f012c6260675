use crate::{carillon, run};

/// What `carillon check` prints, without the folder of the file.
async fn check(text: &str) -> (bool, Vec<String>) {
    let (ok, printed) = run(carillon(["check"]).config(text)).await;
    let lines = printed.lines().map(|line| {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        match line.find("carillon.toml") {
            Some(at) => line[at..].to_owned(),
            None => line.to_owned(),
        }
    });
    (ok, lines.collect())
}

#[tokio::test]
async fn a_good_config_is_ok() {
    let (ok, lines) = check("[auth]\nsecret = \"s\"\n\n[namespaces.\"/chat\"]\nanonymous = true\n").await;
    assert_eq!((ok, lines), (true, vec!["ok".to_owned()]));
}

#[tokio::test]
async fn a_config_without_keys_is_good_but_not_for_an_edge() {
    let (ok, lines) = check("[edge]\ndemo = true\n").await;
    assert!(ok, "{lines:?}");
    assert!(lines.contains(&"ok".to_owned()));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("note: an edge needs more: no key for tokens")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn every_mistake_is_one_line_with_its_place() {
    for (text, message) in [
        (
            "[edge]\nlisen = \"127.0.0.1:1\"",
            r#"carillon.toml:2: edge.lisen: unknown key, did you mean "listen"?"#,
        ),
        (
            "[edges]",
            r#"carillon.toml:1: edges: unknown key, did you mean "edge"?"#,
        ),
        (
            "[edge]\nping_interval = \"soon\"",
            r#"carillon.toml:2: edge.ping_interval: expected a duration such as "25s", got "soon""#,
        ),
        (
            "[edge]\npath = \"socket.io\"",
            "carillon.toml:2: edge.path: expected a path that begins with a slash",
        ),
        (
            "[edge]\ncors_origin = [\"*\",\n  \"https://a.example/path\"]",
            r#"carillon.toml:3: edge.cors_origin[1]: expected an origin such as "https://app.example.com""#,
        ),
        (
            "[edge]\ntrusted_proxies = [\"localhost\"]",
            r#"carillon.toml:2: edge.trusted_proxies[0]: expected an address such as "10.0.0.1""#,
        ),
        (
            "[edge]\ndrain = \"3s\"",
            "carillon.toml:2: edge.drain: expected more than edge.drain_delay",
        ),
        (
            "[edge]\ndrain = \"3s\"\ndrain_delay = \"4s\"",
            "carillon.toml:3: edge.drain_delay: expected less than edge.drain",
        ),
        (
            "[edge]\npath = \"/ws\"",
            "carillon.toml:2: edge.path: expected a path that no other transport has",
        ),
        (
            "[edge]\nws_ping_interval = \"0s\"",
            "carillon.toml:2: edge.ws_ping_interval: expected more than zero",
        ),
        (
            "[edge]\nqueue = 0",
            "carillon.toml:2: edge.queue: expected at least events.max_bytes of 262144, got 0",
        ),
        (
            "[events]\nmax_bytes = \"2MiB\"",
            "carillon.toml:2: events.max_bytes: expected at most edge.queue of 1048576, got 2097152",
        ),
        (
            "[edge]\nqueue = \"1MiB\"\nqueue = \"2MiB\"",
            "carillon.toml:3: expected the key queue once, got it twice",
        ),
        (
            "[history]\nmax_age = \"5m\"\ndedupe = \"6m\"",
            "carillon.toml:3: history.dedupe: expected at most history.max_age of 5m, and at most 1day, got 6m",
        ),
        (
            "[history]\nmax_age = \"7d\"\ndedupe = \"2d\"",
            "carillon.toml:3: history.dedupe: expected at most history.max_age of 7days, and at most 1day, got 2days",
        ),
        (
            "[nats]\ncredentials = \"a.creds\"\nnkey = \"a.nk\"",
            "carillon.toml:3: nats.nkey: expected either this or nats.credentials",
        ),
        (
            "[publisher]\nmax_batch = 0",
            "carillon.toml:2: publisher.max_batch: expected more than zero",
        ),
        (
            "[[publisher.demo]]\nroom = \"r\"\nperiod = \"0s\"",
            "carillon.toml:3: publisher.demo[0].period: expected more than zero",
        ),
        (
            "[[publisher.demo]]\nroom = \"r\"\namplitude = nan",
            "carillon.toml:3: publisher.demo[0].amplitude: expected a number between -1e100 and 1e100",
        ),
        (
            "[[publisher.demo]]\nroom = \"r\"\nnoise = -inf",
            "carillon.toml:3: publisher.demo[0].noise: expected a number between -1e100 and 1e100",
        ),
        (
            "[edge]\nlisten = \"127.0.0.1:7000\"\nadmin = \"0.0.0.0:7000\"",
            "carillon.toml:3: edge.admin: expected another address than edge.listen, got 0.0.0.0:7000",
        ),
        (
            "[edge]\ntrusted_proxies = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/40\",\n]",
            "carillon.toml:4: edge.trusted_proxies[1]: expected an address such as \"10.0.0.1\" or a network such as \
             \"10.0.0.0/8\", got \"10.0.0.0/40\"",
        ),
        (
            "[edge]\ncors_origin = [\"https://a.example\", \"b.example/path\"]",
            "carillon.toml:2: edge.cors_origin[1]: expected an origin such as \"https://app.example.com\" or \
             \"http://localhost:3000\", without a path, or \"*\", got \"b.example/path\"",
        ),
        (
            "[router]\nlisten = \"127.0.0.1:65000\"",
            "carillon.toml:2: router.listen: expected a port of at most 64535, or router.admin, which is the port plus \
             1000 by default, got 127.0.0.1:65000",
        ),
        (
            "[history]\nmax_age = \"1m\"",
            "carillon.toml:2: history.max_age: expected at least 2m, got 1m",
        ),
        (
            "[history]\nmax_age = \"3m\"",
            "carillon.toml:2: history.max_age: expected more than 3m 15s, which is session.recovery, \
             edge.ping_interval, edge.ping_timeout and 30s together, got 3m",
        ),
        (
            "[session]\nrecovery = \"2d\"",
            "carillon.toml:2: session.recovery: expected session.recovery, edge.ping_interval, edge.ping_timeout and \
             30s together below history.max_age of 1day, got 2days 1m 15s",
        ),
        (
            "[session]\nlease = \"4s\"",
            "carillon.toml:2: session.lease: expected at least 3 times session.renewal of 2s, got 4s",
        ),
        (
            "[events]\nmax_bytes = 0",
            "carillon.toml:2: events.max_bytes: expected more than zero",
        ),
        (
            "[nats]\nurl = \"http://user:secret@nats\"",
            "carillon.toml:2: nats.url: expected server URLs such as \"nats://127.0.0.1:4222\", separated by commas",
        ),
        (
            "[nats]\nreplicas = 2",
            "carillon.toml:2: nats.replicas: expected 1, 3 or 5, got 2",
        ),
        (
            "[nats]\nprefix = \"a.b\"",
            "carillon.toml:2: nats.prefix: expected letters, digits, - and _, got \"a.b\"",
        ),
        (
            "[nats.tls]\ncertificate = \"c.pem\"",
            "carillon.toml:2: nats.tls.certificate: expected nats.tls.key beside it",
        ),
        (
            "[[auth.keys]]\npublic_key = \"x\"\nalgorithm = \"none\"",
            "carillon.toml:3: auth.keys[0].algorithm:",
        ),
        ("[[auth.keys]]\nid = \"k\"", "carillon.toml:1: auth.keys[0]:"),
        (
            "[auth]\nid_claims = []",
            "carillon.toml:2: auth.id_claims: expected at least one claim",
        ),
        (
            "[[auth.api_keys]]\nname = \"orders\"\nkey_sha256 = \"abc\"\nscopes = [\"publish\"]",
            "carillon.toml:3: auth.api_keys[0].key_sha256: expected 64 hexadecimal digits",
        ),
        (
            "[[auth.api_keys]]\nname = \"orders\"\nkey = \"k\"\nscopes = [\"publish\"]\nnamespaces = [\"/chat\"]",
            "carillon.toml:5: auth.api_keys[0].namespaces[0]: expected a configured namespace, got \"/chat\"",
        ),
        (
            "[publisher]\npartitions = 0",
            "carillon.toml:2: publisher.partitions: expected 1 to 256",
        ),
        (
            "[[publisher.mqtt]]\nurl = \"mqtt://b\"\ntopic = \"a/+\"\nroom = \"{2}\"\nevent = \"e\"",
            "carillon.toml:4: publisher.mqtt[0].room: expected placeholders up to {1}, as the topic has wildcards",
        ),
        (
            "[[publisher.demo]]\nroom = \"r\"\nnamespace = \"/x\"",
            "carillon.toml:3: publisher.demo[0].namespace: expected a configured namespace, got \"/x\"",
        ),
        (
            "[telemetry]\notlp_endpoint = \"collector:4317\"",
            "carillon.toml:2: telemetry.otlp_endpoint: expected an address such as \"http://127.0.0.1:4317\" or \
             \"https://collector:4317\", got \"collector:4317\"",
        ),
        (
            "[telemetry]\notlp_endpoint = \"http://c:4317\"\notlp_ca = \"ca.pem\"",
            "carillon.toml:3: telemetry.otlp_ca: expected telemetry.otlp_endpoint to begin with https:// beside it",
        ),
        (
            "[namespaces.\"/main\"]",
            "carillon.toml:1: namespaces.\"/main\": the main namespace is written \"/\":",
        ),
        (
            "[namespaces.chat]",
            "carillon.toml:1: namespaces.chat: a namespace begins with a slash",
        ),
        (
            "[namespaces.\"/chat\"]\nstream = \"A B\"",
            "carillon.toml:2: namespaces.\"/chat\".stream: expected letters, digits and _",
        ),
        (
            "[[namespaces.\"/\".rooms]]\npattern = \"a:{id}\"\njoin = \"user.role ==\"",
            "carillon.toml:3: namespaces.\"/\".rooms[0].join:",
        ),
        (
            "[[namespaces.\"/\".on]]\nevent = \"a\"\nwhen = \"nobody == 1\"",
            "carillon.toml:3: namespaces.\"/\".on[0].when:",
        ),
        ("[edge\n", "carillon.toml:1: "),
    ] {
        let (ok, lines) = check(text).await;
        assert!(!ok, "{text} was taken for good");
        let problems: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("carillon.toml"))
            .collect();
        assert_eq!(problems.len(), 1, "{text}: {lines:?}");
        assert!(
            problems[0].starts_with(message),
            "{text}\n  gave     {}\n  expected {message}",
            problems[0]
        );
    }
}

#[tokio::test]
async fn all_contradictions_are_told_at_once() {
    let text = "[nats]\nreplicas = 2\n\n[history]\nmax_age = \"1m\"\n\n[namespaces.\"/main\"]\n";
    let (ok, lines) = check(text).await;
    let places = [
        "carillon.toml:2: nats.replicas",
        "carillon.toml:5: history.max_age",
        "carillon.toml:7: ",
    ];
    assert!(!ok);
    assert_eq!(lines.len(), places.len(), "{lines:?}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.starts_with(place), "{line}");
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let (ok, text) = run(carillon(["check", "--config", "/nonexistent/carillon.toml"])).await;
    assert!(!ok);
    assert!(
        text.contains("/nonexistent/carillon.toml: expected a readable file"),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_command_line_is_told_apart_from_a_wrong_config() {
    let (status, text) = carillon(["check", "--confg", "x"]).run(crate::LIMIT).await;
    assert_eq!(status.code(), Some(2), "{text}");
    let (status, _) = carillon(["check"]).config("[x]").run(crate::LIMIT).await;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn an_edge_without_keys_does_not_start() {
    let (ok, text) = run(carillon(["edge"]).config("[edge]\nlisten = \"127.0.0.1:0\"")).await;
    assert!(!ok);
    assert!(
        text.contains("no key for tokens is configured: set auth.secret (or JWT_SECRET)"),
        "{text}"
    );
}
