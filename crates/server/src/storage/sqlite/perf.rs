use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use super::*;
use crate::metrics::Metrics;
use crate::fresh_id::FreshIds;
use crate::ingest;
use ledgerline_codec::Timestamp;

fn body(first: u64, n: u64, micros: i64, corr_seed: u64) -> String {
    let ids = FreshIds::default();
    let mut s = String::from("[");
    for i in 0..n {
        let number = first + i;
        if i > 0 { s.push(','); }
        let t = Timestamp::from_micros(micros + number as i64 * 10).unwrap();
        let mut text = Vec::new(); t.append_to(&mut text);
        let text = String::from_utf8(text).unwrap();
        let corr = (corr_seed.wrapping_add(number / 6)).wrapping_mul(0x9E3779B97F4A7C15) ;
        let typ = ["gateway.signal.received","gateway.crd.created","orchestrator.lifecycle.started","notification.message.sent","workflowexecution.workflow.started","aianalysis.analysis.completed"][(number % 6) as usize];
        let cat = ["gateway","gateway","orchestration","notification","workflowexecution","analysis"][(number % 6) as usize];
        s.push_str(&format!("{{\"event_id\":\"{}\",\"producer\":\"pod-abc/0\",\"producer_seq\":{number},\"version\":\"1.0\",\"event_type\":\"{typ}\",\"event_timestamp\":\"{text}\",\"event_category\":\"{cat}\",\"event_action\":\"received\",\"event_outcome\":\"success\",\"correlation_id\":\"rr-{corr:016x}-1767571200\",\"actor_type\":\"service\",\"actor_id\":\"{cat}-controller\",\"resource_type\":\"Signal\",\"resource_id\":\"{corr:016x}\",\"namespace\":\"payments\",\"event_data\":{{\"event_type\":\"{typ}\",\"phase\":\"Classifying\",\"signal\":\"KubePodCrashLooping\",\"from_phase\":\"Enriching\",\"to_phase\":\"Classifying\",\"pad\":\"{}\"}}}}", ids.next(t), "x".repeat(80)));
    }
    s.push(']');
    s
}

#[test]
#[ignore]
fn writer_rate() {
    let directory = tempfile::tempdir_in("/work").unwrap();
    let path = directory.path().join("events.db");
    let connection = open_for_writing(&path).unwrap();
    let drop_index = std::env::var("DROP").unwrap_or_default();
    if !drop_index.is_empty() { for i in drop_index.split(',') { connection.execute_batch(&format!("DROP INDEX {i}")).unwrap(); } }
    let metrics = Metrics::new();
    let rounds: u64 = std::env::var("ROUNDS").map_or(10, |r| r.parse().unwrap());
    let (queue, received) = mpsc::channel(64);
    let m = metrics.writes.clone();
    let producer = std::thread::spawn(move || {
        let ids = FreshIds::default();
        let now = ingest::now();
        let mut times = vec![];
        let mut prep = std::time::Duration::ZERO;
        for round in 0..rounds {
            // prepared ahead so that only the writer runs
            let mut groups = Vec::new();
            for r in 0..50u64 {
                let mut group = vec![];
                for k in 0..8u64 {
                    let first = round * 200_000 + r * 4_000 + k * 500;
                    let b = body(first, 500, now.micros(), 77);
                    let s = Instant::now();
                    let p = ingest::batch(b.as_bytes(), 500, &ids, Timestamp::from_micros(now.micros() + first as i64 * 10).unwrap()).unwrap();
                    prep += s.elapsed();
                    group.push(p.events);
                }
                groups.push(group);
            }
            let started = Instant::now();
            let mut last = None;
            for group in groups {
                let mut answers = vec![];
                for events in group {
                    let (answer, answered) = oneshot::channel();
                    m.queued.inc();
                    queue.blocking_send(Some(Write { events, answer })).unwrap();
                    answers.push(answered);
                }
                if let Some(l) = last.take() { for a in l { let a: oneshot::Receiver<Result<Written, WriteError>> = a; a.blocking_recv().unwrap().unwrap(); } }
                last = Some(answers);
            }
            for a in last.unwrap() { a.blocking_recv().unwrap().unwrap(); }
            times.push(200_000. / started.elapsed().as_secs_f64() / 1000.);
        }
        println!("prepare {} ns/event", prep.as_nanos() / (rounds as u128 * 200_000));
        times
    });
    Writer::new(&connection, metrics.writes.clone(), 500).unwrap().run(received);
    let cpu = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    println!("writer cpu ns/row {}", cpu.split(' ').next().unwrap().parse::<u64>().unwrap() / (rounds * 200_000));
    let times = producer.join().unwrap();
    println!("k rows/s {:?}", times.iter().map(|t| t.round()).collect::<Vec<_>>());
    for l in metrics.text().lines().filter(|l| l.contains("_sum") || l.contains("_count")) { println!("{l}"); }
    let size = std::fs::metadata(&path).unwrap().len();
    println!("bytes/row {}", size / (rounds * 200_000));
}
