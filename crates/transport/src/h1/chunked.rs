//! The chunked transfer coding (RFC 9112 section 7.1), undone as the bytes arrive.
//!
//! Invariant: only what stands between a chunk's two line ends reaches the content; sizes, chunk
//! extensions and trailer fields are checked and dropped.
//!
//! Limit: content, extensions over all chunks, and trailers are each bounded by [`Limits`]. A bare
//! line feed is refused where RFC 9112 section 2.2 would let it pass in a head, since
//! implementations that disagree about it see different chunks.

use httparse::{EMPTY_HEADER, Status};

use super::{
    Limits,
    body::{Body, append},
    head::syntax,
};
use crate::{Cause, Garbled, Part, TooLarge};

/// One content on its way out of its chunks.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    at: At,
    /// Size of the current chunk, then what is left of it.
    size: usize,
    size_digits: u32,
    extension_bytes: usize,
    trailers: Vec<u8>,
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
                (At::Trailers, _) => return self.read_trailers(bytes, limits),
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
        self.trailers.capacity()
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
            body.skip(Part::ExtensionBytes, limit, limits);
        } else {
            self.extension_bytes += 1;
        }
    }

    fn begin_chunk(&self, body: &mut Body, limits: &Limits) -> At {
        body.announce(self.size as u64, limits);
        if self.size == 0 { At::Trailers } else { At::Data }
    }

    fn read_trailers(&mut self, bytes: &mut &[u8], limits: &Limits) -> Result<bool, Cause> {
        let limit = limits.head_bytes_max;
        // The usual case needs neither the copy nor the parser.
        if self.trailers.is_empty() && bytes.starts_with(b"\r\n") {
            *bytes = &bytes[2..];
            return Ok(true);
        }
        let held = self.trailers.len();
        let taken = bytes.len().min(limit - held);
        append(&mut self.trailers, &bytes[..taken], limit);
        let mut fields = vec![EMPTY_HEADER; limits.headers_max];
        let parsed = httparse::parse_headers(&self.trailers, &mut fields);
        match parsed.map_err(|error| match syntax(error, limits) {
            Cause::Garbled(_) => Cause::Garbled(Garbled::Trailer),
            too_large => too_large,
        })? {
            Status::Complete((length, _)) => {
                *bytes = &bytes[length - held..];
                Ok(true)
            }
            Status::Partial if self.trailers.len() == limit => {
                Err(Cause::TooLarge(TooLarge { part: Part::TrailerBytes, limit }))
            }
            Status::Partial => {
                *bytes = &bytes[taken..];
                Ok(false)
            }
        }
    }
}
