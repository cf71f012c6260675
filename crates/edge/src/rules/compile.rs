//! From settings to rules.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carillon_service::settings;

use super::Rules;
use super::action::EmitRule;
use super::error::{Mistakes, RuleError, Texts};
use super::event::{self, EventRule};
use super::limit::Rate;
use super::room::{self, AutoJoin, RoomRule};
use super::sanitize::Fields;
use super::variables::Variable;

impl Rules {
    /// Compiles a namespace's settings, or tells everything that is wrong with them.
    pub fn compile(name: &str, settings: &settings::Namespace) -> Result<Self, Vec<RuleError>> {
        static VERSION: AtomicU64 = AtomicU64::new(1);
        let mut mistakes = Mistakes::new(name);
        let texts = Texts::new(settings.error_code.as_ref(), settings.error_message.as_ref());
        let rate = mistakes.check(&["rate"], Rate::compile(&settings.rate, &texts));
        let sanitize = mistakes.check(&["sanitize"], Fields::compile(&settings.sanitize));
        let published = Fields::compile(&settings.sanitize_published);
        let published = mistakes.check(&["sanitize_published"], published);
        check_values(settings, &mut mistakes);
        let auto_join = each(&settings.auto_join, "auto_join", &mut mistakes, AutoJoin::compile);
        let rooms = each(&settings.rooms, "rooms", &mut mistakes, |rule, path, mistakes| {
            RoomRule::compile(rule, settings, &texts, path, mistakes)
        });
        let welcome = each(
            &settings.welcome,
            "welcome",
            &mut mistakes,
            |rule, path, mistakes| EmitRule::compile(rule, Variable::WELCOME, path, mistakes),
        );
        let fields = sanitize.clone().unwrap_or_default();
        let events = each(&settings.on, "on", &mut mistakes, |rule, path, mistakes| {
            EventRule::compile(rule, &fields, &texts, path, mistakes).map(Arc::new)
        });
        for (index, rule) in rooms.iter().enumerate() {
            if rooms[..index]
                .iter()
                .any(|earlier| earlier.pattern == rule.pattern)
            {
                let path = ["rooms", &index.to_string(), "pattern"];
                mistakes.add(
                    &path,
                    format!("the pattern {:?} stands above already", rule.pattern.text()),
                );
            }
        }
        let mut on: HashMap<String, Vec<Arc<EventRule>>> = HashMap::new();
        for (settings, rule) in settings.on.iter().zip(&events) {
            for name in &settings.events {
                on.entry(name.clone()).or_default().push(Arc::clone(rule));
            }
        }
        let (Some(rate), Some(sanitize), Some(sanitize_published)) = (rate, sanitize, published) else {
            return Err(mistakes.into_errors());
        };
        mistakes.finish(Self {
            namespace: name.to_owned(),
            version: VERSION.fetch_add(1, Ordering::Relaxed),
            texts,
            rate,
            max_bytes: settings.max_bytes,
            sanitize,
            sanitize_published,
            unmatched: settings.unmatched,
            auto_join,
            rooms,
            on,
            welcome,
            heartbeat: settings
                .heartbeat
                .clone()
                .filter(|heartbeat| !heartbeat.every.is_zero()),
            envelope: settings.envelope,
            own_events: own_events(settings),
            overflow: settings.overflow,
        })
    }
}

fn each<S, T>(
    settings: &[S],
    key: &str,
    mistakes: &mut Mistakes<'_>,
    compile: impl Fn(&S, &[&str], &mut Mistakes<'_>) -> Option<T>,
) -> Vec<T> {
    let indexed = settings.iter().enumerate();
    indexed
        .filter_map(|(index, rule)| compile(rule, &[key, &index.to_string()], mistakes))
        .collect()
}

fn check_values(settings: &settings::Namespace, mistakes: &mut Mistakes<'_>) {
    if settings.max_bytes == Some(0) {
        mistakes.add(&["max_bytes"], "expected a size above zero");
    }
    if settings.stream.is_empty()
        || !settings
            .stream
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        mistakes.add(&["stream"], "expected letters, digits and _");
    }
    mistakes.check(&["error_event"], room::server_event(&settings.error_event));
    for (key, value) in [
        ("ack_timeout", settings.ack_timeout),
        ("authz_timeout", settings.authz_timeout),
    ] {
        if value.is_zero() {
            mistakes.add(&[key], "expected a time longer than zero");
        }
    }
    if settings.connect.ask && settings.connect.timeout.is_zero() {
        mistakes.add(&["connect", "timeout"], "expected a time longer than zero");
    }
    if let Some(heartbeat) = &settings.heartbeat {
        mistakes.check(&["heartbeat", "event"], room::server_event(&heartbeat.event));
        mistakes.check(&["heartbeat", "answer"], event::client_event(&heartbeat.answer));
        if heartbeat.timeout.is_zero() {
            mistakes.add(&["heartbeat", "timeout"], "expected a time longer than zero");
        }
        if settings
            .on
            .iter()
            .any(|rule| rule.events.contains(&heartbeat.answer))
        {
            mistakes.add(
                &["heartbeat", "answer"],
                "there is a rule for this event; it answers the heartbeat alone",
            );
        }
    }
}

/// Names of the events that rules, presence and errors build.
fn own_events(settings: &settings::Namespace) -> HashSet<String> {
    use settings::Action;
    let mut names: HashSet<String> = HashSet::from([settings.error_event.clone()]);
    names.extend(settings.welcome.iter().map(|emit| emit.event.clone()));
    names.extend(settings.heartbeat.iter().map(|heartbeat| heartbeat.event.clone()));
    for presence in settings.rooms.iter().filter_map(|rule| rule.presence.as_ref()) {
        names.extend(presence.joined.iter().chain(&presence.left).cloned());
    }
    for rule in &settings.on {
        for action in &rule.actions {
            match action {
                Action::Relay(relay) => match &relay.event {
                    Some(name) => names.extend([name.clone()]),
                    None => names.extend(rule.events.iter().cloned()),
                },
                Action::Reply(reply) => names.extend(reply.event.clone()),
                Action::Emit(emit) => names.extend([emit.event.clone()]),
                Action::Join(_) | Action::Leave(_) | Action::Forward(_) => {}
            }
        }
    }
    names
}
