//! The content of one response: kept up to a limit, counted beyond it.
//!
//! Invariant: a content above a limit is kept in no part, and how much of the response is read all
//! the same is bounded by [`Limits::skipped_bytes_max`].
//!
//! Limit: knows sizes only; where the content ends is for its framing to say.

use super::Limits;
use crate::{Part, TooLarge};

/// One content, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
    /// Bytes of content that were announced; once it is too large, of whatever was skipped as well.
    announced: u64,
    too_large: Option<TooLarge>,
    is_given_up: bool,
}

impl Body {
    /// Of a response whose head is above this limit, if it is above one.
    pub(super) fn new(too_large: Option<TooLarge>) -> Self {
        Self { too_large, ..Self::default() }
    }

    /// Notes that so many bytes of content come next.
    pub(super) fn announce(&mut self, count: u64, limits: &Limits) {
        self.announced = self.announced.saturating_add(count);
        let limit = limits.body_bytes_max;
        if self.announced > limit as u64 {
            self.cut(Part::BodyBytes, limit);
            self.is_given_up |= self.announced > limits.skipped_bytes_max;
        }
    }

    /// Notes bytes that are beyond the limit of another part of the response.
    pub(super) fn skip(&mut self, count: u64, part: Part, limit: usize, limits: &Limits) {
        self.cut(part, limit);
        self.announced = self.announced.saturating_add(count);
        self.is_given_up |= self.announced > limits.skipped_bytes_max;
    }

    /// How many bytes may be skipped before the response is given up, and the one that has it so.
    pub(super) fn skippable(&self, limits: &Limits) -> usize {
        let left = limits.skipped_bytes_max.saturating_sub(self.announced);
        usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Makes room for all that was announced.
    pub(super) fn reserve(&mut self) {
        if self.too_large.is_none() {
            self.bytes.reserve_exact(usize::try_from(self.announced).unwrap_or(0));
        }
    }

    /// Takes bytes that were announced.
    pub(super) fn append(&mut self, bytes: &[u8], limits: &Limits) {
        if self.too_large.is_none() {
            append(&mut self.bytes, bytes, limits.body_bytes_max);
        }
    }

    /// Whether it is not worth to read on to the end of the response.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Whether the response is above a limit.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.is_some()
    }

    /// The content, and the limit if the response was above one.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<TooLarge>) {
        (self.bytes, self.too_large)
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The first limit that is met is the one that is told.
    fn cut(&mut self, part: Part, limit: usize) {
        self.too_large.get_or_insert(TooLarge { part, limit });
        self.bytes = Vec::new();
    }
}

/// Appends bytes that fit in `limit`, doubling the memory as needed but never beyond `limit`.
pub(super) fn append(to: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let needed = to.len() + bytes.len();
    debug_assert!(needed <= limit, "{needed} bytes appended within a limit of {limit}");
    if needed > to.capacity() {
        let capacity = needed.max(to.capacity() * 2).min(limit);
        to.reserve_exact(capacity.saturating_sub(to.len()));
    }
    to.extend_from_slice(bytes);
}
