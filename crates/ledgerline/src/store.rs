//! The handle that callers hold.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledgerline_codec::{Event, Identity, encode};
use ledgerline_core::{Accounts, Anonymous, Lanes, RECORD_BYTES_MAX, Receipt, Refusal};
use tokio::sync::mpsc;

use crate::clock::{Clock, wall_clock};
use crate::config::Config;
use crate::engine::{ABANDONED_DEADLINE, Command, Ended, Engine, NotifyBell, Shared};
use crate::error::{CloseError, FlushError, Lost, Reason, Refused, StartError};
use crate::identity::{event_id, producers};
use crate::report::{Closed, Flushed, Report};
use crate::room::Room;
use crate::thread::{self, Tools};
use crate::waiting::{self, NoAnswer, Reply};

/// An audit engine. Cheap to clone; all clones are the same engine.
///
/// Send and Sync. When the last clone is dropped without [`close`](Self::close), the engine goes on
/// for up to 30 s to deliver what it holds, as long as the process lives: prefer to close, or hold
/// [`close_on_drop`](Self::close_on_drop).
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    lanes: Lanes,
    clock: Clock,
    /// Per lane, what its events carry as `producer`.
    producers: Box<[Box<str>]>,
    buffer_bytes: u64,
    /// For those who wait for room.
    room: Arc<Room>,
    commands: mpsc::Sender<Command>,
    /// What `close` answers once the engine has ended.
    ended: Arc<Ended>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Starts an engine: takes its memory, starts its thread. Connects when there is something to
    /// send, so that a server that isn't there yet is no error.
    ///
    /// # Errors
    /// [`StartError`]: an invalid field of the configuration, or no thread to be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let clock = Clock::start();
        let bell = NotifyBell::default();
        let backing = Box::new(Anonymous::new(config.block_count()));
        let (lanes, driver) = Lanes::new(backing, config.lanes, Box::new(bell.clone()));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let ended = Arc::new(OnceLock::new());
        let room = Arc::new(Room::default());
        let shared = Shared { ended: Arc::clone(&ended), room: Arc::clone(&room) };
        let thread = Engine::spawn(&config, driver, clock, bell, receiver, shared)?;
        tracing::info!(
            url = config.url,
            buffer_bytes = config.buffer_bytes(),
            batch_events_max = config.batch_events_max,
            flush_interval_ms = config.flush_interval.as_millis() as u64,
            "audit store started"
        );
        Ok(Self {
            inner: Arc::new(Inner {
                lanes,
                clock,
                producers: producers(config.producer.as_deref(), config.lanes),
                buffer_bytes: config.buffer_bytes(),
                room,
                commands,
                ended,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Accepts an event, or says why not.
    ///
    /// Never waits: takes no lock and makes no system call, unless to wake an idle engine, and
    /// doesn't allocate once the thread is warm. After `Ok` the event is accepted: it will be
    /// delivered, or be found in the accounts as what became of it.
    ///
    /// # Errors
    /// [`Refused`], with the event's correlation id: the buffer is full, the store is closed, or
    /// the event can't be stored. It has been counted, and the caller still has the event.
    ///
    /// # Panics
    /// Only if the event's own [`EventData`](crate::EventData) panics; the event is then counted
    /// as refused.
    pub fn record(&self, event: &Event<'_>) -> Result<Receipt, Refused> {
        let inner = &*self.inner;
        let result = inner.with_record(event, |lane, record| {
            inner.lanes.record(lane, record, inner.clock.coarse_ms())
        });
        result.map_err(|reason| refused(event, reason))
    }

    /// [`record`](Self::record), but when the buffer is full, blocks until there is room, at most
    /// for `deadline`. The event's time and id are those of the call.
    ///
    /// # Errors
    /// As [`record`](Self::record); [`Reason::Full`] at the deadline, counted once.
    ///
    /// # Panics
    /// As [`record`](Self::record).
    pub fn record_wait(&self, event: &Event<'_>, deadline: Duration) -> Result<Receipt, Refused> {
        let inner = &*self.inner;
        let result = inner.with_record(event, |lane, record| {
            let deadline = Instant::now().checked_add(deadline).unwrap_or_else(far_away);
            inner.attempt(lane, record).unwrap_or_else(|| {
                let waited = inner.room.wait(deadline, || inner.attempt(lane, record));
                waited.unwrap_or_else(|| {
                    inner.lanes.count_refusal(lane, Refusal::Full);
                    Err(Refusal::Full)
                })
            })
        });
        result.map_err(|reason| refused(event, reason))
    }

    /// [`record`](Self::record), but when the buffer is full, the future waits until there is
    /// room. The event is encoded by the call itself, so the future borrows nothing, is Send, and
    /// runs on any executor; it allocates only if it has to wait.
    ///
    /// Cancel safe: dropped before it is ready, the event was not accepted, and is counted as
    /// refused for want of room.
    ///
    /// # Errors
    /// As [`record`](Self::record), but never [`Reason::Full`].
    ///
    /// # Panics
    /// As [`record`](Self::record).
    pub fn record_async(
        &self,
        event: &Event<'_>,
    ) -> impl Future<Output = Result<Receipt, Refused>> + Send + use<> {
        let inner = &*self.inner;
        let mut held = None;
        let result = inner.with_record(event, |lane, record| {
            inner.attempt(lane, record).unwrap_or_else(|| {
                held = Some(Held { inner: Arc::clone(&self.inner), lane, record: record.into() });
                Err(Refusal::Full)
            })
        });
        let result = result.map_err(|reason| refused(event, reason));
        async move {
            match (held, result) {
                (Some(held), Err(mut refused)) => held.wait().await.map_err(|reason| {
                    refused.reason = reason;
                    refused
                }),
                (_, result) => result,
            }
        }
    }

    /// Blocks until every event accepted before this call is settled, at most for `deadline`.
    ///
    /// Accepted before: by this thread, or by another whose `record` happened before this call.
    /// Batches that wait for a retry are waited for; no pause is cut short.
    ///
    /// # Errors
    /// [`FlushError::Deadline`] says where the events are; they will still be sent.
    pub fn flush(&self, deadline: Duration) -> Result<Flushed, FlushError> {
        let (reply, receiver) = waiting::blocking();
        self.inner.send_flush(deadline, reply)?;
        waiting::wait(&receiver, deadline).unwrap_or_else(|no_answer| match no_answer {
            NoAnswer::Late => Err(FlushError::Unresponsive { deadline }),
            NoAnswer::Gone => Err(self.inner.flush_after_end()),
        })
    }

    /// [`flush`](Self::flush) as a future, for any executor. Dropping it changes nothing: the
    /// flush still happens. The engine's thread keeps the deadline: this future has no timer of
    /// its own, and never says [`FlushError::Unresponsive`].
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn flush_async(&self, deadline: Duration) -> Result<Flushed, FlushError> {
        let (reply, receiver) = waiting::awaited();
        self.inner.send_flush(deadline, reply)?;
        receiver.await.unwrap_or_else(|_| Err(self.inner.flush_after_end()))
    }

    /// Refuses events from now on, and blocks until all accepted ones are settled, at most for
    /// `deadline`; what is left then is dropped, and counted as `dropped.closed`. Calling it again
    /// gives the same answer.
    ///
    /// # Errors
    /// [`CloseError::LeftBehind`] says how much was dropped, and where it was.
    pub fn close(&self, deadline: Duration) -> Result<Closed, CloseError> {
        let (reply, receiver) = waiting::blocking();
        let sent = self.inner.send_close(deadline, reply);
        let answer = match sent {
            Ok(()) => waiting::wait(&receiver, deadline),
            Err(Unsent::Ended) => Err(NoAnswer::Gone),
            Err(Unsent::Busy) => return Err(CloseError::Busy),
        };
        match answer {
            Ok(result) => {
                self.inner.join();
                result
            }
            Err(NoAnswer::Late) => Err(CloseError::Unresponsive { deadline }),
            Err(NoAnswer::Gone) => self.inner.end(),
        }
    }

    /// [`close`](Self::close) as a future, for any executor. Dropping it changes nothing: the
    /// store still closes. The engine's thread keeps the deadline, as for `flush_async`.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub async fn close_async(&self, deadline: Duration) -> Result<Closed, CloseError> {
        let (reply, receiver) = waiting::awaited();
        match self.inner.send_close(deadline, reply) {
            Ok(()) => receiver.await.unwrap_or_else(|_| self.inner.end()),
            Err(Unsent::Ended) => self.inner.end(),
            Err(Unsent::Busy) => Err(CloseError::Busy),
        }
    }

    /// A guard that closes the store when it is dropped, waiting at most for `deadline`, and logs
    /// an error if something was left behind.
    pub fn close_on_drop(&self, deadline: Duration) -> CloseOnDrop {
        CloseOnDrop { store: self.clone(), deadline }
    }

    /// A consistent cut of the accounts, from any thread, at the price of some dozen loads.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.inner.lanes.accounts()
    }

    /// Accounts, percentiles and counts as the engine's thread has them, or None if it doesn't
    /// answer within `deadline` and a second. After `close`, the last ones.
    #[must_use]
    pub fn report(&self, deadline: Duration) -> Option<Report> {
        let (reply, receiver) = waiting::blocking();
        if self.inner.commands.try_send(Command::Report(reply)).is_ok()
            && let Ok(report) = waiting::wait(&receiver, deadline)
        {
            return Some(report);
        }
        self.inner.ended.get()?.report.clone()
    }
}

/// A command that could not be handed to the engine.
enum Unsent {
    Busy,
    Ended,
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
    /// Encodes the event in the thread's scratch, and hands the record to `hand_in`.
    fn with_record(
        &self,
        event: &Event<'_>,
        hand_in: impl FnOnce(usize, &[u8]) -> Result<Receipt, Refusal>,
    ) -> Result<Receipt, Reason> {
        let lane = thread::lane(self.producers.len());
        let mut tools = Tools::take();
        tools.scratch.clear();
        let result = self
            .encode(lane, event, &mut tools)
            .and_then(|()| hand_in(lane, &tools.scratch).map_err(|refusal| self.reason(refusal)));
        tools.put_back();
        result
    }

    fn reason(&self, refusal: Refusal) -> Reason {
        match refusal {
            Refusal::Full => Reason::Full { buffer_bytes: self.buffer_bytes },
            Refusal::Closed => Reason::Closed,
        }
    }

    /// Hands in a record; None if there is no room. Counts a refusal, unless it is for that.
    fn attempt(&self, lane: usize, record: &[u8]) -> Option<Result<Receipt, Refusal>> {
        match self.lanes.try_record(lane, record, self.clock.coarse_ms()) {
            Err(Refusal::Full) => None,
            Err(refusal) => {
                self.lanes.count_refusal(lane, refusal);
                Some(Err(refusal))
            }
            accepted => Some(accepted),
        }
    }

    /// Encodes the event into the scratch.
    fn encode(&self, lane: usize, event: &Event<'_>, tools: &mut Tools) -> Result<(), Reason> {
        let now = wall_clock();
        let identity = Identity {
            event_id: event_id(now, tools.random.u64(..)),
            producer: &self.producers[lane],
            producer_seq: self.lanes.next_producer_seq(lane),
            now,
        };
        // The only place where a caller's code runs: nothing is reserved or held yet.
        let encoded =
            catch_unwind(AssertUnwindSafe(|| encode(event, &identity, &mut tools.scratch)));
        let encoded = encoded.unwrap_or_else(|panic| {
            self.lanes.count_invalid(lane);
            std::panic::resume_unwind(panic)
        });
        encoded.map_err(|error| {
            self.lanes.count_invalid(lane);
            Reason::Invalid(error)
        })?;
        if tools.scratch.len() > RECORD_BYTES_MAX {
            self.lanes.count_too_large(lane);
            return Err(Reason::TooLarge { bytes: tools.scratch.len(), max: RECORD_BYTES_MAX });
        }
        Ok(())
    }

    fn send_flush(
        &self,
        deadline: Duration,
        reply: Reply<Result<Flushed, FlushError>>,
    ) -> Result<(), FlushError> {
        let lost_before = Lost::of(&self.lanes.accounts());
        let targets = self.lanes.seq_targets();
        let command = Command::Flush { targets, lost_before, deadline, reply };
        self.commands.try_send(command).map_err(|error| match Unsent::from(error) {
            Unsent::Busy => FlushError::Busy,
            Unsent::Ended => self.flush_after_end(),
        })
    }

    fn send_close(
        &self,
        deadline: Duration,
        reply: Reply<Result<Closed, CloseError>>,
    ) -> Result<(), Unsent> {
        let lost_before = Lost::of(&self.lanes.accounts());
        Ok(self.commands.try_send(Command::Close { lost_before, deadline, reply })?)
    }

    /// What a flush is told when the engine has ended.
    fn flush_after_end(&self) -> FlushError {
        if self.ended.get().is_some() { FlushError::Closed } else { FlushError::Failed }
    }

    /// The engine's last answer.
    fn end(&self) -> Result<Closed, CloseError> {
        self.ended.get().map_or(Err(CloseError::Failed), |last| last.closed.clone())
    }

    /// Waits for the engine's thread, which has given its last answer.
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the audit engine's thread panicked after its last answer");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let command = Command::Close {
            lost_before: Lost::default(),
            deadline: ABANDONED_DEADLINE,
            reply: Reply::Ignored,
        };
        // If it can't be sent, the engine has ended, or the closed channel will tell it.
        let _ = self.commands.try_send(command);
    }
}

/// A record that waits for room. Dropped before it got any, it is a refused one.
struct Held {
    inner: Arc<Inner>,
    lane: usize,
    /// Empty once its end is known.
    record: Box<[u8]>,
}

impl Held {
    async fn wait(mut self) -> Result<Receipt, Reason> {
        let Self { inner, lane, record } = &self;
        let result = inner.room.wait_async(|| inner.attempt(*lane, record)).await;
        let result = result.map_err(|refusal| inner.reason(refusal));
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

/// A deadline further away than the clock can say.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(1 << 32)
}

#[cold]
fn refused(event: &Event<'_>, reason: Reason) -> Refused {
    Refused {
        reason,
        event_type: event.event_type.into(),
        correlation_id: event.correlation_id.into(),
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("accounts", &self.accounts()).finish_non_exhaustive()
    }
}

/// Closes its store when it is dropped. Bind it to a name: bound to `_` it closes at once.
#[must_use = "the store is closed as soon as the guard is dropped"]
#[derive(Debug)]
pub struct CloseOnDrop {
    store: Store,
    deadline: Duration,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Err(error) = self.store.close(self.deadline) {
            tracing::error!(%error, "audit store closed with events left behind");
        }
    }
}

/// Calls that may wait for the engine's thread at a time.
const COMMANDS_MAX: usize = 1_024;
