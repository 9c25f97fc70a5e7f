//! The head of a response that is above a limit, one field at a time.
//!
//! Invariant: it is framed exactly as it would be within the limits, or not at all.
//!
//! Limit: a status line, or a field that the framing depends on, must be within the limit for a
//! whole head; and the head within [`Limits::skipped_bytes_max`].

use httparse::{Response, Status};

use super::{
    Limits,
    head::{Fields, Head},
    lines::{Line, LineReader, parse_field},
};
use crate::{Cause, Garbled, TooLarge};

/// A head on its way.
#[derive(Debug)]
pub(super) struct LongHead {
    /// The limit that it is above.
    too_large: TooLarge,
    lines: LineReader,
    bytes_read: u64,
    /// The status code, and the minor version.
    status: Option<(u16, u8)>,
    fields: Fields,
}

impl LongHead {
    pub(super) fn new(too_large: TooLarge) -> Self {
        let (lines, fields) = (LineReader::default(), Fields::default());
        Self { too_large, lines, bytes_read: 0, status: None, fields }
    }

    /// Takes bytes up to the end of the head; nothing if there is more to it.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Head>, Cause> {
        while !bytes.is_empty() {
            let left = usize::try_from(limits.skipped_bytes_max - self.bytes_read);
            let mut window = &bytes[..left.unwrap_or(usize::MAX).min(bytes.len())];
            if window.is_empty() {
                return Err(Cause::TooLarge(self.too_large));
            }
            let given = window.len();
            let read = self.lines.read(&mut window, limits.head_bytes_max);
            let taken = given - window.len();
            self.bytes_read += taken as u64;
            *bytes = &bytes[taken..];
            let Some(line) = read.map_err(|_| Cause::Garbled(Garbled::Header))? else { continue };
            match (self.status, line) {
                (None, Line::Whole(line)) => self.status = Some(parse_status(line)?),
                (None, _) => return Err(Cause::TooLarge(self.too_large)),
                (Some(_), Line::Whole(line)) => {
                    let field = parse_field(line).ok_or(Cause::Garbled(Garbled::Header))?;
                    self.fields.add(&field);
                }
                (Some(_), Line::Cut(line)) => {
                    let field = parse_field(line).ok_or(Cause::Garbled(Garbled::Header))?;
                    if Fields::are_framed_by(field.name) {
                        return Err(Cause::TooLarge(self.too_large));
                    }
                }
                (Some((status, version)), Line::Empty) => {
                    let fields = std::mem::take(&mut self.fields);
                    let head = Head::new(status, version, fields)?;
                    return Ok(Some(Head { too_large: Some(self.too_large), ..head }));
                }
            }
        }
        Ok(None)
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.lines.held_bytes()
    }
}

fn parse_status(line: &[u8]) -> Result<(u16, u8), Cause> {
    let mut response = Response::new(&mut []);
    match (response.parse(line), response.code, response.version) {
        (Ok(Status::Complete(_)), Some(status), Some(version)) => Ok((status, version)),
        _ => Err(Cause::Garbled(Garbled::StatusLine)),
    }
}
