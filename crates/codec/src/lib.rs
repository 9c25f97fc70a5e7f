//! Audit events to JSON bytes, and bytes back to events.
//!
//! Pure: no threads, no I/O, no clock reads, no runtime. The engine encodes with [`encode`]; a
//! DataStorage server reads with `parse` (feature `parse`). Both hold every field to the same
//! [`Field`] limits, each the stricter of what the API and what its table accepts, so that an
//! event that one side lets through cannot poison a batch on the other.

mod data;
mod encode;
mod escape;
mod event;
mod field;
mod fit;
mod json;
mod owned;
#[cfg(feature = "parse")]
pub mod parse;
mod special;
mod timestamp;
mod words;

pub use data::{DataError, Envelope, EventData, Json};
#[doc(hidden)]
pub use encode::encode_portable;
pub use encode::{
    EVENT_ID_OFFSET, EncodeError, Encoded, Identity, encode, event_id_text, field_text,
};
pub use event::Event;
pub use field::{Field, FieldError, Problem};
pub use fit::encode_fitted;
pub use owned::OwnedEvent;
pub use timestamp::Timestamp;
pub use uuid::Uuid;
pub use words::{Category, Outcome};
