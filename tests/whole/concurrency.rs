//! Many threads, and both kinds of tokio runtime: nothing is lost, doubled or stuck.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ledgerline::{CloseError, FlushError, Refused, Store};
use ledgerline_testkit::{Scripted, WAIT, assert_all_delivered, config, event};
use tokio::runtime::{Builder, Runtime};

#[test]
fn fifty_threads_lose_nothing_and_double_nothing() {
    const THREADS: u64 = 50;
    const EVENTS: u64 = 500;
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.buffer_bytes = None;
    config.buffer_events = 20_000;
    let store = Store::start(config).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..EVENTS {
                    store.record(&event(&format!("rr-{thread}-{number}"))).unwrap();
                }
            });
        }
    });
    let closed = store.close(WAIT).unwrap();
    assert_all_delivered(&closed.report.accounts, THREADS * EVENTS);
    assert_eq!(closed.report.accounts.refused.total(), 0);
    let stored = server.stored();
    assert_eq!(stored.len() as u64, THREADS * EVENTS);
    assert_eq!(server.repeats(), 0);
    let correlations: HashSet<_> = stored.iter().map(|event| &event.correlation_id).collect();
    assert_eq!(correlations.len(), stored.len(), "each event is itself");
    // Each producer's numbers have neither gaps nor repeats: nothing it emitted is missing.
    let mut producers: HashMap<&str, Vec<u64>> = HashMap::new();
    for event in &stored {
        producers.entry(&event.producer).or_default().push(event.producer_seq);
    }
    for (producer, mut numbers) in producers {
        numbers.sort_unstable();
        let first = numbers[0];
        assert!(first <= 1, "{producer} begins at {first}");
        assert!(numbers.iter().zip(first..).all(|(&number, place)| number == place), "{producer}");
    }
}

#[test]
fn recording_against_close_is_stored_or_refused_and_never_lost() {
    const PRODUCERS: u64 = 4;
    let server = Scripted::storing();
    let mut stored_before = 0;
    for round in 0..40 {
        let mut config = config(&server.url());
        config.buffer_bytes = Some((config.lanes as u64 + 1) * (512 << 10));
        let store = Store::start(config).unwrap();
        let (accepted, recorded_once) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                scope.spawn(|| {
                    loop {
                        match store.record(&event("rr-race")) {
                            Ok(_) => {
                                accepted.fetch_add(1, Ordering::Relaxed);
                                recorded_once.store(true, Ordering::Relaxed);
                            }
                            Err(Refused::Closed) => break,
                            // A full buffer is no part of this promise.
                            Err(refused) => {
                                assert!(matches!(refused, Refused::Full { .. }), "{refused}")
                            }
                        }
                    }
                });
            }
            while !recorded_once.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let closed = store.close(WAIT).unwrap();
            assert!(closed.report.accounts.is_balanced());
        });
        // Now that every producer has been refused, both sides are final.
        let accepted = accepted.into_inner();
        let accounts = store.accounts();
        assert_all_delivered(&accounts, accepted);
        assert_eq!(accounts.refused.closed, PRODUCERS, "round {round}");
        let stored = server.stored_count() as u64;
        assert_eq!(stored - stored_before, accepted, "round {round}");
        stored_before = stored;
    }
    assert_eq!(server.repeats(), 0);
}

#[test]
fn a_flush_against_close_ends_and_tells_the_truth() {
    let server = Scripted::storing();
    for round in 0..60 {
        let store = Store::start(config(&server.url())).unwrap();
        store.record(&event("rr-race")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let end = loop {
                        match store.flush(WAIT) {
                            Ok(flushed) => assert_all_delivered(&flushed.accounts, 1),
                            Err(end) => break end,
                        }
                    };
                    assert_eq!(end, FlushError::Closed, "round {round}");
                });
            }
            store.close(WAIT).unwrap();
        });
    }
}

#[test]
fn closes_from_several_threads_get_the_same_answer() {
    let server = Scripted::storing();
    for round in 0..60 {
        let store = Store::start(config(&server.url())).unwrap();
        store.record(&event("rr-race")).unwrap();
        let answers = std::thread::scope(|scope| {
            let closes = [(); 4].map(|()| scope.spawn(|| store.close(WAIT)));
            closes.map(|close| close.join().unwrap())
        });
        for answer in &answers {
            assert_ne!(answer, &Err(CloseError::Failed), "round {round}");
            assert_eq!(answer, &answers[0], "round {round}");
        }
        assert!(answers[0].is_ok(), "{answers:?}");
    }
}

#[test]
fn many_flushes_at_once_each_cover_their_own_thread() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = Duration::from_secs(600);
    let store = Store::start(config).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (store, server) = (store.clone(), &server);
            scope.spawn(move || {
                for number in 0..20 {
                    let correlation_id = format!("rr-{thread}-{number}");
                    store.record(&event(&correlation_id)).unwrap();
                    store.flush(WAIT).unwrap();
                    assert!(server.has_stored(&correlation_id), "{correlation_id}");
                }
            });
        }
    });
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 16 * 20);
}

#[test]
fn accounts_are_balanced_whenever_they_are_read() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut before = store.accounts();
            while !is_done.load(Ordering::Relaxed) {
                let now = store.accounts();
                assert!(now.is_balanced(), "{now:?}");
                assert!(now.accepted >= before.accepted && now.delivered >= before.delivered);
                before = now;
            }
        });
        for _ in 0..3_000 {
            store.record(&event("rr-1")).unwrap();
        }
        store.flush(WAIT).unwrap();
        is_done.store(true, Ordering::Relaxed);
    });
}

fn runtimes() -> [Runtime; 2] {
    let current_thread = Builder::new_current_thread().build();
    let multi_thread = Builder::new_multi_thread().worker_threads(2).build();
    [current_thread, multi_thread].map(|runtime| runtime.expect("threads to be had"))
}

#[test]
fn awaiting_works_inside_both_runtimes() {
    for runtime in runtimes() {
        let server = Scripted::storing();
        runtime.block_on(async {
            let store = Store::start(config(&server.url())).unwrap();
            let recording = tokio::spawn({
                let store = store.clone();
                async move {
                    for _ in 0..100 {
                        store.record(&event("rr-task")).unwrap();
                    }
                    store.flush_async(WAIT).await
                }
            });
            let flushed = recording.await.unwrap().unwrap();
            assert_all_delivered(&flushed.accounts, 100);
            store.record(&event("rr-last")).unwrap();
            let closed = store.close_async(WAIT).await.unwrap();
            assert_all_delivered(&closed.report.accounts, 101);
            assert_eq!(store.close_async(WAIT).await, Ok(closed));
            assert_eq!(store.flush_async(WAIT).await, Err(FlushError::Closed));
        });
        assert_eq!(server.stored_count(), 101);
    }
}

#[test]
fn blocking_works_inside_both_runtimes() {
    for runtime in runtimes() {
        let server = Scripted::storing();
        runtime.block_on(async {
            let store = Store::start(config(&server.url())).unwrap();
            store.record(&event("rr-1")).unwrap();
            assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 1);
            assert!(store.report(WAIT).is_some());
            assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 1);
        });
    }
}

#[test]
fn a_store_outlives_the_runtime_that_it_was_started_in() {
    let server = Scripted::storing();
    for runtime in runtimes() {
        let store = runtime.block_on(async { Store::start(config(&server.url())).unwrap() });
        drop(runtime);
        store.record(&event("rr-1")).unwrap();
        assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 1);
    }
}

#[test]
fn a_flush_that_nobody_awaits_still_happens() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = Duration::from_secs(600);
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let mut flush = Box::pin(store.flush_async(WAIT));
        // Polled once, so that it is under way, and dropped.
        std::future::poll_fn(|context| {
            let _ = flush.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    });
    server.wait_for_stored(1, WAIT);
}
