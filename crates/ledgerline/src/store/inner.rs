//! What all clones of a store share, and the way from an event to its record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledgerline_codec::{
    EncodeError, Encoded, Event, Identity, Timestamp, Uuid, encode, encode_fitted,
};
use ledgerline_core::{Accounts, Lanes, Process, RECORD_BYTES_MAX, Receipt, Refusal};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::engine::{Command, Ended, LostRing, Pulse};
use crate::error::{CloseError, FlushError, Lost, Refused};
use crate::identity::event_id;
use crate::report::{Closed, Flushed, Report};
use crate::signal::Signal;
use crate::stderr;
use crate::thread::{self, Tools};
use crate::trace::{TraceId, TraceIdHook};
use crate::waiting::{self, Reply};

pub(crate) struct Inner {
    pub(super) lanes: Lanes,
    /// The one that the engine's thread is in.
    pub(super) process: Process,
    pub(super) clock: Clock,
    /// Per lane, what its events carry as `producer`.
    pub(super) producers: Box<[Box<str>]>,
    /// Whether what is too long is cut.
    pub(super) truncates: bool,
    /// Events of which something was cut. Relaxed: only a count.
    pub(super) truncated: AtomicU64,
    /// How old an event may be by its own timestamp.
    pub(super) event_age_max: Option<Duration>,
    pub(super) buffer_bytes: u64,
    /// How long the last handle's drop waits.
    pub(super) drop_timeout: Duration,
    /// For those who wait for room.
    pub(super) room: Arc<Signal>,
    /// For those who wait for what becomes of a record.
    pub(super) settled: Arc<Signal>,
    pub(super) latest: Arc<Mutex<Option<Report>>>,
    pub(super) lost: Arc<Mutex<LostRing>>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) trace_id: Option<TraceIdHook>,
    pub(super) commands: mpsc::Sender<Command>,
    /// What `close` answers once the engine has ended.
    pub(super) ended: Arc<Ended>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    #[cfg(feature = "testing")]
    pub(super) wall_clock: crate::clock::SetClock,
}

/// A command that could not be handed to the engine.
pub(super) enum Unsent {
    Busy,
    Ended,
    Forked,
}

impl<T> From<mpsc::error::TrySendError<T>> for Unsent {
    fn from(error: mpsc::error::TrySendError<T>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Busy,
            mpsc::error::TrySendError::Closed(_) => Self::Ended,
        }
    }
}

impl Inner {
    pub(super) fn silence(&self) -> Duration {
        let is_here = Process::current() == self.process;
        if is_here { self.pulse.silence() } else { Duration::ZERO }
    }

    /// Whether the calling thread's event would find no room, whatever it is.
    pub(super) fn is_full(&self) -> bool {
        // In this order: the first is false on the common path.
        self.lanes.is_starving()
            && Process::current() == self.process
            && self.lanes.is_full(thread::lane(self.producers.len()))
    }

    /// Refuses an event for want of room without having looked at it: a full buffer costs callers
    /// no encoding.
    #[cold]
    pub(super) fn refuse_unseen(&self) -> Refused {
        let lane = thread::lane(self.producers.len());
        let _ = self.lanes.next_producer_seq(lane); // The event's number, which nobody will see.
        self.lanes.count_refusal(lane, Refusal::Full);
        self.refused(Refusal::Full)
    }

    /// Encodes the event in the thread's scratch, and hands the record to `hand_in`.
    pub(super) fn with_record(
        &self,
        event: &Event<'_>,
        hand_in: impl FnOnce(usize, &[u8]) -> Result<Receipt, Refusal>,
    ) -> Result<Receipt, Refused> {
        let lane = thread::lane(self.producers.len());
        let process = Process::current();
        if process != self.process {
            self.lanes.count_refusal(lane, Refusal::Forked);
            return Err(Refused::Forked);
        }
        let mut tools = Tools::take(process);
        self.lanes.expect_record(lane, tools.scratch.len()); // as long as the thread's last one
        if let Err(refused) = self.encode(lane, event, &mut tools) {
            tools.put_back();
            return Err(refused);
        }
        // In this order, so that the result is written once: a copy of it would have to wait until
        // the record's bytes have left the processor's store buffer.
        let accepted = hand_in(lane, &tools.scratch);
        tools.put_back();
        accepted.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Full => Refused::Full { buffer_bytes: self.buffer_bytes },
            Refusal::Closed => Refused::Closed,
            Refusal::Failed => Refused::Failed,
            Refusal::Forked => Refused::Forked,
        }
    }

    /// Hands in a record; None if there is no room. Counts a refusal, unless it is for that.
    pub(super) fn attempt(&self, lane: usize, record: &[u8]) -> Option<Result<Receipt, Refusal>> {
        if self.is_forked() {
            // A future may be polled in a child.
            self.lanes.count_refusal(lane, Refusal::Forked);
            return Some(Err(Refusal::Forked));
        }
        match self.lanes.try_record(lane, record, self.clock.coarse_ms()) {
            Err(Refusal::Full) => None,
            Err(refusal) => {
                self.lanes.count_refusal(lane, refusal);
                Some(Err(refusal))
            }
            accepted => Some(accepted),
        }
    }

    /// Encodes the event into the scratch, without a correlation id as one of the current trace.
    #[inline(always)]
    fn encode(&self, lane: usize, event: &Event<'_>, tools: &mut Tools) -> Result<(), Refused> {
        // On the common path nothing is copied.
        let (mut digits, traced);
        let event = match &self.trace_id {
            Some(hook) if event.correlation_id.is_empty() => {
                digits = None;
                traced = self.traced(lane, event, hook, &mut digits);
                &traced
            }
            _ => event,
        };
        let now = tools.stamp(self.wall_clock(), event.correlation_id);
        tools.scratch.clear();
        tools.overwritten();
        let identity = Identity {
            event_id: event_id(now, tools.random.u64(..)),
            producer: &self.producers[lane],
            producer_seq: self.lanes.next_producer_seq(lane),
            now,
        };
        if let Some(given) = event.event_timestamp {
            self.check_age(lane, given, now)?;
        }
        let encoded = match self.run(lane, || encode(event, &identity, &mut tools.scratch)) {
            Ok(encoded) if tools.scratch.len() <= RECORD_BYTES_MAX => encoded,
            unfit => self.fit_or_refuse(lane, event, &identity, unfit, &mut tools.scratch)?,
        };
        if event.event_timestamp.is_none() {
            tools.stamped(now, encoded.correlation_id_at, event.correlation_id.len());
        }
        Ok(())
    }

    /// The event as one of the current trace, if there is one.
    #[inline(never)]
    fn traced<'a>(
        &self,
        lane: usize,
        event: &Event<'a>,
        hook: &TraceIdHook,
        digits: &'a mut Option<[u8; 32]>,
    ) -> Event<'a> {
        *digits = self.run(lane, || hook.call()).map(TraceId::digits);
        let id = digits.as_ref().and_then(|digits| std::str::from_utf8(digits).ok());
        event.with_correlation_id(id.unwrap_or_default())
    }

    /// Encodes what can be stored of an event that can't be stored as it is, or refuses it.
    #[cold]
    #[inline(never)]
    fn fit_or_refuse(
        &self,
        lane: usize,
        event: &Event<'_>,
        identity: &Identity<'_>,
        unfit: Result<Encoded, EncodeError>,
        scratch: &mut Vec<u8>,
    ) -> Result<Encoded, Refused> {
        let encoded = if self.truncates {
            scratch.clear();
            self.run(lane, || encode_fitted(event, identity, RECORD_BYTES_MAX, scratch))
        } else {
            unfit
        };
        let encoded = encoded.map_err(|error| {
            self.lanes.count_invalid(lane);
            Refused::Invalid(error)
        })?;
        if scratch.len() > RECORD_BYTES_MAX {
            self.lanes.count_too_large(lane);
            return Err(Refused::TooLarge { bytes: scratch.len(), max: RECORD_BYTES_MAX });
        }
        self.truncated.fetch_add(1, Ordering::Relaxed);
        Ok(encoded)
    }

    pub(super) fn new_event_id(&self) -> Uuid {
        let mut tools = Tools::take(Process::current());
        let id = event_id(self.wall_clock(), tools.random.u64(..));
        tools.put_back();
        id
    }

    #[cold]
    fn check_age(&self, lane: usize, given: Timestamp, now: Timestamp) -> Result<(), Refused> {
        let Some(max) = self.event_age_max else { return Ok(()) };
        let age = u64::try_from(now.micros() - given.micros()).unwrap_or_default();
        let age = Duration::from_micros(age);
        if age > max {
            self.lanes.count_invalid(lane);
            return Err(Refused::TooOld { age, max });
        }
        Ok(())
    }

    /// Runs a caller's code, and counts its event as refused if that panics. Nothing is reserved or
    /// held yet.
    fn run<T>(&self, lane: usize, code: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| {
            self.lanes.count_invalid(lane);
            std::panic::resume_unwind(panic)
        })
    }

    #[cfg(not(feature = "testing"))]
    fn wall_clock(&self) -> Timestamp {
        crate::clock::wall_clock()
    }

    #[cfg(feature = "testing")]
    fn wall_clock(&self) -> Timestamp {
        self.wall_clock.read()
    }

    /// Hands a command to the engine's thread, which is in this process only.
    pub(super) fn send(&self, command: Command) -> Result<(), Unsent> {
        if self.is_forked() {
            return Err(Unsent::Forked);
        }
        Ok(self.commands.try_send(command)?)
    }

    /// Whether this process was forked off the store's.
    pub(super) fn is_forked(&self) -> bool {
        Process::current() != self.process
    }

    pub(super) fn accounts(&self) -> Accounts {
        if self.is_forked() {
            // The blocks aren't here: a child doesn't get them.
            let mut accounts = Accounts::default();
            accounts.refused = self.lanes.refused();
            return accounts;
        }
        self.lanes.accounts()
    }

    pub(super) fn send_flush(
        &self,
        deadline: Duration,
        reply: Reply<Result<Flushed, FlushError>>,
    ) -> Result<(), FlushError> {
        if self.is_forked() {
            return Err(FlushError::Forked);
        }
        let lost_before = Lost::of(&self.lanes.accounts());
        let targets = self.lanes.seq_targets();
        let command = Command::Flush { targets, lost_before, deadline, reply };
        self.send(command).map_err(|unsent| match unsent {
            Unsent::Busy => FlushError::Busy,
            Unsent::Ended => self.flush_after_end(),
            Unsent::Forked => FlushError::Forked,
        })
    }

    pub(super) fn send_close(
        &self,
        deadline: Duration,
        reply: Reply<Result<Closed, CloseError>>,
    ) -> Result<(), Unsent> {
        let lost_before = Lost::of(&self.accounts());
        self.send(Command::Close { lost_before, deadline, reply })
    }

    /// What a flush is told when the engine has ended.
    pub(super) fn flush_after_end(&self) -> FlushError {
        self.ended.get().map_or(FlushError::Failed, |last| FlushError::after(&last.closed))
    }

    /// The engine's last answer.
    pub(super) fn end(&self) -> Result<Closed, CloseError> {
        self.ended.get().map_or(Err(CloseError::Failed), |last| last.closed.clone())
    }

    /// Waits for the engine's thread, which has given its last answer.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A hook may close the store: its thread can't wait for its own end.
        if let Some(thread) = thread.filter(|_| waiting::may_wait())
            && thread.join().is_err()
        {
            tracing::error!("the audit engine's thread panicked after its last answer");
        }
    }

    /// Every handle is gone, and the engine knows: waits until it has delivered what it holds, or
    /// has said what it drops.
    fn leave(&self) {
        if !waiting::may_wait() {
            return;
        }
        let has_ended = || self.ended.get().map(drop);
        if std::thread::panicking() {
            let pending = self.lanes.accounts().pending;
            if has_ended().is_none() && pending > 0 {
                let time = self.drop_timeout;
                let left = format_args!(
                    "audit store dropped in a panic, not waited for: {pending} events are \
                     delivered only if this process lives for up to {time:?}"
                );
                tracing::error!("{left}");
                stderr::say_if_unheard(&left);
            }
            return;
        }
        let patience = self.drop_timeout.saturating_add(waiting::GRACE);
        if self.settled.wait(Instant::now() + patience, has_ended).is_some() {
            return self.join();
        }
        let pending = self.lanes.accounts().pending;
        let stuck = format_args!(
            "audit store dropped, and its engine did not end within {patience:?}: {pending} events \
             are held"
        );
        tracing::error!("{stuck}");
        stderr::say_if_unheard(&stuck);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_forked() {
            // The engine's thread isn't here, and its handle may be another thread's by now.
            let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            return std::mem::forget(thread);
        }
        // The channel's end tells the engine that there is nobody left.
        drop(std::mem::replace(&mut self.commands, mpsc::channel(1).0));
        self.leave();
    }
}

/// A record that waits for room. Dropped before it got any, it is a refused one.
pub(super) struct Held {
    pub(super) inner: Arc<Inner>,
    pub(super) lane: usize,
    /// Empty once its end is known.
    pub(super) record: Box<[u8]>,
}

impl Held {
    pub(super) async fn wait(mut self) -> Result<Receipt, Refused> {
        let Self { inner, lane, record } = &self;
        let result = inner.room.wait_async(|| inner.attempt(*lane, record)).await;
        let result = result.map_err(|refusal| inner.refused(refusal));
        self.record = Box::default();
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.record.is_empty() {
            self.inner.lanes.count_refusal(self.lane, Refusal::Full);
        }
    }
}
