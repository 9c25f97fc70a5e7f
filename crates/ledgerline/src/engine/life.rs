//! The engine's thread from its first turn to its last answer, panics included.
//!
//! A panic is a defect of ours, and no reason to lose what the blocks still hold: the driver's
//! notes are made anew from them, what isn't settled is sent again, and the calls under way go on.
//! Three times; what panics once more is no accident, and then everything that is left is given up,
//! counted as such, and events are refused.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use ledgerline_core::{Outcome, REBUILDS_MAX};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::{Command, Ended, Engine, LaneWatch, Last, NotifyBell};
use crate::error::CloseError;
use crate::waiting;

/// The runtime that the engine's thread turns in, and nobody else.
pub(super) fn runtime() -> io::Result<Runtime> {
    // With the feature `signal`, which another crate may switch on, tokio panics instead of saying
    // that it got no file descriptor.
    let spare: Vec<_> =
        (0..RUNTIME_FILES.div_ceil(2)).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    drop(spare);
    let build = || {
        Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(RESOLVER_THREADS_MAX)
            .build()
    };
    // Other threads may have opened files meanwhile.
    catch_unwind(build).unwrap_or_else(|_| Err(io::Error::other("tokio panicked")))
}

impl Engine {
    /// Runs to the end, and leaves the last answer.
    pub(super) fn live(
        mut self,
        first_runtime: Runtime,
        bell: &NotifyBell,
        mut commands: mpsc::Receiver<Command>,
        ended: &Ended,
    ) {
        waiting::forbid();
        let mut next_runtime = Ok(first_runtime);
        let last = loop {
            let Ok(runtime) = next_runtime else { break self.fail() };
            let run = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(self.run(bell, &mut commands));
                self.last()
            }));
            // Ends the connections, and with them the loans; doesn't wait for a resolver that
            // hangs.
            runtime.shutdown_background();
            if let Ok(last) = run {
                break last;
            }
            if self.restarts == RESTARTS_MAX || !self.restart() {
                break self.fail();
            }
            next_runtime = self::runtime();
        };
        self.heart.stops();
        let replies = std::mem::take(&mut self.calls);
        let closed = last.closed.clone();
        if let Some(report) = &last.report {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Some(report.clone());
        }
        let _ = ended.set(last);
        self.room.give();
        self.settled.give();
        replies.answer_closes(&closed);
        // Only now: who finds the channel closed, or its call dropped, finds the last answer.
        commands.close();
        while commands.blocking_recv().is_some() {}
        self.failsafe.finish();
    }

    /// Begins anew from what the blocks hold; false if that can't be done either.
    fn restart(&mut self) -> bool {
        self.restarts += 1;
        let restart = catch_unwind(AssertUnwindSafe(|| {
            self.wires.clear();
            self.readiness.disconnect();
            self.redelivery.disconnect();
            self.delivery.restart(self.clock.now_ms());
            let sent_again = self.driver.rebuild();
            if !self.delivery.is_idempotent() {
                self.driver.count_possibly_duplicated(sent_again);
            }
            self.lanes = LaneWatch::Until(0);
            self.calls.take_again();
            self.has_news = true; // What was settled before the panic may not have been told.
            // In here, because a panic may have come from whoever writes the log.
            let restarts = self.restarts;
            tracing::error!(restarts, sent_again, "the audit engine panicked, and goes on");
        }));
        restart.is_ok()
    }

    /// No event is accepted any more, what is left is given up, and nobody is told that all is
    /// well.
    fn fail(&mut self) -> Last {
        self.driver.fail();
        let given_up = catch_unwind(AssertUnwindSafe(|| {
            self.driver.rebuild();
            self.driver.close();
            self.abandon(Outcome::GaveUp)
        }));
        let report = catch_unwind(AssertUnwindSafe(|| self.report())).ok();
        let accounts = report.as_ref().map(|report| report.accounts);
        let given_up = given_up.ok();
        let _ = catch_unwind(|| {
            tracing::error!(
                ?given_up,
                ?accounts,
                "the audit engine has failed, and refuses events"
            );
        });
        Last { closed: Err(CloseError::Failed), report }
    }
}

/// File descriptors that a runtime opens when it is made, at most.
const RUNTIME_FILES: usize = 8;
/// Threads that look up the server's name, which may hang.
const RESOLVER_THREADS_MAX: usize = 4;
/// And once more to give up.
const RESTARTS_MAX: u32 = REBUILDS_MAX - 1;
