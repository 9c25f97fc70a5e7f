//! Making what is too long fit: texts are cut and marked, data is replaced by what it was too long
//! for.
//!
//! Invariant: what comes out can be stored, and shows that something is missing. Limit: only what
//! is too much is made to fit; what is missing or malformed is refused as ever.

use std::borrow::Cow;

use serde::Serialize;

use crate::{EncodeError, Encoded, Event, Field, FieldError, Identity, Problem, encode};

impl Field {
    /// The text as this field can hold it: if it has too many characters, or U+0000 among them, it
    /// is cut there, at a character, and ends with `\u{2026}` (the ellipsis). Allocates only then.
    ///
    /// An empty text stays empty, and a field that isn't free text takes any text as it is.
    ///
    /// ```
    /// use ledgerline_codec::Field;
    ///
    /// assert_eq!(Field::Severity.fit("critical"), "critical");
    /// assert_eq!(Field::Severity.fit("very, very, very critical"), "very, very, very cr\u{2026}");
    /// ```
    #[must_use]
    pub fn fit(self, text: &str) -> Cow<'_, str> {
        cut(text, self.chars_max())
    }
}

/// As [`encode`], but what is too much doesn't keep the event out: texts that are too long or have
/// U+0000 in them are cut ([`Field::fit`]); `event_data` that is too large, too deep, or can't be
/// stored for a character or a number in it is replaced by an object that says so; and if the
/// record still has more than `bytes_max` bytes, at least 320 KiB, `error_message` is cut to 4,096
/// characters.
///
/// Calls the event's [`EventData`](crate::EventData) up to three times; allocates.
///
/// # Errors
/// The first field that is missing or malformed; `out` is then as it was.
pub fn encode_fitted(
    event: &Event<'_>,
    identity: &Identity<'_>,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    let start = out.len();
    let encoded = encode_cut(event, identity, Field::ErrorMessage.chars_max(), out)?;
    if out.len() - start <= bytes_max {
        return Ok(encoded);
    }
    out.truncate(start);
    encode_cut(event, identity, Some(ERROR_CHARS), out)
}

fn encode_cut(
    event: &Event<'_>,
    identity: &Identity<'_>,
    error_chars: Option<usize>,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    let fit = |field: Field, text: Option<_>| text.map(|text| field.fit(text));
    let event_type = Field::EventType.fit(event.event_type);
    let event_action = Field::EventAction.fit(event.event_action);
    let correlation_id = Field::CorrelationId.fit(event.correlation_id);
    let version = fit(Field::Version, event.version);
    let actor_type = fit(Field::ActorType, event.actor_type);
    let actor_id = fit(Field::ActorId, event.actor_id);
    let resource_type = fit(Field::ResourceType, event.resource_type);
    let resource_id = fit(Field::ResourceId, event.resource_id);
    let namespace = fit(Field::Namespace, event.namespace);
    let cluster_id = fit(Field::ClusterId, event.cluster_id);
    let severity = fit(Field::Severity, event.severity);
    let error_code = fit(Field::ErrorCode, event.error_code);
    let error_message = event.error_message.map(|text| cut(text, error_chars));
    let fitted = Event {
        event_type: &event_type,
        event_action: &event_action,
        correlation_id: &correlation_id,
        version: version.as_deref(),
        actor_type: actor_type.as_deref(),
        actor_id: actor_id.as_deref(),
        resource_type: resource_type.as_deref(),
        resource_id: resource_id.as_deref(),
        namespace: namespace.as_deref(),
        cluster_id: cluster_id.as_deref(),
        severity: severity.as_deref(),
        error_code: error_code.as_deref(),
        error_message: error_message.as_deref(),
        ..*event
    };
    match encode(&fitted, identity, out) {
        Err(FieldError { field: Field::EventData, problem }) if is_too_much(&problem) => {
            let not_kept = NotKept { event_type: &event_type, not_kept: problem.to_string() };
            encode(&fitted.with_data(&not_kept), identity, out)
        }
        result => result,
    }
}

/// Stands for data that can't be stored.
#[derive(Serialize)]
struct NotKept<'a> {
    event_type: &'a str,
    not_kept: String,
}

/// Whether the data is an object, but more of one than can be stored.
fn is_too_much(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::TooLarge { .. }
            | Problem::TooDeep { .. }
            | Problem::NulEscape
            | Problem::LoneSurrogate
            | Problem::NumberOutOfRange { .. }
    )
}

fn cut(text: &str, chars_max: Option<usize>) -> Cow<'_, str> {
    let Some(chars_max) = chars_max else { return Cow::Borrowed(text) };
    let storable = text.find('\0').map_or(text, |nul| &text[..nul]);
    let is_whole = storable.len() == text.len();
    if is_whole && (text.len() <= chars_max || text.chars().count() <= chars_max) {
        return Cow::Borrowed(text);
    }
    let kept = storable.char_indices().nth(chars_max - 1).map_or(storable, |(end, _)| {
        &storable[..end] // with room for the mark
    });
    Cow::Owned(format!("{kept}{MARK}"))
}

/// Ends a text that was cut.
const MARK: char = '\u{2026}';

/// As much as fits beside the largest data, whatever has to be escaped.
const ERROR_CHARS: usize = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Category, Json, Outcome, Timestamp, Uuid};

    const BYTES_MAX: usize = 384 << 10;

    fn fitted(event: &Event<'_>) -> Result<Value, EncodeError> {
        let now = Timestamp::EPOCH;
        let identity = Identity { event_id: Uuid::nil(), producer: "p", producer_seq: 1, now };
        let mut record = Vec::new();
        encode_fitted(event, &identity, BYTES_MAX, &mut record)?;
        assert!(record.len() <= BYTES_MAX);
        Ok(serde_json::from_slice(&record[1..]).unwrap())
    }

    fn event() -> Event<'static> {
        Event::new("a.b.c", Category::Gateway, Outcome::Success).with_correlation_id("rr-1")
    }

    proptest! {
        #[test]
        fn what_fits_is_the_same_and_what_was_cut_is_marked(
            text in prop::collection::vec("[a\u{0}\u{e9}\u{1f512}]", 0..60),
        ) {
            let text = text.concat();
            for field in [Field::Severity, Field::EventAction, Field::Version] {
                let (fit, max) = (field.fit(&text), field.chars_max().unwrap());
                prop_assert!(fit.chars().count() <= max && !fit.contains('\0'));
                match fit.strip_suffix(MARK) {
                    Some(kept) => prop_assert!(text.starts_with(kept) && kept.len() < text.len()),
                    None => prop_assert_eq!(&fit, &text),
                }
            }
        }
    }

    #[test]
    fn a_text_as_long_as_its_field_is_not_cut() {
        let (longest, longer) = ("\u{e9}".repeat(20), "\u{e9}".repeat(21));
        assert_eq!(Field::Severity.fit(&longest), longest);
        assert_eq!(Field::Severity.fit(&longer), format!("{}{MARK}", "\u{e9}".repeat(19)));
        assert_eq!(Field::DurationMs.fit(&longer), longer);
    }

    #[test]
    fn every_text_is_cut() {
        let long = "\u{1f512}".repeat(70_000);
        let read = fitted(&Event {
            event_type: &long,
            event_action: &long,
            correlation_id: &long,
            version: Some(&long),
            actor_type: Some(&long),
            actor_id: Some(&long),
            resource_type: Some(&long),
            resource_id: Some("a\0b"),
            namespace: Some(&long),
            cluster_id: Some(&long),
            severity: Some(&long),
            error_code: Some(&long),
            error_message: Some(&long),
            ..event()
        });
        let read = read.unwrap();
        for field in Field::ALL.iter().filter(|field| **field != Field::Producer) {
            let Some(max) = field.chars_max() else { continue };
            let text = read[field.name()].as_str().unwrap();
            assert!(text.ends_with(MARK), "{field}");
            let is_full = text.chars().count() == max;
            assert!(is_full || *field == Field::ResourceId, "{field}");
        }
        assert_eq!(read["resource_id"], format!("a{MARK}"));
    }

    #[test]
    fn data_that_is_too_much_is_replaced_by_why() {
        let deep = format!("{}{{}}{}", "{\"a\":".repeat(10), "}".repeat(10));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(262_144));
        for (text, why) in [
            (&*large, "has 262152 bytes, the limit is 262144"),
            (&*deep, "nests deeper than 10 levels"),
            (r#"{"a":"\u0000"}"#, "contains the escape of U+0000, which can't be stored"),
        ] {
            let read = fitted(&event().with_data(&Json(text))).unwrap();
            assert_eq!(read["event_data"], json!({"event_type": "a.b.c", "not_kept": why}));
        }
    }

    #[test]
    fn the_largest_record_fits() {
        let long = "\u{1}".repeat(65_536);
        let data = format!("{{\"a\":\"{}\"}}", "x".repeat(262_136));
        let read = fitted(&event().with_error_message(&long).with_data(&Json(&data))).unwrap();
        assert_eq!(read["event_data"]["a"].as_str().unwrap().len(), 262_136);
        assert_eq!(read["error_message"].as_str().unwrap().chars().count(), ERROR_CHARS);
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused() {
        assert_eq!(
            fitted(&event().with_correlation_id("")),
            Err(Field::CorrelationId.error(Problem::Empty)),
        );
        let refused = fitted(&event().with_data(&Json("[]")));
        assert_eq!(refused, Err(Field::EventData.error(Problem::NotAnObject)));
        assert!(fitted(&event().with_duration_ms(-1)).is_err());
    }
}
