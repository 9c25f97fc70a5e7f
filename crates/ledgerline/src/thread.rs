//! What each producing thread keeps for itself.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ledgerline_core::Process;

/// A producing thread's tools. Taken out of their cell while in use, so that a `Serialize` which
/// records an event of its own meets an empty cell and gets tools of its own.
pub(crate) struct Tools {
    /// Where an event is encoded. Grows to the longest event of the thread.
    pub(crate) scratch: Vec<u8>,
    pub(crate) random: fastrand::Rng,
    /// The process that `random` was seeded in.
    process: Process,
}

impl Tools {
    /// This thread's, or new ones if they are in use or the thread is ending.
    pub(crate) fn take(process: Process) -> Box<Self> {
        let mut tools = TOOLS.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
            let scratch = Vec::with_capacity(SCRATCH_BYTES);
            Box::new(Self { scratch, random: random(fastrand::u64(..)), process })
        });
        if tools.process != process {
            // A forked child has its parent's generator, and would give its parent's ids.
            tools.random = random(tools.random.u64(..));
            tools.process = process;
        }
        tools
    }

    /// Keeps them for the thread's next event.
    pub(crate) fn put_back(self: Box<Self>) {
        let _ = TOOLS.try_with(|cell| cell.set(Some(self)));
    }
}

/// A generator that no other process has, whatever they share: a fork copies every generator there
/// is, fastrand's own included.
pub(crate) fn random(shared: u64) -> fastrand::Rng {
    let mut hasher = DefaultHasher::new();
    (shared, std::process::id(), SystemTime::now()).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}

/// The lane of the calling thread: threads are dealt out in the order of their first event.
pub(crate) fn lane(lanes: usize) -> usize {
    let number = NUMBER.try_with(|number| *number).unwrap_or_default();
    number % lanes
}

thread_local! {
    static TOOLS: Cell<Option<Box<Tools>>> = const { Cell::new(None) };
    // Relaxed: only a running number.
    static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

const SCRATCH_BYTES: usize = 4 * 1024;
