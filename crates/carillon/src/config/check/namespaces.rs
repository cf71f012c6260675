//! Namespaces: their names, their rules, and who names them.

use carillon_edge::rules::Rules;
use carillon_protocol::names::Namespace;

use super::Report;
use crate::config::Config;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    for (name, settings) in &config.namespaces {
        if let Err(problem) = Namespace::new(name) {
            let hint = match name.as_str() {
                "/main" => "the main namespace is written \"/\": ",
                _ => "",
            };
            report.add(&["namespaces", name], format!("{hint}{problem}"));
            continue;
        }
        if let Err(mistakes) = Rules::compile(name, settings) {
            for mistake in mistakes {
                report.add(&mistake.full_path(), mistake.problem.clone());
            }
        }
    }
    sources(config, report);
}

/// What an MQTT broker or a demonstration signal publishes must have a namespace to go to.
fn sources(config: &Config, report: &mut Report<'_>) {
    let is_known = |namespace: &Namespace| {
        config.namespaces.contains_key(namespace.as_str())
            || (config.namespaces.is_empty() && namespace.is_main())
    };
    let mqtt = config.publisher.mqtt.iter().map(|mqtt| &mqtt.namespace);
    let demo = config.publisher.demo.iter().map(|demo| &demo.namespace);
    let sources = mqtt.enumerate().map(|source| ("mqtt", source));
    let sources = sources.chain(demo.enumerate().map(|source| ("demo", source)));
    for (kind, (index, namespace)) in sources {
        if !is_known(namespace) {
            let path = ["publisher", kind, &index.to_string(), "namespace"];
            report.add(
                &path,
                format!("expected a configured namespace, got {namespace:?}"),
            );
        }
    }
    for (index, key) in config.auth.api_keys.iter().enumerate() {
        for (item, name) in key.namespaces.iter().enumerate() {
            if !Namespace::new(name).is_ok_and(|namespace| is_known(&namespace)) {
                let (index, item) = (index.to_string(), item.to_string());
                let path = ["auth", "api_keys", &index, "namespaces", &item];
                report.add(&path, format!("expected a configured namespace, got {name:?}"));
            }
        }
    }
}
