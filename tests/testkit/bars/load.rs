//! The events that bars are measured with, and threads that record them: six types to a story, as
//! `ledgerline load` has them, each event with the time of its record.
//!
//! Invariant: an event's key follows from its resource id, so that what a server stored can be
//! joined to what was recorded without the engine. Limit: [`KINDS`] types.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledgerline::{Category, Event, Json, Outcome, Refused, Store, Timestamp};

use super::ledger::Ledger;

/// Which event of the load: eight for each story, the place of its type the rest.
pub type Key = usize;

/// The type of an event, as a place in [`EVENT_TYPES`].
#[must_use]
pub fn kind_of(key: Key) -> usize {
    key % KINDS
}

/// One in so many events is bad, whatever its type: the same ones in each run.
#[must_use]
pub fn is_bad(key: Key, one_in: u64) -> bool {
    // A multiplicative hash, its upper half: neighbours are far apart.
    let hash = (key as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    hash.is_multiple_of(one_in)
}

/// What is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events per second. None: as fast as can be.
    pub rate: Option<u64>,
    /// How long.
    pub duration: Duration,
    /// The places of the types in [`EVENT_TYPES`], in the order of a story.
    pub kinds: &'static [usize],
    /// One in so many events is of the rare type instead.
    pub rare_one_in: Option<u64>,
    /// The events of so many stories at the beginning happened eight days ago.
    pub old_stories: usize,
    /// All events have one correlation id and come from one thread, instead of six to a story.
    pub is_one_story: bool,
    /// The first so many events only.
    pub events_max: u64,
}

impl Load {
    /// Six types in turn, paced.
    #[must_use]
    pub fn paced(rate: u64, duration: Duration) -> Self {
        Self {
            rate: Some(rate),
            duration,
            kinds: &SIX,
            rare_one_in: None,
            old_stories: 0,
            is_one_story: false,
            events_max: u64::MAX,
        }
    }

    /// So many events of six types, at once.
    #[must_use]
    pub fn burst(events: u64) -> Self {
        Self { rate: None, events_max: events, ..Self::paced(1, Duration::from_secs(60)) }
    }

    /// Six types in turn, as fast as can be.
    #[must_use]
    pub fn flat_out(duration: Duration) -> Self {
        Self { rate: None, ..Self::paced(1, duration) }
    }

    fn key(&self, number: u64) -> Key {
        let place = number as usize % self.kinds.len();
        let is_rare = self.rare_one_in.is_some_and(|one_in| number % one_in == one_in - 1);
        self.story(number) as usize * KINDS + if is_rare { RARE } else { self.kinds[place] }
    }

    fn story(&self, number: u64) -> u64 {
        number / self.kinds.len() as u64
    }

    /// Threads take turns with whole stories.
    fn thread(&self, number: u64) -> u64 {
        if self.is_one_story { 0 } else { self.story(number) % 2 }
    }
}

/// What was recorded.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recorded {
    /// Each accepted event with the time just before its `record`, since the fleet's start.
    pub events: Vec<(Key, Duration)>,
    /// Calls that found no room. A paced event is left out then, another one tried again.
    pub full: u64,
}

impl Recorded {
    /// Records all of the load from two threads.
    ///
    /// # Panics
    /// If an event is refused for anything but want of room.
    #[must_use]
    pub fn of(load: &Load, store: &Store, ledger: &Ledger) -> Self {
        let start_at = Instant::now();
        let parts = thread::scope(|scope| {
            let work = |producer| move || record(load, store, ledger, start_at, producer);
            let threads = [0, 1].map(|producer| scope.spawn(work(producer)));
            threads.map(|thread| thread.join().expect("a producer ends well"))
        });
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.events.extend(part.events);
            all.full += part.full;
            all
        })
    }
}

fn record(load: &Load, store: &Store, ledger: &Ledger, start_at: Instant, first: u64) -> Recorded {
    let mut recorded = Recorded::default();
    let (mut story, mut resource) = (String::new(), String::new());
    let end_at = start_at + load.duration;
    let mut numbers = (0..load.events_max).filter(|number| load.thread(*number) == first);
    let mut next = numbers.next();
    while let Some(number) = next {
        if let Some(rate) = load.rate {
            let due_at = start_at + Duration::from_nanos(number * 1_000_000_000 / rate);
            if due_at >= end_at {
                break;
            }
            thread::sleep(due_at.saturating_duration_since(Instant::now()));
        } else if Instant::now() >= end_at {
            break;
        }
        let key = load.key(number);
        story.clear();
        resource.clear();
        let told = if load.is_one_story { 0 } else { key / KINDS };
        write!(story, "rr-{told:08}").expect("a String takes any text");
        write!(resource, "bar-{key:08}").expect("a String takes any text");
        let at = ledger.now();
        let mut event = event(key, &story, &resource);
        if key / KINDS < load.old_stories {
            event = event.with_timestamp(eight_days_ago());
        }
        match store.record(&event) {
            Ok(_) => recorded.events.push((key, at)),
            Err(Refused::Full { .. }) => {
                recorded.full += 1;
                if load.rate.is_none() {
                    thread::sleep(ROOM_PAUSE);
                    continue;
                }
            }
            Err(refused) => panic!("{story}: {refused}"),
        }
        next = numbers.next();
    }
    recorded
}

fn eight_days_ago() -> Timestamp {
    let then = SystemTime::now() - Duration::from_secs(8 * 24 * 3_600);
    let micros = then.duration_since(UNIX_EPOCH).map(|since| since.as_micros() as i64);
    micros.ok().and_then(Timestamp::from_micros).expect("the clock is right")
}

fn event<'a>(key: Key, story: &'a str, resource: &'a str) -> Event<'a> {
    let kind = kind_of(key);
    let (event_type, category, data) = (EVENT_TYPES[kind], CATEGORIES[kind], &DATA[kind]);
    Event::new(event_type, category, Outcome::Success)
        .with_action("told")
        .with_correlation_id(story)
        .with_data(data)
        .with_actor_id("system:serviceaccount:monitoring:alertmanager-main")
        .with_resource_type("Signal")
        .with_resource_id(resource)
        .with_namespace("payments")
}

/// The event of the load that has this resource id; None if there is none.
pub(super) fn key_of(resource: &str) -> Option<Key> {
    let key = resource.strip_prefix("bar-")?.parse().ok()?;
    (key < KEYS_MAX).then_some(key)
}

/// Types of events: the six of a story, and a rare one.
pub const EVENT_TYPES: [&str; 7] = [
    "gateway.signal.received",
    "signalprocessing.phase.transition",
    "aianalysis.analysis.completed",
    "orchestrator.approval.requested",
    "workflowexecution.workflow.failed",
    "notification.message.sent",
    "gateway.signal.deduplicated",
];

/// The place of the rare type.
pub const RARE: usize = 6;
/// Keys of a story.
pub const KINDS: usize = 8;
/// The places of a story's types.
pub const SIX: [usize; 6] = [0, 1, 2, 3, 4, 5];

const CATEGORIES: [Category<'static>; 7] = [
    Category::Gateway,
    Category::SignalProcessing,
    Category::Analysis,
    Category::Orchestration,
    Category::WorkflowExecution,
    Category::Notification,
    Category::Gateway,
];

const DATA: [Json<&str>; 7] = [
    Json(concat!(
        r#"{"event_type":"gateway.signal.received","signal_type":"alert","namespace":"payments","#,
        r#""signal_name":"KubePodCrashLooping","fingerprint":"4be1c0a7d2f39e58"}"#
    )),
    Json(r#"{"event_type":"signalprocessing.phase.transition","phase":"Classifying"}"#),
    Json(r#"{"event_type":"aianalysis.analysis.completed","phase":"Completed"}"#),
    Json(r#"{"event_type":"orchestrator.approval.requested","reason":"production"}"#),
    Json(r#"{"event_type":"workflowexecution.workflow.failed","workflow_id":"rollback-v2"}"#),
    Json(r#"{"event_type":"notification.message.sent","channel":"slack"}"#),
    Json(r#"{"event_type":"gateway.signal.deduplicated","signal_type":"alert"}"#),
];

/// More is none of ours: it would make the books too big.
const KEYS_MAX: usize = 32 << 20;
const ROOM_PAUSE: Duration = Duration::from_micros(200);
