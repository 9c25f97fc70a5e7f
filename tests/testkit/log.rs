//! The process's log, for tests that read it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What was logged at debug level and above, as lines of text.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes the log of this process for itself.
    ///
    /// # Panics
    /// If the process's log is taken already.
    #[must_use]
    pub fn take() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
        lines.with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }

    /// The log of this process, empty, for one test at a time: as long as it holds the guard.
    ///
    /// # Panics
    /// If the process's log is taken already, but not by this.
    pub fn alone() -> (MutexGuard<'static, ()>, Self) {
        static LOG: OnceLock<Log> = OnceLock::new();
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let log = LOG.get_or_init(Self::take);
        log.clear();
        (alone, log.clone())
    }

    /// All of it so far.
    ///
    /// # Panics
    /// If it isn't text.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("a log is text")
    }

    /// Forgets what there is.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until these words are in it.
    ///
    /// # Panics
    /// If they aren't by the deadline.
    #[track_caller]
    pub fn wait_for(&self, words: &str, deadline: Duration) {
        let until = Instant::now() + deadline;
        while !self.text().contains(words) {
            assert!(Instant::now() < until, "no {words:?} in\n{}", self.text());
            std::thread::yield_now();
        }
    }
}

/// Listens to the log of this process and forgets it, unless somebody listens already: else losses,
/// of which many tests have some, would be said on stderr.
pub(crate) fn ignore() {
    let lines =
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR);
    let _ = lines.with_writer(io::sink).try_init();
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
