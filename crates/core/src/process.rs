//! Which process this is, at the price of one load.
//!
//! A forked child has a copy of everything but the threads: an engine in it would accept records
//! that nobody ever sends. One page that the kernel wipes in a child says so; see `MADV_WIPEONFORK`
//! in madvise(2). The page is read by every record and written once per process, so that its line
//! stays shared between all cores.
//!
//! Limit: elsewhere than on Linux a child is not noticed.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "reads a word of mapped memory, and advises the kernel on it")
)]

use crate::sync::{KernelWord, OnceLock, Ordering};

/// Tells a process from those forked off it. Equal values: the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(u64);

impl Process {
    /// This process.
    ///
    /// ```
    /// use ledgerline_core::Process;
    ///
    /// assert_eq!(Process::current(), Process::current());
    /// ```
    #[must_use]
    pub fn current() -> Self {
        let Some(page) = PAGE.get_or_init(Page::map) else { return Self(0) };
        // Relaxed: the number is all there is; nothing is published through it.
        match page.number().load(Ordering::Relaxed) {
            0 => page.renew(),
            number => Self(number),
        }
    }
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Page(memmap2::MmapRaw);

#[cfg(target_os = "linux")]
impl Page {
    /// None where the kernel doesn't know how (before 4.14).
    fn map() -> Option<Self> {
        let page = memmap2::MmapMut::map_anon(size_of::<KernelWord>()).ok()?;
        let page = memmap2::MmapRaw::from(page);
        let wipe = rustix::mm::Advice::LinuxWipeOnFork;
        // SAFETY: the range is the mapping's own; the advice changes nothing in this process.
        unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), wipe) }.ok()?;
        Some(Self(page))
    }

    fn number(&self) -> &KernelWord {
        // SAFETY: the mapping is at least as long as the word, begins at a page, lives as long as
        // self, and is used as nothing but this atomic.
        unsafe { KernelWord::from_ptr(self.0.as_mut_ptr().cast()) }
    }

    /// The first look in a new process gives it its number.
    #[cold]
    fn renew(&self) -> Process {
        // The counter is copied by a fork, so that a child's number is none of its ancestors'.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let relaxed = Ordering::Relaxed;
        Process(match self.number().compare_exchange(0, number, relaxed, relaxed) {
            Ok(_) => number,
            Err(other) => other,
        })
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Page;

#[cfg(not(target_os = "linux"))]
impl Page {
    fn map() -> Option<Self> {
        None
    }

    fn number(&self) -> &KernelWord {
        &NEXT
    }

    fn renew(&self) -> Process {
        Process(0)
    }
}

static PAGE: OnceLock<Option<Page>> = OnceLock::new();
static NEXT: KernelWord = KernelWord::new(1);
