//! Several servers behind one address: old and new ones, good and bad ones.

use std::time::Duration;

use ledgerline::Cause;

use super::{Answer, Backend, Balance, Bar, Fleet, Length, Measured, Trial};

/// How an old server answers that knows nothing of our ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// With ids of its own.
    OtherIds,
    /// Without any.
    NoIds,
}

/// One new server and three old ones: nothing is blocked, little is stored twice, and what may have
/// been is counted.
#[must_use]
pub fn mixed(balance: Balance, old: Old, length: Length) -> Bar {
    let old_answer = match old {
        Old::OtherIds => Answer::stored_under_new_ids(),
        Old::NoIds => Answer::stored_without_ids(),
    };
    let new = Backend::always(Answer::stored().after(THINKING));
    let mut backends = vec![new];
    backends.resize_with(4, || Backend::always(old_answer.clone().after(THINKING)));
    let fleet = Fleet::start(balance, backends);
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("mixed fleet, {balance:?}, {old:?}"));
    measured.check_truth(&mut bar);
    measured.check_all_delivered(&mut bar);
    let (sent_twice, stored_twice) = (measured.books.sent_twice(), measured.books.stored_twice());
    let counted = measured.accounts.possibly_duplicated;
    bar.at_most("possibly_duplicated, for events sent twice", counted, sent_twice);
    bar.at_most("stored more than once", stored_twice, measured.books.stored / 100);
    check_causes(&mut bar, &measured);
    measured.check_lateness(&mut bar, PROMPT, Duration::ZERO, |_| true);
    bar
}

/// No cause but a slow server, and the few milliseconds that it takes to connect again.
fn check_causes(bar: &mut Bar, measured: &Measured) {
    for (what, cause, limit) in [
        ("blocked, overloaded", Cause::Overloaded, 0),
        ("blocked, misrouted", Cause::Misrouted, 0),
        ("blocked, rejecting", Cause::Rejecting, 0),
        ("blocked, pool_full", Cause::PoolFull, 0),
        ("blocked, no_connection", Cause::NoConnection, CONNECTING_MS_MAX),
    ] {
        bar.at_most(what, measured.blocked_ms(cause), limit);
    }
}

/// What a bad backend does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// This status, and nothing stored.
    Status(u16),
    /// It resets the connection of each request.
    Resets,
    /// It never answers.
    Hangs,
    /// It refuses each event, without a place.
    Refuses,
}

/// One of three backends is bad from then on: every event is stored soon all the same.
#[must_use]
pub fn bad_backend(balance: Balance, bad: Bad, since: Duration, length: Length) -> Bar {
    let good = || Backend::always(Answer::stored().after(THINKING));
    let answer = move || match bad {
        Bad::Resets => Answer::reset(),
        Bad::Hangs => Answer::reset().after(FOR_EVER),
        Bad::Refuses => Answer::problem(400, "validation-error"),
        Bad::Status(401) => Answer::problem(401, "unauthorized"),
        Bad::Status(status @ (429 | 500 | 503)) => Answer::problem(status, "unavailable"),
        Bad::Status(status) => Answer::status(status),
    };
    let backend = Backend::new(move |batch| match batch.at < since {
        true => Answer::stored().after(THINKING),
        false => answer(),
    });
    let fleet = Fleet::start(balance, vec![backend, good(), good()]);
    let measured = Trial::of(&fleet, length).run(&fleet);

    let since = if since.is_zero() { "always".to_owned() } else { format!("after {since:?}") };
    let mut bar = Bar::new(format!("one of three backends: {bad:?}, {since}, {balance:?}"));
    measured.check_truth(&mut bar);
    if bad == Bad::Refuses {
        let dead = measured.accounts.dead_lettered;
        bar.at_most("dead letters", dead, DEAD_LETTERS_MAX);
        bar.equal("dropped", measured.accounts.dropped.total(), 0);
        let lateness = measured.lateness(STORED_WITHIN, Duration::ZERO, |_| true);
        bar.equal("never stored", lateness.unstored, dead);
        bar.at_most("longest time from record to storage", lateness.max, STORED_WITHIN);
        return bar;
    }
    // A hung request is known to be one at its timeout.
    let within = if bad == Bad::Hangs { REQUEST_TIMEOUT + STORED_WITHIN } else { STORED_WITHIN };
    measured.check_all_delivered(&mut bar);
    measured.check_lateness(&mut bar, within, Duration::ZERO, |_| true);
    bar
}

const FOR_EVER: Duration = Duration::from_secs(600);
/// The engine's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const DEAD_LETTERS_MAX: u64 = 20;
const THINKING: Duration = Duration::from_millis(5);
const STORED_WITHIN: Duration = Duration::from_secs(5);
/// In front of servers that are all good.
const PROMPT: Duration = Duration::from_secs(4);
const CONNECTING_MS_MAX: u64 = 100;
