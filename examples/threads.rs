//! Plain threads that would rather wait than be refused; no runtime, no async.
//!
//! ```console
//! $ cargo run -p ledgerline-examples --example threads
//! ```
//!
//! It starts a DataStorage of its own, or takes the one at `LEDGERLINE_URL`.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use ledgerline::{Accounts, Category, Config, Envelope, Event, Outcome, Refused, Store};
use ledgerline_examples::configuration;
use serde::Serialize;

fn main() -> anyhow::Result<()> {
    let (config, own_storage) = configuration()?;
    let accounts = run(config)?;
    drop(own_storage); // not before the store is closed, which `run` does

    println!("accepted      {:>6}", accounts.accepted);
    println!("delivered     {:>6}", accounts.delivered);
    println!("dead-lettered {:>6}", accounts.dead_lettered);
    println!("dropped       {:>6}", accounts.dropped.total());
    println!("pending       {:>6}", accounts.pending);
    println!("refused       {:>6}  (not among the accepted)", accounts.refused.total());
    println!("balanced      {:>6}", accounts.is_balanced());
    Ok(())
}

/// Records from several threads, closes, and gives the last accounts.
pub(crate) fn run(mut config: Config) -> anyhow::Result<Accounts> {
    // A buffer so small that the threads fill it. The default of 64 MiB rather bridges an outage.
    config.lanes = 4;
    config.buffer_events = 1;
    config.buffer_bytes = Some(5 * 512 * 1024); // a block for each lane, and one more
    let store = Store::start(config)?;

    let recorded = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let store = store.clone(); // cheap: all clones are the same engine
                scope.spawn(move || work(&store, worker))
            })
            .collect();
        // Joins all, then gives the first refusal if there was one.
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ended.into_iter().try_for_each(|ended| match ended {
            Ok(recorded) => recorded,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });

    // Blocks until every accepted event is delivered. At the deadline what is left is dropped, and
    // the error says how much, and where it was.
    let closed = store.close(CLOSE_DEADLINE).context("not every event was delivered")?;
    recorded.context("an event was refused")?;
    Ok(closed.report.accounts)
}

/// What a step has to say for itself: any type that serialises as a JSON object.
#[derive(Serialize)]
struct Step<'a> {
    worker: u32,
    step: u32,
    action: &'a str,
    /// Only to make the events of the size that real ones have.
    notes: &'a str,
}

fn work(store: &Store, worker: u32) -> Result<(), Refused> {
    let correlation_id = format!("workflow-{worker}"); // joins the events of one story
    let notes = "restarted the pods one by one and waited for each to be ready; ".repeat(8);
    for step in 0..EVENTS_PER_THREAD {
        let step = Step { worker, step, action: "restart-pod", notes: &notes };
        // Around the payload, the envelope that services of one family share.
        let data = Envelope::new(&step)
            .with_service("workflow-runner")
            .with_operation("step")
            .with_status("completed");
        let category = Category::WorkflowExecution;
        let event = Event::new("workflow.step.completed", category, Outcome::Success)
            .with_correlation_id(&correlation_id)
            .with_actor_type("service")
            .with_actor_id("workflow-runner")
            .with_data(&data);
        // `record` would refuse at once when the buffer is full; this waits for room. An error
        // says why, and the event is not accepted.
        store.record_wait(&event, ROOM_DEADLINE)?;
    }
    Ok(())
}

pub(crate) const THREADS: u32 = 4;
pub(crate) const EVENTS_PER_THREAD: u32 = 1_500;
const ROOM_DEADLINE: Duration = Duration::from_secs(30);
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);
