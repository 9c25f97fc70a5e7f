//! SIGTERM and SIGINT: the first asks to stop, the second to wait for nothing more, the third ends
//! the process at once.
//!
//! Invariant: from [`Interrupt::watch`] on, the first signal only sets a flag that whoever works
//! looks at; after the second the command still says what became of everything. Limit: a process
//! has one watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Exit, runtime};

/// Whether the process was asked to stop.
#[derive(Debug)]
pub(crate) struct Interrupt {
    is_asked: Arc<AtomicBool>,
    asked: Receiver<()>,
}

impl Interrupt {
    /// Catches the signals from now on. At the second one `hurry` is called, on a thread of its
    /// own; at the third the process ends.
    pub(crate) fn watch(hurry: impl FnOnce() + Send + 'static) -> anyhow::Result<Self> {
        let runtime = runtime::current_thread().context("no runtime for signals")?;
        let context = runtime.enter();
        let terminate = signal(SignalKind::terminate()).context("SIGTERM can't be caught")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be caught")?;
        drop(context);

        let is_asked = Arc::new(AtomicBool::new(false));
        let (ask, asked) = mpsc::channel();
        let flag = Arc::clone(&is_asked);
        let run = move || {
            let mut signals = (terminate, interrupt);
            runtime.block_on(next(&mut signals));
            // Relaxed: the flag says nothing about other memory.
            flag.store(true, Ordering::Relaxed);
            eprintln!("stopping; a second signal waits for nothing more, a third ends it at once");
            // Fails only if nobody waits for it.
            ask.send(()).ok();
            runtime.block_on(next(&mut signals));
            let hurry = thread::Builder::new().name("hurry".to_owned()).spawn(hurry);
            if let Err(error) = hurry {
                eprintln!("error: no thread to hurry: {error}");
            }
            runtime.block_on(next(&mut signals));
            std::process::exit(Exit::Failed as i32);
        };
        thread::Builder::new().name("signals".to_owned()).spawn(run).context("no thread")?;
        Ok(Self { is_asked, asked })
    }

    /// The flag, for threads that look at it between events.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.is_asked
    }

    /// Blocks until the first signal.
    pub(crate) fn wait(&self) {
        // The sender lives until the process ends, so that only a signal ends this.
        self.asked.recv().ok();
    }
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
