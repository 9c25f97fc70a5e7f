//! What each request shows to say who we are: headers of the configuration, and a bearer token from
//! a file.
//!
//! The file is looked at every second, and read when it has changed, after five minutes, and when
//! the server has answered 401; Kubernetes replaces it now and then. Invariant: nothing here is
//! ever logged. Limit: a file that can't be read leaves the last token in use.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::PathBuf;

use ledgerline_transport::FileStamp;

use super::rate_limited_log::RateLimitedLog;
use crate::config::Header;
use crate::error::StartError;

pub(super) struct Credentials {
    token: Option<TokenFile>,
    /// Lines of the configured headers.
    headers: String,
    /// These, and the token's.
    lines: String,
    unreadable: RateLimitedLog<io::ErrorKind>,
}

struct TokenFile {
    path: PathBuf,
    stamp: Option<FileStamp>,
    look_ms: u64,
    read_ms: u64,
}

impl Credentials {
    pub(super) fn new(
        token_file: Option<&PathBuf>,
        headers: &[Header],
    ) -> Result<Self, StartError> {
        let mut lines = String::new();
        for header in headers {
            let (name, value) = header.parts();
            write!(lines, "{name}: {value}\r\n").expect("writing to a String can't fail");
        }
        let token = token_file.map(|path| TokenFile {
            path: path.clone(),
            stamp: None,
            look_ms: LOOK_INTERVAL_MS,
            read_ms: 0,
        });
        let subject = "the token file can't be read; the last token stays in use";
        let unreadable = RateLimitedLog::new(subject);
        let mut credentials = Self { token, headers: lines.clone(), lines, unreadable };
        if let Some(path) = token_file {
            credentials
                .read(0)
                .map_err(|source| StartError::Token { path: path.clone(), source })?;
        }
        Ok(credentials)
    }

    /// The header lines of a request that is sent now.
    pub(super) fn lines(&mut self, now_ms: u64) -> &str {
        if let Some(token) = &mut self.token
            && now_ms >= token.look_ms
        {
            token.look_ms = now_ms + LOOK_INTERVAL_MS;
            if FileStamp::of(&token.path) != token.stamp
                || now_ms >= token.read_ms + READ_INTERVAL_MS
            {
                self.read_or_keep(now_ms);
            }
        }
        &self.lines
    }

    /// The server has not accepted them.
    pub(super) fn refused(&mut self, now_ms: u64) {
        // Once for all requests that were on the way with the same token.
        if self.token.as_ref().is_some_and(|token| now_ms >= token.read_ms + LOOK_INTERVAL_MS) {
            self.read_or_keep(now_ms);
        }
    }

    fn read_or_keep(&mut self, now_ms: u64) {
        if let Err(error) = self.read(now_ms) {
            self.unreadable.warn(now_ms, error.kind(), &error);
        }
    }

    fn read(&mut self, now_ms: u64) -> io::Result<()> {
        let Some(token) = &mut self.token else { return Ok(()) };
        token.read_ms = now_ms;
        token.stamp = FileStamp::of(&token.path);
        let text = fs::read_to_string(&token.path)?;
        let text = text.trim();
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !text.bytes().all(is_token_byte) {
            let why = "not a token of visible ASCII characters";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.lines = format!("{}authorization: Bearer {text}\r\n", self.headers);
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

const LOOK_INTERVAL_MS: u64 = 1_000;
const READ_INTERVAL_MS: u64 = 300_000;
/// Some Kubernetes tokens have a kilobyte and a half.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_token_that_changes_unseen_is_read_again_after_a_401_and_every_five_minutes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        // In place, of the same length and of the same time: as nobody could see it.
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        write("first");
        let mut credentials = Credentials::new(Some(&path), &[]).unwrap();
        credentials.token.as_mut().unwrap().stamp = FileStamp::of(&path);
        let line = |token| format!("authorization: Bearer {token}\r\n");
        write("other");
        credentials.token.as_mut().unwrap().stamp = FileStamp::of(&path);
        credentials.refused(999);
        assert_eq!(credentials.lines(999), line("first"), "read a moment ago");
        credentials.refused(1_000);
        assert_eq!(credentials.lines(1_000), line("other"));
        write("third");
        credentials.token.as_mut().unwrap().stamp = FileStamp::of(&path);
        assert_eq!(credentials.lines(300_999), line("other"));
        assert_eq!(credentials.lines(301_999), line("third"));
    }

    #[test]
    fn a_token_file_that_cannot_be_read_any_longer_leaves_the_last_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, " first\n").unwrap();
        let mut credentials = Credentials::new(Some(&path), &[]).unwrap();
        for text in ["", "two words", "\u{e9}"] {
            fs::write(&path, text).unwrap();
            credentials.refused(10_000);
            assert_eq!(credentials.lines(10_000), "authorization: Bearer first\r\n", "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(credentials.lines(20_000), "authorization: Bearer first\r\n");
    }
}
