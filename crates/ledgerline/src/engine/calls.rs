//! Calls that wait for the engine: flush, close, report.

use std::time::Duration;

use ledgerline_core::{Outcome, SeqTargets};

use super::{Engine, Last};
use crate::error::{CloseError, FlushError, Lost, ReadyError, Unsettled};
use crate::report::{Closed, Flushed, Report};
use crate::waiting::Reply;

/// What a handle asks of the engine's thread.
#[derive(Debug)]
pub(crate) enum Command {
    Flush {
        targets: SeqTargets,
        lost_before: Lost,
        deadline: Duration,
        reply: Reply<Result<Flushed, FlushError>>,
    },
    Close {
        lost_before: Lost,
        deadline: Duration,
        reply: Reply<Result<Closed, CloseError>>,
    },
    Report(Reply<Report>),
    Ready {
        deadline: Duration,
        reply: Reply<Result<(), ReadyError>>,
    },
    /// Lost events are to be sent once more.
    Redeliver,
    /// Send what lies in the lanes without waiting for it to fall due.
    Hurry,
    /// Panic, as a defect would make it.
    #[cfg(feature = "testing")]
    Panic,
}

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    flushes: Vec<PendingFlush>,
    closing: Option<Closing>,
    /// A flush has come whose records may still lie in the lanes.
    must_take: bool,
    /// Every handle is gone: there is nobody to listen to.
    is_abandoned: bool,
    /// When to look again whether flushes wait only for what is set apart.
    next_apart_ms: u64,
    /// A close has had what is set apart tried once more.
    has_tried_apart: bool,
}

#[derive(Debug)]
struct PendingFlush {
    targets: SeqTargets,
    deadline: Duration,
    deadline_ms: u64,
    /// What had been lost before: a loss of last week is no failure of this flush.
    lost_before: Lost,
    reply: Reply<Result<Flushed, FlushError>>,
}

#[derive(Debug)]
struct Closing {
    /// Of several calls, the one with the earliest deadline decides.
    deadline: Duration,
    deadline_ms: u64,
    /// When everything is tried once more, whatever it waits for: half-way to the deadline.
    last_try_ms: Option<u64>,
    lost_before: Lost,
    replies: Vec<Reply<Result<Closed, CloseError>>>,
    result: Option<Result<Closed, CloseError>>,
}

impl Calls {
    /// Whether everything in the lanes is to be taken and sent without waiting for it to fall due.
    /// Once for each flush, not for as long as one waits: what is recorded after it has time.
    pub(super) fn wants_all(&self) -> bool {
        self.must_take || self.closing.is_some()
    }

    pub(super) fn has_flushes(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// The lanes were emptied, but for records that aren't committed yet if there `is_more`.
    pub(super) fn were_taken(&mut self, is_more: bool) {
        self.must_take &= is_more;
    }

    /// What was taken for the calls under way lies in the lanes again.
    pub(super) fn take_again(&mut self) {
        self.must_take = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// The earliest deadline.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let flushes = self.flushes.iter().map(|flush| flush.deadline_ms);
        let closing = self.closing.iter();
        let closing = closing.map(|it| it.last_try_ms.unwrap_or(it.deadline_ms));
        let apart = (self.next_apart_ms > 0).then_some(self.next_apart_ms);
        flushes.chain(closing).chain(apart).min()
    }

    /// Whether it is time for the last try before a close gives up. True once.
    pub(super) fn is_last_try(&mut self, now_ms: u64) -> bool {
        let last_try_ms = self.closing.as_mut().map(|closing| &mut closing.last_try_ms);
        last_try_ms.is_some_and(|at_ms| at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some())
    }

    /// Tells those who wait for the end what it was.
    pub(super) fn answer_closes(self, closed: &Result<Closed, CloseError>) {
        for flush in self.flushes {
            flush.reply.send(Err(FlushError::after(closed)));
        }
        for reply in self.closing.into_iter().flat_map(|closing| closing.replies) {
            reply.send(closed.clone());
        }
    }
}

impl Engine {
    pub(super) fn on_command(&mut self, command: Option<Command>) {
        let now_ms = self.clock.now_ms();
        match command {
            Some(Command::Flush { targets, lost_before, deadline, reply }) => {
                // Whoever has dropped its future waits no longer.
                self.calls.flushes.retain(|flush| !flush.reply.is_abandoned());
                if self.calls.flushes.len() >= PENDING_MAX {
                    return reply.send(Err(FlushError::Busy));
                }
                let deadline_ms = deadline_ms(now_ms, deadline);
                let flush = PendingFlush { targets, deadline, deadline_ms, lost_before, reply };
                self.calls.flushes.push(flush);
                self.calls.must_take = true;
            }
            Some(Command::Close { lost_before, deadline, reply }) => {
                self.begin_close(now_ms, lost_before, deadline, reply);
            }
            Some(Command::Report(reply)) => reply.send(self.report()),
            Some(Command::Ready { deadline, reply }) => self.await_ready(now_ms, deadline, reply),
            Some(Command::Redeliver) => self.redelivery.hurry(now_ms),
            Some(Command::Hurry) => self.calls.must_take = true,
            #[cfg(feature = "testing")]
            Some(Command::Panic) => panic!("as a test has asked"),
            None => {
                self.calls.is_abandoned = true;
                self.begin_close(now_ms, self.lost(), self.drop_timeout, Reply::Ignored);
            }
        }
    }

    fn begin_close(
        &mut self,
        now_ms: u64,
        lost_before: Lost,
        deadline: Duration,
        reply: Reply<Result<Closed, CloseError>>,
    ) {
        self.driver.close();
        self.room.give(); // Who waits for room is told that there will be none.
        let closing = self.calls.closing.get_or_insert_with(|| Closing {
            deadline,
            deadline_ms: deadline_ms(now_ms, deadline),
            last_try_ms: Some(deadline_ms(now_ms, deadline / 2)),
            lost_before,
            replies: Vec::new(),
            result: None,
        });
        if deadline_ms(now_ms, deadline) < closing.deadline_ms {
            closing.deadline = deadline;
            closing.deadline_ms = deadline_ms(now_ms, deadline);
            closing.last_try_ms = Some(deadline_ms(now_ms, deadline / 2));
        }
        closing.replies.retain(|reply| !reply.is_abandoned());
        if closing.replies.len() >= PENDING_MAX {
            return reply.send(Err(CloseError::Busy));
        }
        closing.replies.push(reply);
    }

    /// Answers the flushes whose records are settled, and those whose time is up.
    pub(super) fn answer_flushes(&mut self, now_ms: u64) {
        let looks_apart = self.looks_apart(now_ms);
        for flush in std::mem::take(&mut self.calls.flushes) {
            let apart = match self.driver.has_reached(&flush.targets) {
                true => Some(0),
                false if looks_apart => self.driver.apart_below(&flush.targets),
                false => None,
            };
            if let Some(apart) = apart {
                let answer = self.flushed(&flush, apart);
                flush.reply.send(answer);
            } else if now_ms >= flush.deadline_ms {
                let unsettled = self.unsettled(flush.deadline);
                flush.reply.send(Err(FlushError::Deadline(Box::new(unsettled))));
            } else {
                self.calls.flushes.push(flush);
            }
        }
    }

    /// Whether to look, at this moment, if what flushes wait for is set apart: each look takes as
    /// long as there are pending records.
    fn looks_apart(&mut self, now_ms: u64) -> bool {
        let is_wanted = self.calls.has_flushes() && self.driver.apart() > 0;
        if !is_wanted {
            self.calls.next_apart_ms = 0;
        }
        if !is_wanted || now_ms < self.calls.next_apart_ms {
            return false;
        }
        self.calls.next_apart_ms = now_ms + APART_INTERVAL_MS;
        true
    }

    /// Whether a close waits for nothing but what is set apart. Each of its types is tried once.
    fn is_only_apart(&mut self, now_ms: u64) -> bool {
        let apart = self.driver.apart();
        if apart == 0 || self.driver.accounts().pending != apart {
            return false;
        }
        if !std::mem::replace(&mut self.calls.has_tried_apart, true) {
            self.delivery.retry_apart();
            self.calls.next_apart_ms = now_ms; // The next turn sends them.
            return false;
        }
        !self.delivery.is_apart_busy() && !self.redelivery.is_under_way()
    }

    /// Whether a close has come to its end: everything settled, or dropped at the deadline or when
    /// nothing is left but what is set apart.
    pub(super) fn is_finished(&mut self, now_ms: u64) -> bool {
        let Some(closing) = &self.calls.closing else { return false };
        let (deadline, lost_before) = (closing.deadline, closing.lost_before);
        let is_late = now_ms >= closing.deadline_ms || self.is_only_apart(now_ms);
        let is_busy = self.driver.accounts().pending > 0 || self.redelivery.is_under_way();
        if is_busy && !is_late {
            return false;
        }
        let result = if self.driver.accounts().pending == 0 {
            self.closed(lost_before)
        } else {
            let mut unsettled = self.unsettled(deadline);
            self.delivery.abandon(Outcome::Closed);
            self.settle();
            self.abandon(Outcome::Closed);
            unsettled.accounts = self.driver.accounts();
            match self.driver.verify() {
                Ok(()) => Err(CloseError::LeftBehind(Box::new(unsettled))),
                Err(imbalance) => Err(CloseError::Imbalance(imbalance)),
            }
        };
        if let Some(closing) = &mut self.calls.closing {
            closing.result = Some(result);
        }
        true
    }

    /// What is left to be known when the engine has ended.
    pub(super) fn last(&mut self) -> Last {
        let result = self.calls.closing.as_mut().and_then(|closing| closing.result.take());
        let closed = result.unwrap_or(Err(CloseError::Failed));
        self.failsafe.tick(u64::MAX); // What it had not told yet.
        self.snapshot.queueing.finish();
        self.heart.sets_aside(self.failsafe.hook_time());
        let report = self.report();
        let accounts = report.accounts;
        let (buffered_count, written_count) = (accounts.accepted, accounts.delivered);
        let dropped_count = accounts.dropped.total() + accounts.dead_lettered;
        let failed_batch_count = report.batches.failed.total();
        match &closed {
            Ok(_) => tracing::info!(
                buffered_count,
                written_count,
                dropped_count,
                failed_batch_count,
                ?accounts,
                "audit store closed"
            ),
            Err(error) => tracing::error!(
                buffered_count,
                written_count,
                dropped_count,
                failed_batch_count,
                ?accounts,
                %error,
                "audit store closed"
            ),
        }
        if let Err(error) = &closed {
            self.failsafe.say_closed(error);
        }
        Last { closed, report: Some(report) }
    }

    fn flushed(&self, flush: &PendingFlush, apart: u64) -> Result<Flushed, FlushError> {
        self.driver.verify().map_err(FlushError::Imbalance)?;
        let lost = self.lost().since(flush.lost_before);
        if apart > 0 {
            return Err(FlushError::SetApart { events: apart, lost });
        }
        if lost.total() > 0 {
            return Err(FlushError::Lost(lost));
        }
        Ok(Flushed { accounts: self.driver.accounts() })
    }

    fn closed(&self, lost_before: Lost) -> Result<Closed, CloseError> {
        self.driver.verify().map_err(CloseError::Imbalance)?;
        let lost = self.lost().since(lost_before);
        if lost.total() > 0 {
            return Err(CloseError::Lost(lost));
        }
        Ok(Closed { report: self.report() })
    }

    fn lost(&self) -> Lost {
        Lost::of(&self.driver.accounts())
    }

    fn unsettled(&self, deadline: Duration) -> Unsettled {
        let accounts = self.driver.accounts();
        let whereabouts = self.delivery.whereabouts();
        let set_apart = self.driver.apart();
        let sent = whereabouts.in_flight + whereabouts.retrying + whereabouts.set_apart;
        Unsettled {
            deadline,
            in_flight: whereabouts.in_flight,
            retrying: whereabouts.retrying,
            // What the machine doesn't hold is still in the lanes.
            unsent: accounts.pending.saturating_sub(sent),
            set_apart,
            accounts,
        }
    }
}

fn deadline_ms(now_ms: u64, deadline: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX))
}

/// Between two looks at what is set apart.
const APART_INTERVAL_MS: u64 = 10;
/// Calls of a kind that may wait at a time.
const PENDING_MAX: usize = 1_024;
