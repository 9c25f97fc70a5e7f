//! Small tokio runtimes, for threads of the command's own.
//!
//! Invariant: where the process may open no more files, that is an error. Limit: another thread
//! that opens files at the same moment can still make tokio panic.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::runtime::{Builder, Runtime};

/// A runtime for the calling thread, with I/O and time.
pub(crate) fn current_thread() -> io::Result<Runtime> {
    // tokio's signals panic instead of saying that they got no file descriptor.
    let spare: Vec<_> =
        (0..FILES.div_ceil(2)).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    drop(spare);
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// File descriptors that a runtime opens when it is made, at most.
const FILES: usize = 8;
