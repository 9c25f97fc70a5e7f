//! What callers do with events: build them, hold them, queue them, name them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ledgerline::testing::{MemoryStorage, stop_wall_clock};
use ledgerline::{
    Category, Config, Envelope, Event, Field, Json, Outcome, Oversize, OwnedEvent, Problem,
    Refused, Store, Timestamp,
};
use ledgerline_testkit::{Scripted, WAIT, config, event, serve};
use serde_json::json;
use tokio::runtime::Builder;

/// A handler that records, awaits something, and still has its event.
async fn handle(store: Store, name: String) {
    let payload = json!({"name": name});
    let data = Envelope::new(&payload).with_service("gateway").with_status("ok");
    let event = Event::new("gateway.received", Category::Gateway, Outcome::Success)
        .with_correlation_id(&name)
        .with_data(&data);
    store.record_async(&event).await.expect("there is room");
    tokio::task::yield_now().await;
    store.record(&event).expect("there is room");
}

#[test]
fn a_spawned_future_may_hold_an_event_across_an_await() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handler = runtime.spawn(handle(store.clone(), "rr-1".to_owned()));
    runtime.block_on(handler).unwrap();
    store.flush(WAIT).unwrap();
    assert_eq!(server.stored().len(), 2);
}

#[test]
fn data_at_hand_is_recorded_without_a_binding() {
    let server = serve();
    let store = Store::start(config(&server.url())).unwrap();
    let new = |id| {
        Event::new("gateway.received", Category::Gateway, Outcome::Success).with_correlation_id(id)
    };
    store.record(&new("rr-none")).unwrap();
    store.record(&new("rr-value").with_data(&json!({"n": 1}))).unwrap();
    store.record(&new("rr-map").with_data(&BTreeMap::from([("n", 2)]))).unwrap();
    store.record(&new("rr-owned").with_data(&Json(format!("{{\"n\":{}}}", 3)))).unwrap();
    store.record(&new("rr-text").with_data(&Json("{\"n\":4}"))).unwrap();
    store.flush(WAIT).unwrap();
    let wanted = ["{}", r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#"{"n":4}"#];
    let ids = ["rr-none", "rr-value", "rr-map", "rr-owned", "rr-text"];
    for (id, data) in ids.into_iter().zip(wanted) {
        let row = server.one(id);
        assert_eq!(row.raw("event_data"), Some(data));
        assert_eq!(row.text("event_action"), "received", "the last part of the type");
    }
}

#[test]
fn json_passed_as_a_plain_text_is_refused_with_advice() {
    let store = Store::start(config("http://127.0.0.1:9")).unwrap();
    let text = "{}".to_owned();
    let refused = store.record(&event("rr-1").with_data(&text)).unwrap_err();
    assert!(refused.to_string().contains("passed as Json(text)"), "{refused}");
}

#[test]
fn an_owned_event_passes_through_a_queue_to_the_server() {
    let server = serve();
    let store = Store::start(config(&server.url())).unwrap();
    let event = event("rr-queued").with_data(&Json(r#"{"n" : 1.50}"#)).with_severity("info");
    let queued = serde_json::to_string(&OwnedEvent::try_from(&event).unwrap()).unwrap();
    let owned: OwnedEvent = serde_json::from_str(&queued).unwrap();
    store.record(&owned.as_event().with_actor_id("worker")).unwrap();
    store.flush(WAIT).unwrap();
    let row = server.one("rr-queued");
    assert_eq!(row.raw("event_data"), Some(r#"{"n" : 1.50}"#));
    assert_eq!([row.text("severity"), row.text("actor_id")], ["info", "worker"]);
}

#[test]
fn any_well_formed_category_is_recorded_and_no_other() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let with = |category| {
        Event::new("a.b", Category::Other(category), Outcome::Success).with_correlation_id("rr-1")
    };
    store.record(&with("billing")).unwrap();
    for given in ["", "Billing", "a b", "\"", "x".repeat(51).as_str()] {
        let Err(Refused::Invalid(error)) = store.record(&with(given)) else { panic!("{given}") };
        assert_eq!(error.field, Field::EventCategory);
        assert!(matches!(error.problem, Problem::NotACategory { .. }), "{error}");
    }
    store.flush(WAIT).unwrap();
    let text = &server.requests().remove(0).text;
    assert!(text.contains(r#""event_category":"billing""#), "{text}");
}

#[test]
fn an_event_names_its_parent_by_the_id_that_its_caller_chose() {
    let server = serve();
    let store = Store::start(config(&server.url())).unwrap();
    let id = store.new_event_id();
    assert_ne!(id, store.new_event_id());
    store.record(&event("rr-parent").with_id(id)).unwrap();
    store.flush(WAIT).unwrap();
    store.record(&event("rr-child").with_parent_event_id(id)).unwrap();
    store.flush(WAIT).unwrap();
    assert_eq!(server.one("rr-parent").text("event_id"), id.to_string());
    assert_eq!(server.one("rr-child").text("parent_event_id"), id.to_string());
}

#[test]
fn what_is_too_long_is_refused_or_cut_as_the_store_is_told() {
    let server = serve();
    let mut config = config(&server.url());
    let strict = Store::start(config.clone()).unwrap();
    config.oversize = Oversize::Truncate;
    let store = Store::start(config).unwrap();
    let path = "/a".repeat(150);
    let data = json!({"path": "x".repeat(300_000)});
    let long = event("rr-long").with_resource_id(&path);
    strict.record(&long).unwrap_err();
    store.record(&long).unwrap();
    let large = event("rr-large").with_data(&data);
    strict.record(&large).unwrap_err();
    store.record(&large).unwrap();
    let nul = event("rr-nul").with_actor_id("a\0b");
    strict.record(&nul).unwrap_err();
    store.record(&nul).unwrap();
    store.record(&event("rr-whole")).unwrap();
    assert_eq!((store.truncated_events(), strict.truncated_events()), (3, 0));
    assert_eq!((store.accounts().refused.total(), strict.accounts().refused.invalid), (0, 3));
    store.record(&event("")).unwrap_err();
    store.flush(WAIT).unwrap();
    let kept = server.one("rr-long").text("resource_id");
    assert_eq!(kept, format!("{}\u{2026}", &path[..254]));
    let not_kept = r#""not_kept":"has 300011 bytes, the limit is 262144"}"#;
    assert!(server.one("rr-large").raw("event_data").unwrap().ends_with(not_kept));
    assert_eq!(server.one("rr-nul").text("actor_id"), "a\u{2026}");
    assert_eq!(server.one("rr-whole").text("correlation_id"), "rr-whole");
}

#[test]
fn an_event_of_data_and_error_that_are_too_long_together_is_cut() {
    let server = serve();
    let mut config = config(&server.url());
    config.oversize = Oversize::Truncate;
    let store = Store::start(config).unwrap();
    let data = json!({"a": "x".repeat(262_136)});
    let error = "\u{1}".repeat(65_536);
    store.record(&event("rr-1").with_data(&data).with_error_message(&error)).unwrap();
    store.flush(WAIT).unwrap();
    let kept = server.one("rr-1").text("error_message");
    assert_eq!((kept.chars().count(), kept.ends_with('\u{2026}')), (4_096, true));
    assert_eq!(store.truncated_events(), 1);
}

#[test]
fn a_missing_correlation_id_is_refused_with_advice() {
    let store = Store::start(config("http://127.0.0.1:9")).unwrap();
    let refused = store.record(&Event::new("a.b", Category::Gateway, Outcome::Success));
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("correlation_id is empty: give all events of one story"), "{message}");
}

#[test]
fn an_event_older_than_the_store_is_told_to_take_is_refused_and_counted() {
    let (old, young) = (now_and(-3_601_000_000), now_and(-3_500_000_000));
    let mut config = config("http://127.0.0.1:9");
    let lenient = Store::start(config.clone()).unwrap();
    let max = Duration::from_secs(3_600);
    config.event_age_max = Some(max);
    let store = Store::start(config).unwrap();
    let refused = store.record(&event("rr-1").with_timestamp(old)).unwrap_err();
    let Refused::TooOld { age, max: told } = refused else { panic!("{refused}") };
    assert!(age > max && told == max, "{age:?}");
    assert_eq!((store.accounts().refused.invalid, store.accounts().accepted), (1, 0));
    store.record(&event("rr-1").with_timestamp(young)).unwrap();
    store.record(&event("rr-1").with_timestamp(now_and(3_600_000_000))).unwrap();
    store.record(&event("rr-1")).unwrap();
    lenient.record(&event("rr-1").with_timestamp(old)).unwrap();
}

/// A store on a memory with room for all that these tests record.
fn roomy() -> (MemoryStorage, Store) {
    let storage = MemoryStorage::new();
    let mut config = Config::new("http://memory.invalid");
    config.buffer_bytes = Some(64 << 20);
    let store = storage.start_with(config).expect("a valid configuration");
    (storage, store)
}

/// The timestamps of what is stored, by correlation id, in the order of recording.
fn told(storage: &MemoryStorage, store: &Store) -> BTreeMap<String, Vec<i64>> {
    store.flush(WAIT).expect("a memory stores everything");
    let mut told = BTreeMap::<_, Vec<_>>::new();
    for event in storage.events() {
        told.entry(event.correlation_id).or_default().push(event.event_timestamp.micros());
    }
    told
}

#[test]
fn no_two_events_of_a_story_have_one_timestamp() {
    for stands_still in [false, true] {
        let (storage, store) = roomy();
        if stands_still {
            stop_wall_clock(&store, now_and(0));
        }
        for number in 0..60_000 {
            store.record(&event(&format!("rr-{}", number / 6))).unwrap();
        }
        let told = told(&storage, &store);
        assert_eq!(told.len(), 10_000);
        for (story, stamps) in told {
            assert!(stamps.len() == 6 && stamps.is_sorted_by(|a, b| a < b), "{story}: {stamps:?}");
        }
    }
}

#[test]
fn one_story_flat_out_is_never_a_millisecond_ahead_and_never_goes_back() {
    let (storage, store) = roomy();
    let began = now_and(0);
    let stop_at = |micros| {
        let at = Timestamp::from_micros(began.micros() + micros);
        stop_wall_clock(&store, at.expect("nowhere near the year 9999"));
    };
    stop_at(0);
    for _ in 0..2_000 {
        store.record(&event("rr-long")).unwrap();
    }
    stop_at(-1_000_000);
    store.record(&event("rr-long")).unwrap();
    stop_at(1);
    store.record(&event("rr-long")).unwrap();
    let mut wanted: Vec<_> = (0..1_000).collect();
    wanted.resize(2_001, 999);
    wanted.push(1_000);
    let stamps = told(&storage, &store).remove("rr-long").unwrap();
    let ahead: Vec<_> = stamps.iter().map(|stamp| stamp - began.micros()).collect();
    assert_eq!(ahead, wanted);
}

#[test]
fn what_comes_between_makes_no_two_events_of_a_story_equal() {
    let (storage, store) = roomy();
    stop_wall_clock(&store, now_and(0));
    let own = now_and(-3_600_000_000);
    let story = event("rr-\"quoted\"");
    for _ in 0..20 {
        store.record(&story).unwrap();
        store.record(&story.with_severity(&"x".repeat(21))).unwrap_err();
        store.record(&story).unwrap();
        store.record(&event("rr-own").with_timestamp(own)).unwrap();
    }
    let told = told(&storage, &store);
    let stamps = &told["rr-\"quoted\""];
    assert!(stamps.len() == 40 && stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    assert_eq!(told["rr-own"], [own.micros(); 20]);
}

/// The clock's reading, and so many microseconds.
fn now_and(micros: i64) -> Timestamp {
    let now = Timestamp::from(SystemTime::now());
    Timestamp::from_micros(now.micros() + micros).expect("nowhere near the year 9999")
}
