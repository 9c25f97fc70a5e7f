//! Whether a file is still the one that was read.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What tells one state of a file from the next: where it is, when it was changed, how long it is.
///
/// Through symbolic links, because that is how Kubernetes swaps a secret; and with the file's
/// number, because a file that takes another's place may be as long, and written in the same tick
/// of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    number: (u64, u64),
    modified: Option<SystemTime>,
    len: u64,
}

impl FileStamp {
    /// Of the file that is there now. None if it can't be seen.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let (modified, len) = (metadata.modified().ok(), metadata.len());
        Some(Self { number: number(&metadata), modified, len })
    }
}

#[cfg(unix)]
fn number(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn number(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}
