//! The lines of a head or of trailers, one at a time, for those that are not parsed as a whole.
//!
//! Invariant: a line is what httparse would take for a line; every byte of it is checked, also of
//! the part that is not kept.
//!
//! Limit: keeps so much of one line as the caller allows. A syntax error is told at the end of its
//! line, or at its byte in the part that is not kept.

use httparse::{EMPTY_HEADER, Header, Status};

use super::body::append;

/// One line after another.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
    is_long: bool,
    /// The last byte of the part that is not kept was a carriage return.
    is_after_return: bool,
    is_complete: bool,
}

/// A line that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The one that ends the fields.
    Empty,
    /// With its end, and the end of a head behind it, as a parser wants it.
    Whole(&'a [u8]),
    /// The beginning of one that is longer than what is kept; ended likewise.
    Cut(&'a [u8]),
}

/// A byte that no line may have.
#[derive(Debug)]
pub(super) struct InvalidByte;

impl LineReader {
    /// Takes bytes up to the end of the current line; nothing if there is more to it.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        kept_max: usize,
    ) -> Result<Option<Line<'_>>, InvalidByte> {
        if std::mem::take(&mut self.is_complete) {
            self.line.clear();
            self.is_long = false;
            self.is_after_return = false;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|place| place + 1);
        let (taken, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        *bytes = rest;
        let (kept, skipped) = if self.is_long {
            (&[][..], taken)
        } else {
            taken.split_at((kept_max - self.line.len()).min(taken.len()))
        };
        append(&mut self.line, kept, kept_max);
        if !skipped.is_empty() {
            self.skip(skipped)?;
        }
        if end.is_none() {
            return Ok(None);
        }
        self.is_complete = true;
        if matches!(self.line[..], [b'\n'] | [b'\r', b'\n']) {
            return Ok(Some(Line::Empty));
        }
        let end: &[u8] = if self.is_long { b"\r\n\r\n" } else { b"\r\n" };
        self.line.reserve_exact(end.len());
        self.line.extend_from_slice(end);
        Ok(Some(if self.is_long { Line::Cut(&self.line) } else { Line::Whole(&self.line) }))
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.line.capacity()
    }

    /// Checks bytes that are not kept. A carriage return belongs to the line's end.
    fn skip(&mut self, skipped: &[u8]) -> Result<(), InvalidByte> {
        if !self.is_long {
            self.is_long = true;
            self.is_after_return = self.line.pop_if(|byte| *byte == b'\r').is_some();
        }
        for byte in skipped {
            match byte {
                b'\n' => {}
                _ if self.is_after_return => return Err(InvalidByte),
                b'\r' => self.is_after_return = true,
                b'\t' | b' '..=b'~' | 0x80.. => {}
                _ => return Err(InvalidByte),
            }
        }
        Ok(())
    }
}

/// The field of a line that has one.
pub(super) fn parse_field(line: &[u8]) -> Option<Header<'_>> {
    let mut fields = [EMPTY_HEADER];
    match httparse::parse_headers(line, &mut fields) {
        Ok(Status::Complete((_, [field]))) => Some(*field),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `raw`, given in pieces of `step` bytes.
    fn lines(raw: &str, step: usize, kept_max: usize) -> Vec<String> {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for mut piece in raw.as_bytes().chunks(step) {
            while !piece.is_empty() {
                lines.push(match reader.read(&mut piece, kept_max) {
                    Ok(None) => continue,
                    Ok(Some(line)) => format!("{line:?}"),
                    Err(InvalidByte) => {
                        lines.push("invalid".into());
                        return lines;
                    }
                });
            }
        }
        lines
    }

    #[test]
    fn lines_are_kept_up_to_the_limit() {
        let whole = |text: &[u8]| format!("{:?}", Line::Whole(text));
        let cut = |text: &[u8]| format!("{:?}", Line::Cut(text));
        let empty = || format!("{:?}", Line::Empty);
        let invalid = || "invalid".to_owned();
        for (raw, expected) in [
            ("a: b\r\n\r\n", vec![whole(b"a: b\r\n\r\n"), empty()]),
            ("a: b\n\n", vec![whole(b"a: b\n\r\n"), empty()]),
            ("a: bcde\r\nf: g\r\n", vec![cut(b"a: bcd\r\n\r\n"), whole(b"f: g\r\n\r\n")]),
            ("a: bc\r\n", vec![cut(b"a: bc\r\n\r\n")]),
            ("a: bc\rd", vec![invalid()]),
            ("a: bcdefg\rh\r\n", vec![invalid()]),
            ("a: bcdefg\0h\r\n", vec![invalid()]),
            ("a: bcdefg\n", vec![cut(b"a: bcd\r\n\r\n")]),
        ] {
            for step in 1..=raw.len() {
                assert_eq!(lines(raw, step, 6), expected, "{raw:?} by {step}");
            }
        }
    }
}
