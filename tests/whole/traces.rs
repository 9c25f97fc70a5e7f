//! The trace that the calling thread works for joins its events.

use ledgerline::testing::MemoryStorage;
use ledgerline::{Refused, TraceId, TraceIdHook};
use ledgerline_testkit::{WAIT, config, event};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{info_span, subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// As the documentation of `Config::trace_id` has it.
fn open_telemetry() -> TraceIdHook {
    TraceIdHook::new(|| {
        let context = tracing::Span::current().context();
        TraceId::from_bytes(context.span().span_context().trace_id().to_bytes())
    })
}

#[test]
fn events_carry_the_current_trace() {
    let storage = MemoryStorage::new();
    let mut config = config("http://127.0.0.1:9");
    config.trace_id = Some(open_telemetry());
    let store = storage.start_with(config).unwrap();

    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    let trace_id = subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        info_span!("request").in_scope(|| {
            store.record(&event("")).unwrap();
            info_span!("step").in_scope(|| store.record(&event("")).unwrap());
            store.record(&event("of-its-own")).unwrap();
            tracing::Span::current().context().span().span_context().trace_id().to_string()
        })
    });
    let refused = store.record(&event("")).unwrap_err();
    assert!(matches!(refused, Refused::Invalid(_)), "outside of any trace: {refused}");

    store.close(WAIT).unwrap();
    let mut ids: Vec<_> = storage.events().into_iter().map(|event| event.correlation_id).collect();
    ids.sort();
    let mut wanted = [trace_id.clone(), trace_id, "of-its-own".to_owned()];
    wanted.sort();
    assert_eq!(ids, wanted);
}

#[test]
fn a_hook_that_panics_costs_its_event_only() {
    let storage = MemoryStorage::new();
    let mut config = config("http://127.0.0.1:9");
    config.trace_id = Some(TraceIdHook::new(|| panic!("a defect of the hook")));
    let store = storage.start_with(config).unwrap();
    let record = std::panic::AssertUnwindSafe(|| store.record(&event("")));
    assert!(std::panic::catch_unwind(record).is_err());
    store.record(&event("rr-1")).unwrap();
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_eq!((accounts.delivered, accounts.refused.invalid), (1, 1), "{accounts:?}");
}
