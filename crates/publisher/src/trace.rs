//! The publisher's part of a trace: from the way in to the store.

use carillon_protocol::headers::{Headers, name};
use carillon_service::telemetry;
use opentelemetry::trace::TraceContextExt;
use tracing::Span;

/// W3C lets a receiver drop a longer `tracestate`.
const MOST_STATE: usize = 512;

/// Makes a span part of the trace that a message carries.
pub(crate) fn join(span: &Span, headers: &Headers) {
    if headers.get(name::TRACEPARENT).is_some() {
        telemetry::adopt(span, telemetry::extract(|name| headers.get(name)));
    }
}

/// Writes a span's context for whoever comes next; without a sampled one, what came is passed on.
pub(crate) fn pass_on(span: &Span, incoming: &Headers, outgoing: &mut Headers) {
    let mut context = telemetry::context_of(span);
    if !context.span().span_context().is_sampled() {
        if incoming.get(name::TRACEPARENT).is_none() {
            return;
        }
        context = telemetry::extract(|name| incoming.get(name));
    }
    telemetry::inject(&context, |name, value| {
        if value.len() <= MOST_STATE {
            outgoing.push(name, value);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_passes_through_without_a_collector() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let incoming = Headers::new()
            .with(name::TRACEPARENT, parent)
            .with(name::TRACESTATE, "a=b");
        let span = tracing::info_span!("store");
        join(&span, &incoming);
        let mut outgoing = Headers::new();
        pass_on(&span, &incoming, &mut outgoing);
        assert_eq!(outgoing.get(name::TRACEPARENT), Some(parent));
        assert_eq!(outgoing.get(name::TRACESTATE), Some("a=b"));

        let mut outgoing = Headers::new();
        let forged = Headers::new().with(name::TRACEPARENT, "nonsense");
        pass_on(&span, &forged, &mut outgoing);
        pass_on(&span, &Headers::new(), &mut outgoing);
        assert!(outgoing.is_empty());
    }
}
