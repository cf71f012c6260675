//! W3C trace context in the headers of whatever carries a message.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Header with the trace, the span and whether it is sampled.
pub const TRACEPARENT: &str = "traceparent";

/// Header with what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// The context of the current span.
pub fn current() -> Context {
    Span::current().context()
}

/// The context of a span.
pub fn context_of(span: &Span) -> Context {
    span.context()
}

/// Writes a context into headers; one without a trace writes none.
pub fn inject(context: &Context, set: impl FnMut(&'static str, String)) {
    TraceContextPropagator::new().inject_context(context, &mut Headers(set));
}

/// Reads a context from headers; without a valid one it has no trace.
pub fn extract<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Context {
    let found = Found {
        parent: get(TRACEPARENT),
        state: get(TRACESTATE),
    };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &found)
}

/// Makes a span, before it is entered, part of the trace of a context; without a trace it begins its own.
pub fn adopt(span: &Span, context: Context) {
    // It fails only for a span that no layer records, which has no trace to be part of.
    let _ = span.set_parent(context);
}

struct Headers<F>(F);

impl<F: FnMut(&'static str, String)> Injector for Headers<F> {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => (self.0)(TRACEPARENT, value),
            TRACESTATE if !value.is_empty() => (self.0)(TRACESTATE, value),
            _ => {}
        }
    }
}

struct Found<'a> {
    parent: Option<&'a str>,
    state: Option<&'a str>,
}

impl Extractor for Found<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.parent,
            TRACESTATE => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn pass_on(headers: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
        let context = extract(|name| {
            headers
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        });
        let mut written = BTreeMap::new();
        inject(&context, |name, value| {
            written.insert(name, value);
        });
        written
    }

    #[test]
    fn a_context_passes_through() {
        let headers = pass_on(&[(TRACEPARENT, PARENT), (TRACESTATE, "vendor=1")]);
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "vendor=1");
        assert_eq!(pass_on(&[(TRACEPARENT, PARENT)]).len(), 1);
    }

    #[test]
    fn a_bad_context_is_none() {
        let long = "0".repeat(100_000);
        for bad in [
            "",
            "00",
            "nonsense",
            "00-0-0-00",
            long.as_str(),
            &PARENT.to_uppercase(),
            "00-é-é-é",
        ] {
            assert!(
                pass_on(&[(TRACEPARENT, bad), (TRACESTATE, "a=b")]).is_empty(),
                "{bad}"
            );
        }
        assert!(pass_on(&[]).is_empty());
    }
}
