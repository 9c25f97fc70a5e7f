//! The chunked transfer coding (RFC 9112 section 7.1), undone as the bytes arrive.
//!
//! Invariant: only what stands between a chunk's two line ends reaches the content; sizes, chunk
//! extensions and trailer fields are checked and dropped.
//!
//! Limit: content, extensions over all chunks, and trailers each have a limit in [`Limits`], above
//! which the content is not kept. A bare line feed is refused where RFC 9112 section 2.2 would let
//! it pass in a head, since implementations that disagree about it see different chunks.

use super::{
    Limits,
    body::Body,
    lines::{Line, LineReader, parse_field},
};
use crate::{Cause, Garbled, Part};

/// One content on its way out of its chunks.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    at: At,
    /// Size of the current chunk, then what is left of it.
    size: usize,
    size_digits: u32,
    extension_bytes: usize,
    trailers: Trailers,
}

/// The trailer fields, which are checked and dropped.
#[derive(Debug, Default)]
struct Trailers {
    lines: LineReader,
    bytes_read: usize,
    count: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    Size,
    /// Blanks that RFC 9112 section 7.1.1 wants accepted before an extension.
    Blank,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    Trailers,
}

impl ChunkDecoder {
    /// Takes bytes until the content is complete (true), or given up, or there are no more.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        body: &mut Body,
        limits: &Limits,
    ) -> Result<bool, Cause> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if body.is_given_up() {
                return Ok(false);
            }
            self.at = match (self.at, byte) {
                (At::Data, _) => {
                    let (data, after) = bytes.split_at(self.size.min(bytes.len()));
                    body.append(data, limits);
                    self.size -= data.len();
                    *bytes = after;
                    if self.size == 0 {
                        self.at = At::DataReturn;
                    }
                    continue;
                }
                (At::Trailers, _) => {
                    if self.read_trailer(bytes, body, limits)? {
                        return Ok(true);
                    }
                    continue;
                }
                (At::DataReturn, b'\r') => At::DataLineFeed,
                (At::DataLineFeed, b'\n') => {
                    self.size_digits = 0;
                    At::Size
                }
                (At::DataReturn | At::DataLineFeed, _) => {
                    return Err(Cause::Garbled(Garbled::ChunkEnd));
                }
                _ => self.read_size_line(byte, body, limits)?,
            };
            *bytes = rest;
        }
        Ok(false)
    }

    /// Bytes held, apart from the content.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.trailers.lines.held_bytes()
    }

    fn read_size_line(&mut self, byte: u8, body: &mut Body, limits: &Limits) -> Result<At, Cause> {
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                self.add_digit(byte)?;
                Ok(At::Size)
            }
            (At::Size, _) if self.size_digits == 0 => Err(Cause::Garbled(Garbled::ChunkSize)),
            (At::Size | At::Blank | At::Extension, b'\r') => Ok(At::SizeLineFeed),
            (At::SizeLineFeed, b'\n') => Ok(self.begin_chunk(body, limits)),
            (At::Size | At::Blank, b' ' | b'\t') => {
                self.count_extension_byte(body, limits);
                Ok(At::Blank)
            }
            (At::Size | At::Blank, b';') => {
                self.count_extension_byte(body, limits);
                Ok(At::Extension)
            }
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension_byte(body, limits);
                Ok(At::Extension)
            }
            _ => Err(Cause::Garbled(Garbled::ChunkSize)),
        }
    }

    /// At most 16 digits, so that the size always fits.
    fn add_digit(&mut self, byte: u8) -> Result<(), Cause> {
        const DIGITS_MAX: u32 = usize::BITS / 4;
        let digit = char::from(byte).to_digit(16).filter(|_| self.size_digits < DIGITS_MAX);
        let Some(digit) = digit else {
            return Err(Cause::Garbled(Garbled::ChunkSize));
        };
        self.size = self.size << 4 | digit as usize;
        self.size_digits += 1;
        Ok(())
    }

    fn count_extension_byte(&mut self, body: &mut Body, limits: &Limits) {
        let limit = limits.head_bytes_max;
        if self.extension_bytes == limit {
            body.skip(1, Part::ExtensionBytes, limit, limits);
        } else {
            self.extension_bytes += 1;
        }
    }

    fn begin_chunk(&self, body: &mut Body, limits: &Limits) -> At {
        body.announce(self.size as u64, limits);
        if self.size == 0 { At::Trailers } else { At::Data }
    }

    /// Takes one trailer field, or part of one; true if it was the end of them.
    fn read_trailer(
        &mut self,
        bytes: &mut &[u8],
        body: &mut Body,
        limits: &Limits,
    ) -> Result<bool, Cause> {
        let limit = limits.head_bytes_max;
        let Trailers { lines, bytes_read, count } = &mut self.trailers;
        let room = if *bytes_read < limit { limit - *bytes_read } else { body.skippable(limits) };
        let window = &bytes[..room.min(bytes.len())];
        let mut rest = window;
        let line = lines.read(&mut rest, limit).map_err(|_| Cause::Garbled(Garbled::Trailer))?;
        let taken = window.len() - rest.len();
        *bytes = &bytes[taken..];
        if *bytes_read < limit {
            *bytes_read += taken;
        } else {
            body.skip(taken as u64, Part::TrailerBytes, limit, limits);
        }
        match line {
            None => Ok(false),
            Some(Line::Empty) => Ok(true),
            Some(Line::Whole(line) | Line::Cut(line)) => {
                parse_field(line).ok_or(Cause::Garbled(Garbled::Trailer))?;
                *count += 1;
                if *count > limits.headers_max {
                    body.skip(0, Part::Headers, limits.headers_max, limits);
                }
                Ok(false)
            }
        }
    }
}
