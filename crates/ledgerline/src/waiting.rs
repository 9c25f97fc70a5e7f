//! One answer from the engine's thread, for a caller that blocks or one that awaits.

use std::cell::Cell;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// Where the engine puts the answer. Dropping it tells the caller that none will come.
#[derive(Debug)]
pub(crate) enum Reply<T> {
    Blocking(mpsc::SyncSender<T>),
    Async(oneshot::Sender<T>),
    /// Nobody waits.
    Ignored,
}

impl<T> Reply<T> {
    /// Whether it is known that nobody waits any longer.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Self::Blocking(_) => false,
            Self::Async(sender) => sender.is_closed(),
            Self::Ignored => true,
        }
    }

    pub(crate) fn send(self, answer: T) {
        // A caller that has stopped waiting is no concern of the engine's.
        match self {
            Self::Blocking(sender) => drop(sender.try_send(answer)),
            Self::Async(sender) => drop(sender.send(answer)),
            Self::Ignored => {}
        }
    }
}

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The engine's thread has ended.
    Gone,
    /// It is there, and silent.
    Late,
}

/// A reply to hand to the engine, and its receiving end, for a thread that may block.
pub(crate) fn blocking<T>() -> (Reply<T>, mpsc::Receiver<T>) {
    // Not tokio's `blocking_recv`: it has no deadline, and it panics inside a runtime.
    let (sender, receiver) = mpsc::sync_channel(1);
    (Reply::Blocking(sender), receiver)
}

/// The same for a future.
pub(crate) fn awaited<T>() -> (Reply<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply::Async(sender), receiver)
}

/// Blocks for the engine's answer, which it owes by the deadline, and a second longer. On an
/// engine's own thread it doesn't wait.
pub(crate) fn wait<T>(receiver: &mpsc::Receiver<T>, deadline: Duration) -> Result<T, NoAnswer> {
    let deadline = if may_wait() { deadline.saturating_add(GRACE) } else { Duration::ZERO };
    receiver.recv_timeout(deadline).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => NoAnswer::Late,
        mpsc::RecvTimeoutError::Disconnected => NoAnswer::Gone,
    })
}

/// An engine runs on this thread, which must never wait: it would wait for itself, or keep its own
/// events waiting for another engine.
pub(crate) fn forbid() {
    IS_ENGINE.set(true);
}

/// Whether the calling thread may wait for an engine. An engine's own may not: it is in a hook, or
/// in a log writer.
pub(crate) fn may_wait() -> bool {
    !IS_ENGINE.get()
}

thread_local! {
    static IS_ENGINE: Cell<bool> = const { Cell::new(false) };
}

pub(crate) const GRACE: Duration = Duration::from_secs(1);
