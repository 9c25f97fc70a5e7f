//! The handle that callers hold.

mod inner;
mod receipts;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledgerline_codec::{Event, Uuid};
use ledgerline_core::{Accounts, Anonymous, Lanes, Process, Receipt, Refusal};
use tokio::sync::mpsc;

use self::inner::{Held, Inner, Unsent};
pub use self::receipts::Stage;
use crate::clock::Clock;
use crate::config::{Config, Oversize};
use crate::engine::{Command, Engine, Link, NotifyBell, Pulse, Shared};
use crate::error::{CloseError, FlushError, ReadyError, Refused, StartError};
use crate::health::Health;
use crate::identity::producers;
use crate::loss::LostEvent;
use crate::report::{Closed, Flushed, Report};
use crate::stderr;
use crate::waiting::{self, NoAnswer};

/// An audit engine. Cheap to clone; all clones are the same engine.
///
/// Send and Sync.
///
/// # Leaving
/// Close the store before the process ends: [`close`](Self::close) says what was not delivered, and
/// [`close_on_drop`](Self::close_on_drop) closes at the end of a scope. When the last clone is
/// dropped without that, the drop blocks until everything is delivered, at most for
/// [`drop_timeout`](Config::drop_timeout); what is left then is dropped, counted as `closed`, and
/// said event by event as any loss, on stderr if no tracing subscriber listens.
///
/// - Async callers use [`close_async`](Self::close_async): a drop blocks its executor's thread.
/// - A store in a `static` is never dropped, and `std::process::exit` drops nothing: close it.
/// - A [hook](crate::LossHook) that owns a store keeps it alive for ever; give it a channel's
///   sender instead, or close the store.
/// - Nothing is waited for while a panic unwinds, on the engine's own thread, and in a process that
///   was forked off the store's. In the first two cases the engine goes on for as long, if the
///   process lives.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Starts an engine: takes its memory, starts its thread. Connects when there is something to
    /// send, so that a server that isn't there yet is no error.
    ///
    /// # Errors
    /// [`StartError`]: an invalid field of the configuration, no memory or no thread to be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(config, Link::Http)
    }

    pub(crate) fn start_on(config: Config, link: Link) -> Result<Self, StartError> {
        config.validate()?;
        let clock = Clock::start();
        let bell = NotifyBell::default();
        let buffer_bytes = config.buffer_bytes();
        let backing = Anonymous::new(config.block_count())
            .map_err(|source| StartError::Memory { buffer_bytes, source })?;
        let (lanes, driver) = Lanes::new(Box::new(backing), config.lanes, Box::new(bell.clone()));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let shared = Shared::default();
        let (ended, latest) = (Arc::clone(&shared.ended), Arc::clone(&shared.latest));
        let lost = Arc::clone(&shared.lost);
        let (room, settled) = (Arc::clone(&shared.room), Arc::clone(&shared.settled));
        let pulse = Arc::new(Pulse::new(clock));
        let watched = Arc::clone(&pulse);
        let thread = Engine::spawn(&config, link, driver, clock, watched, bell, receiver, shared)?;
        tracing::info!(
            url = config.url,
            flush_interval_ms = config.flush_interval.as_millis() as u64,
            batch_size = config.batch_events_max,
            buffer_size = buffer_bytes / 1_024, // events of 1 KiB
            buffer_bytes,
            "audit writer started"
        );
        Ok(Self {
            inner: Arc::new(Inner {
                lanes,
                process: Process::current(),
                clock,
                producers: producers(config.producer.as_deref(), config.lanes),
                trace_id: config.trace_id,
                truncates: config.oversize == Oversize::Truncate,
                truncated: AtomicU64::new(0),
                event_age_max: config.event_age_max,
                buffer_bytes,
                drop_timeout: config.drop_timeout,
                room,
                settled,
                latest,
                lost,
                pulse,
                commands,
                ended,
                thread: Mutex::new(Some(thread)),
                #[cfg(feature = "testing")]
                wall_clock: crate::clock::SetClock::default(),
            }),
        })
    }

    /// Accepts an event, or says why not.
    ///
    /// Never waits: takes no lock and makes no system call, unless to wake an idle engine, and
    /// doesn't allocate once the thread is warm. After `Ok` the event is accepted: it will be
    /// delivered, or be found in the accounts as what became of it.
    ///
    /// An event without a time of its own has the clock's, in microseconds. If the thread's last
    /// event had the same correlation id and that time or a later one, it has the microsecond after
    /// that, less than 1 ms ahead of the clock, or else the same: sorted by time, the events that
    /// one thread records one after the other stand as they were recorded (unless the clock is set
    /// back by more than a minute: that is believed). In which order events
    /// *arrive* is not promised: batches go over several connections, and some again. A DataStorage
    /// that takes another order of arrival for tampering (Kubernaut's, in its `verify-chain`, until
    /// August 2026) finds some in any client's events.
    ///
    /// The event's id is made here, unless the event brings its own: to know it, choose it, for
    /// instance as [`new_event_id`](Self::new_event_id).
    ///
    /// # Errors
    /// [`Refused`] says why: the buffer is full, the store is closed, or the event can't be stored.
    /// It has been counted, and the caller still has the event.
    ///
    /// # Panics
    /// Only if the event's own [`EventData`](crate::EventData) panics; the event is then counted
    /// as refused.
    pub fn record(&self, event: &Event<'_>) -> Result<Receipt, Refused> {
        let inner = &*self.inner;
        if inner.is_full() {
            return Err(inner.refuse_unseen());
        }
        inner.with_record(event, |lane, record| {
            inner.lanes.record(lane, record, inner.clock.coarse_ms())
        })
    }

    /// [`record`](Self::record), but when the buffer is full, blocks until there is room, at most
    /// for `deadline`. The event's time and id are those of the call.
    ///
    /// # Errors
    /// As [`record`](Self::record); [`Refused::Full`] at the deadline, counted once.
    ///
    /// # Panics
    /// As [`record`](Self::record).
    pub fn record_wait(&self, event: &Event<'_>, deadline: Duration) -> Result<Receipt, Refused> {
        let inner = &*self.inner;
        inner.with_record(event, |lane, record| {
            let deadline = moment(deadline);
            inner.attempt(lane, record).unwrap_or_else(|| {
                let waited = inner.room.wait(deadline, || inner.attempt(lane, record));
                waited.unwrap_or_else(|| {
                    inner.lanes.count_refusal(lane, Refusal::Full);
                    Err(Refusal::Full)
                })
            })
        })
    }

    /// [`record`](Self::record), but when the buffer is full, the future waits until there is
    /// room. The event is encoded by the call itself, so the future borrows nothing, is Send, and
    /// runs on any executor; it allocates only if it has to wait.
    ///
    /// Cancel safe: dropped before it is ready, the event was not accepted, and is counted as
    /// refused for want of room.
    ///
    /// # Errors
    /// As [`record`](Self::record), but never [`Refused::Full`].
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
        async move {
            match held {
                Some(held) => held.wait().await,
                None => result,
            }
        }
    }

    /// A new id for an event, as [`record`](Self::record) would make it: for
    /// [`Event::with_id`], where the id must be known, so that other events can name this one as
    /// their parent. Sorts by time; waits for nothing.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use ledgerline::{Category, Event, Outcome, testing::MemoryStorage};
    ///
    /// let store = MemoryStorage::new().start();
    /// let parent_id = store.new_event_id();
    /// let ordered = Event::new("shop.order.placed", Category::Other("shop"), Outcome::Success);
    /// store.record(&ordered.with_correlation_id("order-7").with_id(parent_id))?;
    /// let paid = Event::new("shop.order.paid", Category::Other("shop"), Outcome::Success);
    /// store.record(&paid.with_correlation_id("order-7").with_parent_event_id(parent_id))?;
    /// # }
    /// # Ok::<(), ledgerline::Refused>(())
    /// ```
    #[must_use]
    pub fn new_event_id(&self) -> Uuid {
        self.inner.new_event_id()
    }

    /// Blocks until DataStorage says that it is ready (`GET /readyz`, any 2xx), at most for
    /// `deadline`: for a service's own readiness gate, so that it takes no work whose trail would
    /// have to wait.
    ///
    /// # Errors
    /// [`ReadyError::Deadline`] says what the last answer was.
    pub fn ready(&self, deadline: Duration) -> Result<(), ReadyError> {
        let (reply, receiver) = waiting::blocking();
        self.inner.send(Command::Ready { deadline, reply }).map_err(not_asked)?;
        waiting::wait(&receiver, deadline).unwrap_or_else(|no_answer| match no_answer {
            NoAnswer::Late => Err(ReadyError::Deadline { deadline, last: None }),
            NoAnswer::Gone => Err(ReadyError::Closed),
        })
    }

    /// [`ready`](Self::ready) as a future, for any executor. Dropping it changes nothing.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub async fn ready_async(&self, deadline: Duration) -> Result<(), ReadyError> {
        let (reply, receiver) = waiting::awaited();
        self.inner.send(Command::Ready { deadline, reply }).map_err(not_asked)?;
        receiver.await.unwrap_or(Err(ReadyError::Closed))
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
            Err(Unsent::Forked) => return Err(CloseError::Forked),
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
            Err(Unsent::Forked) => Err(CloseError::Forked),
        }
    }

    /// A guard that closes the store when it is dropped, waiting at most for `deadline`, and logs
    /// an error if something was left behind.
    pub fn close_on_drop(&self, deadline: Duration) -> CloseOnDrop {
        CloseOnDrop { store: self.clone(), deadline }
    }

    /// A consistent cut of the accounts, from any thread, at the price of some dozen loads.
    ///
    /// In a process forked off the store's: what was refused, for nothing was accepted there.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.inner.accounts()
    }

    /// The last events that were dropped or dead-lettered, the oldest first: as many as
    /// `lost_events_max` and `lost_bytes_max` of the configuration allow. None in a process forked
    /// off the store's.
    #[must_use]
    pub fn lost_events(&self) -> Vec<LostEvent> {
        if self.inner.is_forked() {
            return Vec::new(); // The engine's thread may have held the lock, for ever in a child.
        }
        self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner).events()
    }

    /// Sends the dead letters among the [lost events](Self::lost_events) once more, with their own
    /// ids, and dropped ones that were refused when that was done with them: for when it was
    /// DataStorage that was wrong about them. Returns how many there are.
    ///
    /// What is stored then is counted as `redelivered`, and its copy removed; what is refused again
    /// stays. Events that were dropped need no call: they are sent once more by themselves, when
    /// DataStorage takes events again. Never blocks. After `close`, nothing is sent.
    pub fn resend_dead_letters(&self) -> usize {
        if self.inner.is_forked() {
            return 0;
        }
        let mut lost = self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let events = lost.resend_dead_letters();
        drop(lost);
        let _ = self.inner.send(Command::Redeliver); // If it has ended, there is nobody to send.
        events
    }

    /// How many events were recorded, or tried to be, with less than they had, because something in
    /// them was too long ([`Oversize::Truncate`]).
    #[must_use]
    pub fn truncated_events(&self) -> u64 {
        self.inner.truncated.load(Ordering::Relaxed)
    }

    /// For how long the engine's thread has been overdue at whatever it had to do next. Zero: less
    /// than 20 ms, or the engine has ended, or is another process's. For health checks: more than
    /// some seconds is a host without processor time, or a defect. From any thread, at the price of
    /// a clock.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.inner.silence()
    }

    /// How the store is, for probes and dashboards. From any thread, at the price of some dozen
    /// loads, a clock and a lock that is never held for long.
    ///
    /// ```
    /// fn is_trail_kept(store: &ledgerline::Store) -> bool {
    ///     let health = store.health();
    ///     health.is_running && health.is_available() && health.silence.as_secs() < 5
    /// }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        let inner = &*self.inner;
        if inner.is_forked() {
            return Health::default();
        }
        let accounts = self.accounts();
        let mut health = Health {
            is_running: inner.ended.get().is_none(),
            queued_by_server: accounts.queued_by_server,
            pending: accounts.pending,
            silence: self.silence(),
            ..Health::default()
        };
        if let Some(report) = &*inner.latest.lock().unwrap_or_else(PoisonError::into_inner) {
            health.unavailable = report.present.unavailable;
            health.is_queueing = report.present.is_queueing;
            health.set_apart.clone_from(&report.set_apart);
            health.oldest_pending = Duration::from_millis(report.present.oldest_pending_ms);
        }
        health
    }

    /// The engine's last report, without asking for a new one: at most a second old while the
    /// engine lives. None before the first, and in a process forked off the store's. Never blocks
    /// for longer than a copy takes.
    #[must_use]
    pub fn latest_report(&self) -> Option<Report> {
        if self.inner.is_forked() {
            return None;
        }
        self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Accounts, percentiles and counts as the engine's thread has them, or None if it doesn't
    /// answer within `deadline` and a second. After `close`, the last ones.
    #[must_use]
    pub fn report(&self, deadline: Duration) -> Option<Report> {
        let (reply, receiver) = waiting::blocking();
        if self.inner.send(Command::Report(reply)).is_ok()
            && let Ok(report) = waiting::wait(&receiver, deadline)
        {
            return Some(report);
        }
        self.inner.ended.get()?.report.clone()
    }
}

#[cfg(feature = "testing")]
impl Store {
    pub(crate) fn send(&self, command: Command) -> bool {
        self.inner.send(command).is_ok()
    }

    pub(crate) fn wall_clock(&self) -> &crate::clock::SetClock {
        &self.inner.wall_clock
    }
}

fn not_asked(unsent: Unsent) -> ReadyError {
    match unsent {
        Unsent::Busy => ReadyError::Busy,
        Unsent::Ended => ReadyError::Closed,
        Unsent::Forked => ReadyError::Forked,
    }
}

/// When a call that begins now has waited for so long.
fn moment(deadline: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(deadline).unwrap_or_else(|| now + FAR_AWAY)
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
        // A forked child's copy of the guard is not what the store waits for.
        if let Err(error) = self.store.close(self.deadline)
            && error != CloseError::Forked
        {
            tracing::error!(%error, "audit store closed with events left behind");
            let line = format_args!("audit store closed with events left behind: {error}");
            stderr::say_if_unheard(&line);
        }
    }
}

/// Calls that may wait for the engine's thread at a time.
const COMMANDS_MAX: usize = 1_024;
/// A deadline further away than the clock can say.
const FAR_AWAY: Duration = Duration::from_secs(1 << 32);
