//! The last resort of what must be said: where no tracing subscriber listens, stderr.
//!
//! Invariant: no caller waits for stderr longer than [`FINISH_TIMEOUT`]. It may be a pipe that
//! nobody reads, so a thread of its own writes to it, and is left behind if a write doesn't return.
//!
//! Limit: [`LINES_MAX`] lines wait for the writer. More are refused, and their caller counts them.

use std::fmt::Display;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use tracing::Level;

/// Lines to stderr. The thread that writes them is made for the first one.
#[derive(Debug, Default)]
pub(crate) struct Stderr(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Unused,
    Writing {
        lines: SyncSender<String>,
        /// Closed when the thread ends.
        end: mpsc::Receiver<()>,
    },
    /// No thread can be made, or the writes fail.
    Broken,
}

/// Whether a tracing subscriber, or with the feature `log` a logger, takes the errors that this
/// thread logs.
pub(crate) fn is_heard() -> bool {
    #[cfg(feature = "log")]
    if !tracing::dispatcher::has_been_set() {
        return log::log_enabled!(target: TARGET, log::Level::Error);
    }
    tracing::enabled!(target: TARGET, Level::ERROR)
}

/// Says one line on stderr if no tracing subscriber listens; waits at most for
/// [`FINISH_TIMEOUT`].
pub(crate) fn say_if_unheard(line: &dyn Display) {
    if !is_heard() {
        let mut stderr = Stderr::default();
        stderr.write(format!("{line}\n"));
        stderr.finish();
    }
}

impl Stderr {
    /// Hands a line, with its end, to the writer. False: it won't be written.
    pub(crate) fn write(&mut self, line: String) -> bool {
        if let State::Unused = self.0 {
            self.0 = spawn().unwrap_or(State::Broken);
        }
        let State::Writing { lines, .. } = &self.0 else { return false };
        match lines.try_send(line) {
            Ok(()) => true,
            Err(mpsc::TrySendError::Full(_)) => false,
            Err(mpsc::TrySendError::Disconnected(_)) => {
                self.0 = State::Broken;
                false
            }
        }
    }

    /// Waits until everything is written, at most for [`FINISH_TIMEOUT`].
    pub(crate) fn finish(&mut self) {
        if let State::Writing { lines, end } = std::mem::take(&mut self.0) {
            drop(lines);
            let ended = end.recv_timeout(FINISH_TIMEOUT);
            debug_assert_ne!(ended, Ok(()), "nothing is ever sent");
            if ended == Err(RecvTimeoutError::Timeout) {
                self.0 = State::Broken;
            }
        }
    }
}

fn spawn() -> io::Result<State> {
    let (lines, waiting) = mpsc::sync_channel::<String>(LINES_MAX);
    let (alive, end) = mpsc::sync_channel::<()>(0);
    let write = move || {
        let _alive = alive;
        while let Ok(line) = waiting.recv() {
            if write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("ledgerline-stderr".into()).spawn(write)?;
    Ok(State::Writing { lines, end })
}

/// Past the standard library's lock: should this write never return, other threads must not wait
/// for it.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(io::stderr(), bytes).map_err(io::Error::from) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Of the lines that tell of lost events.
pub(crate) const TARGET: &str = "ledgerline::failsafe";
const LINES_MAX: usize = 256;
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
const FULL_PAUSE: Duration = Duration::from_millis(5);
