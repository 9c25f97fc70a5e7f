//! From a request's body to events that are ready to be stored.
//!
//! Invariant: whatever can be refused without asking the storage is refused here, before anything
//! waits in the writer's queue. Limit: the clock is this server's; a sender's clock may differ by
//! [`FUTURE_MINUTES_MAX`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ledgerline_codec::Timestamp;
use ledgerline_codec::parse::{ParseError, ParsedEvent, Scratch, parse_batch, parse_event};
use uuid::Uuid;

use crate::fresh_id::FreshIds;
use crate::problem::{Kind, Problem};
use crate::storage::{CanonicalEvent, Digest, NewEvent, NewEvents, Parent};

/// A request that may be stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) events: NewEvents,
    /// The id of each event, in the request's order.
    pub(crate) ids: Vec<Uuid>,
    /// The first event's time.
    pub(crate) first_timestamp: Timestamp,
}

/// What later events of a request may refer to.
struct Earlier {
    digest: Digest,
    day: i64,
}

/// Prepares the body of a batch request.
pub(crate) fn batch(
    body: &[u8],
    events_max: usize,
    ids: &FreshIds,
    now: Timestamp,
) -> Result<Prepared, Problem> {
    SCRATCH.with_borrow_mut(|scratch| {
        let events = parse_batch(body, events_max, scratch).map_err(refusal)?;
        prepare(&events, body.len(), ids, now)
    })
}

/// Prepares the body of a request with one event.
pub(crate) fn single(body: &[u8], ids: &FreshIds, now: Timestamp) -> Result<Prepared, Problem> {
    SCRATCH.with_borrow_mut(|scratch| {
        let event = parse_event(body, scratch).map_err(refusal)?;
        prepare(&[event], body.len(), ids, now)
    })
}

/// The time on this server's clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).expect("a running system's clock shows a year below 10000")
}

fn prepare(
    events: &[ParsedEvent<'_>],
    body_bytes: usize,
    fresh_ids: &FreshIds,
    now: Timestamp,
) -> Result<Prepared, Problem> {
    // The canonical bytes are shorter than their JSON, but for an event that is nearly all
    // defaults.
    let mut prepared = Prepared {
        events: NewEvents {
            bytes: Vec::with_capacity(body_bytes),
            events: Vec::with_capacity(events.len()),
            repeated: 0,
        },
        ids: Vec::with_capacity(events.len()),
        first_timestamp: events.first().map_or(now, |event| event.event_timestamp),
    };
    let mut earlier = HashMap::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        check_time(index, event.event_timestamp, now)?;
        let event_id = event.event_id.unwrap_or_else(|| fresh_ids.next(now));
        prepared.ids.push(event_id);
        add(&mut prepared.events, &mut earlier, index, event, event_id)?;
    }
    Ok(prepared)
}

/// Adds an event, unless it repeats an earlier one of the request.
fn add(
    request: &mut NewEvents,
    earlier: &mut HashMap<Uuid, Earlier>,
    index: usize,
    event: &ParsedEvent<'_>,
    event_id: Uuid,
) -> Result<(), Problem> {
    let parent = event.parent_event_id.map_or(Parent::None, |id| {
        earlier.get(&id).map_or(Parent::Stored(id), |parent| Parent::InRequest { day: parent.day })
    });
    let parent_event_day = match parent {
        Parent::None => event.parent_event_date.map(day),
        _ => None,
    };
    let bytes_start = request.bytes.len();
    let canonical = CanonicalEvent { event, event_id, parent_event_day };
    let digest = canonical.append_to(&mut request.bytes);
    if event.event_id.is_some() {
        if let Some(first) = earlier.get(&event_id) {
            if first.digest != digest {
                return Err(Problem::conflict(index, event_id));
            }
            request.bytes.truncate(bytes_start);
            request.repeated += 1;
            return Ok(());
        }
        earlier.insert(event_id, Earlier { digest, day: day(event.event_timestamp) });
    }
    request.events.push(NewEvent {
        index,
        event_id,
        id_was_sent: event.event_id.is_some(),
        bytes_end: request.bytes.len(),
        digest,
        parent,
        retention_days: event.retention_days,
    });
    Ok(())
}

fn check_time(index: usize, given: Timestamp, now: Timestamp) -> Result<(), Problem> {
    let ahead = given.micros() - now.micros();
    let (reason, limit) = if ahead > FUTURE_MINUTES_MAX * MICROS_PER_MINUTE {
        ("too_new", format!("{FUTURE_MINUTES_MAX} minutes in the future"))
    } else if -ahead > PAST_DAYS_MAX * MICROS_PER_DAY {
        ("too_old", format!("{PAST_DAYS_MAX} days in the past"))
    } else {
        return Ok(());
    };
    let detail = format!("event {index}: event_timestamp {given} is more than {limit}");
    let problem = Problem::new(Kind::Validation, detail).at(index).field("event_timestamp");
    Err(problem.because(reason))
}

/// Days since 1970, UTC.
const fn day(timestamp: Timestamp) -> i64 {
    timestamp.micros().div_euclid(MICROS_PER_DAY)
}

fn refusal(error: ParseError) -> Problem {
    let detail = error.to_string();
    match error {
        ParseError::NotJson(_) => Problem::new(Kind::Validation, detail).because("not_json"),
        ParseError::WrongShape { .. } => {
            Problem::new(Kind::InvalidRequest, detail).because("wrong_shape")
        }
        ParseError::Empty => Problem::new(Kind::Validation, detail).because("empty_batch"),
        ParseError::TooMany { max, .. } => {
            Problem::new(Kind::BatchSizeExceeded, detail).because("too_many").limit(max)
        }
        ParseError::NotAnObject { index, .. } => {
            Problem::new(Kind::Validation, detail).at(index).because("not_an_object")
        }
        ParseError::Field { index, error } => Problem::invalid(index, &error),
        _ => Problem::new(Kind::Validation, detail),
    }
}

thread_local! {
    /// Parsing doesn't yield, so each worker needs one, and keeps it at its largest body's size.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An event may be stamped so far ahead of this server's clock.
const FUTURE_MINUTES_MAX: i64 = 60;

/// An event may be so old when it comes.
const PAST_DAYS_MAX: i64 = 7;

const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;
