//! The fields on the wire, their limits, and what can be wrong with one.
//!
//! Invariant: this is the only table of limits; the encoder and the parser both ask it. Each limit
//! is the stricter of what the API says and what the table behind it can hold, because the store
//! refuses a whole batch for one row that doesn't fit. Lengths are in characters (code points), as
//! in both.

use std::fmt;

use thiserror::Error;

/// Makes the table: a field's variant, its name, and the bounds of its length if it is free text.
macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $chars:expr;)*) => {
        /// One field of an event on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// Every field, in the order of a record.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The field's name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The field's key as it stands in a record, with the comma before and the colon after.
            pub(crate) const fn key(self) -> &'static [u8] {
                match self {
                    $(Self::$variant => concat!(",\"", $name, "\":").as_bytes(),)*
                }
            }

            /// The key with the quotation mark that starts a text.
            pub(crate) const fn quoted_key(self) -> &'static [u8] {
                match self {
                    $(Self::$variant => concat!(",\"", $name, "\":\"").as_bytes(),)*
                }
            }

            /// The field of that name.
            #[cfg(feature = "parse")]
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            const fn chars(self) -> Chars {
                match self {
                    $(Self::$variant => $chars,)*
                }
            }
        }
    };
}

impl Field {
    /// The most characters (code points) that the field's text may have; `None` for a field that
    /// isn't free text.
    #[must_use]
    pub const fn chars_max(self) -> Option<usize> {
        match self.chars() {
            Chars::NotText => None,
            Chars::UpTo(max) | Chars::OneTo(max) => Some(max),
        }
    }

    /// Checks the length of the field's text.
    #[inline(always)]
    pub(crate) fn check_length(self, text: &str) -> Result<(), FieldError> {
        let (min, max) = match self.chars() {
            Chars::NotText => return Ok(()),
            Chars::UpTo(max) => (0, max),
            Chars::OneTo(max) => (1, max),
        };
        // A character has at least one byte, so most texts needn't be counted.
        if min <= text.len() && text.len() <= max {
            return Ok(());
        }
        self.check_chars(text, max)
    }

    #[cold]
    fn check_chars(self, text: &str, max: usize) -> Result<(), FieldError> {
        match text.chars().count() {
            0 => Err(self.error(Problem::Empty)),
            given_chars if given_chars > max => {
                Err(self.error(Problem::TooLong { given_chars, max }))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the field's text has no U+0000.
    pub(crate) fn check_no_nul(self, text: &str) -> Result<(), FieldError> {
        if text.as_bytes().contains(&0) { Err(self.error(Problem::Nul)) } else { Ok(()) }
    }

    /// Checks that a number lies in the field's range.
    #[inline]
    pub(crate) fn check_range(self, given: i64) -> Result<(), FieldError> {
        let (min, max) = match self {
            Self::DurationMs => (0, i32::MAX as i64),
            Self::RetentionDays => (1, RETENTION_DAYS_DEFAULT as i64),
            _ => return Ok(()),
        };
        if given < min || given > max {
            return Err(self.error(Problem::OutOfRange { given, min, max }));
        }
        Ok(())
    }

    /// What is wrong, with the name of the field that it is wrong with.
    pub(crate) const fn error(self, problem: Problem) -> FieldError {
        FieldError { field: self, problem }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A field that can't be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}{}", advice(*.field, .problem))]
pub struct FieldError {
    /// Which field.
    pub field: Field,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field's value. Reads on after the field's name: `severity is empty`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A required field is absent or null.
    #[error("is missing")]
    Missing,
    /// A required text is empty.
    #[error("is empty")]
    Empty,
    /// More characters than the store's column has.
    #[error("has {given_chars} characters, the limit is {max}")]
    TooLong {
        /// Characters (code points) given.
        given_chars: usize,
        /// Characters allowed.
        max: usize,
    },
    /// U+0000, which PostgreSQL can't hold in a text.
    #[error("contains the character U+0000, which can't be stored")]
    Nul,
    /// A number outside its range.
    #[error("is {given}, allowed is {min} to {max}")]
    OutOfRange {
        /// What was given.
        given: i64,
        /// The least allowed.
        min: i64,
        /// The most allowed.
        max: i64,
    },
    /// Another JSON type.
    #[error("is {found}, expected {expected}")]
    WrongType {
        /// What the field wants: `a string`.
        expected: &'static str,
        /// What came: `a number`.
        found: &'static str,
    },
    /// Not one of the values that the field may have.
    #[error("is {given:?}, allowed is one of {}", allowed.join(", "))]
    NotInSet {
        /// What was given, shortened.
        given: String,
        /// What may be given.
        allowed: &'static [&'static str],
    },
    /// Not the form of a category: a lower-case letter, then letters, digits, `_`, `-` or `.`.
    #[error(
        "is {given:?}, expected a lower-case letter and at most 49 lower-case letters, digits, \
         '_', '-' or '.'"
    )]
    NotACategory {
        /// What was given, shortened.
        given: String,
    },
    /// Not an IPv4 or IPv6 address.
    #[error("is {given:?}, expected an IP address")]
    NotAnAddress {
        /// What was given, shortened.
        given: String,
    },
    /// Not RFC 3339 with an offset, or outside the years 0001 to 9999.
    #[error("is {given:?}, expected an RFC 3339 time with an offset")]
    NotATimestamp {
        /// What was given, shortened.
        given: String,
    },
    /// Not a UUID in its hyphenated form.
    #[error("is {given:?}, expected a UUID")]
    NotAUuid {
        /// What was given, shortened.
        given: String,
    },
    /// The field is given twice.
    #[error("is given twice")]
    Duplicate,
    /// JSON text over its limit.
    #[error("has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Objects and arrays nest deeper than the limit.
    #[error("nests deeper than {max} levels")]
    TooDeep {
        /// Levels allowed, the outermost object included.
        max: usize,
    },
    /// JSON, but not an object. A text is a JSON string: what is JSON already is passed as `Json`.
    #[error("is not a JSON object (text that is JSON already is passed as Json(text))")]
    NotAnObject,
    /// Not JSON as RFC 8259 has it.
    #[error("is not valid JSON: expected {expected} at byte {offset}")]
    InvalidJson {
        /// Where in the text.
        offset: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// A number in JSON text that no double or no PostgreSQL `numeric` can hold.
    #[error("contains a number at byte {offset} that is too large or too fine to be stored")]
    NumberOutOfRange {
        /// Where in the text.
        offset: usize,
    },
    /// The escape of U+0000 in JSON text, which PostgreSQL can't hold.
    #[error("contains the escape of U+0000, which can't be stored")]
    NulEscape,
    /// Half of a surrogate pair, which is no character.
    #[error("contains half of a surrogate pair, which can't be stored")]
    LoneSurrogate,
    /// The value's own `Serialize` failed.
    #[error("can't be serialised: {reason}")]
    NotSerializable {
        /// What it said.
        reason: String,
    },
}

impl Problem {
    /// The problem's kind as one stable word: `too_long`. For logs, metrics and the `reason` of a
    /// server's refusal; it says nothing of the value.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::TooLong { .. } => "too_long",
            Self::Nul | Self::NulEscape => "nul",
            Self::OutOfRange { .. } => "out_of_range",
            Self::WrongType { .. } => "wrong_type",
            Self::NotInSet { .. } => "not_in_set",
            Self::NotACategory { .. } => "not_a_category",
            Self::NotAnAddress { .. } => "not_an_address",
            Self::NotATimestamp { .. } => "not_a_timestamp",
            Self::NotAUuid { .. } => "not_a_uuid",
            Self::Duplicate => "duplicate",
            Self::TooLarge { .. } => "too_large",
            Self::TooDeep { .. } => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::InvalidJson { .. } => "not_json",
            Self::NumberOutOfRange { .. } => "number_out_of_range",
            Self::LoneSurrogate => "lone_surrogate",
            Self::NotSerializable { .. } => "not_serializable",
        }
    }

    /// The limit that the value broke, if it is a number: in characters, bytes, levels, or the
    /// field's own unit.
    #[must_use]
    pub const fn limit(&self) -> Option<i64> {
        match *self {
            Self::TooLong { max, .. } | Self::TooLarge { max, .. } | Self::TooDeep { max } => {
                Some(max as i64)
            }
            Self::OutOfRange { given, min, max } => Some(if given < min { min } else { max }),
            _ => None,
        }
    }
}

fields! {
    /// The event's id, made by its emitter.
    EventId, "event_id", Chars::NotText;
    /// The process (and lane) that emitted the event.
    Producer, "producer", Chars::OneTo(100);
    /// The emitter's running number for the event.
    ProducerSeq, "producer_seq", Chars::NotText;
    /// Version of the event's schema.
    Version, "version", Chars::OneTo(10);
    /// What happened.
    EventType, "event_type", Chars::OneTo(100);
    /// When it happened.
    EventTimestamp, "event_timestamp", Chars::NotText;
    /// The domain that the event belongs to.
    EventCategory, "event_category", Chars::NotText;
    /// The action within the domain.
    EventAction, "event_action", Chars::OneTo(50);
    /// How the action ended.
    EventOutcome, "event_outcome", Chars::NotText;
    /// What joins the events of one story.
    CorrelationId, "correlation_id", Chars::OneTo(255);
    /// What kind of actor.
    ActorType, "actor_type", Chars::UpTo(50);
    /// Who acted.
    ActorId, "actor_id", Chars::UpTo(255);
    /// From which address.
    ActorIp, "actor_ip", Chars::NotText;
    /// What kind of thing was acted upon.
    ResourceType, "resource_type", Chars::UpTo(100);
    /// Which thing was acted upon.
    ResourceId, "resource_id", Chars::UpTo(255);
    /// Kubernetes namespace.
    Namespace, "namespace", Chars::UpTo(253);
    /// Kubernetes cluster.
    ClusterId, "cluster_id", Chars::UpTo(255);
    /// How grave it is.
    Severity, "severity", Chars::UpTo(20);
    /// How long the action took, in milliseconds.
    DurationMs, "duration_ms", Chars::NotText;
    /// The event that caused this one.
    ParentEventId, "parent_event_id", Chars::NotText;
    /// When the parent happened.
    ParentEventDate, "parent_event_date", Chars::NotText;
    /// Short code of what went wrong.
    ErrorCode, "error_code", Chars::UpTo(50);
    /// What went wrong, in words. Its column has no limit; ours keeps a record bounded.
    ErrorMessage, "error_message", Chars::UpTo(65_536);
    /// How long to keep the event, in days.
    RetentionDays, "retention_days", Chars::NotText;
    /// Whether the content needs protection.
    IsSensitive, "is_sensitive", Chars::NotText;
    /// The event's own content: a JSON object.
    EventData, "event_data", Chars::NotText;
}

/// What to do about it, where that isn't plain.
fn advice(field: Field, problem: &Problem) -> &'static str {
    match (field, problem) {
        (Field::CorrelationId, Problem::Missing | Problem::Empty) => {
            ": give all events of one story the same, such as the id of the request or the trace; \
             an event that is alone gets a new UUID"
        }
        _ => "",
    }
}

/// How long a field's text may be, in characters.
#[derive(Clone, Copy)]
enum Chars {
    /// The field isn't free text.
    NotText,
    /// It may be empty.
    UpTo(usize),
    /// It may not.
    OneTo(usize),
}

/// A refused text, cut so that an error stays a line.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(GIVEN_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// The retention of an event that doesn't say, which is also the longest: seven years.
pub(crate) const RETENTION_DAYS_DEFAULT: u16 = 2555;

/// Characters of a refused text that an error repeats; a UUID or a time fits.
const GIVEN_CHARS_MAX: usize = 48;
