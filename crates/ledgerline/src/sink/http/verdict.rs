//! What a request came to: one pure function from an answer, and one from a failure.
//!
//! Invariant: [`Verdict::Stored`] and [`Verdict::Queued`] are said of nothing but a JSON 201 or 202
//! that came after the whole request was written and doesn't contradict it. Every other 2xx may or
//! may not have stored the batch, and says so.
//!
//! Limit: a problem document is read as far as it is JSON of the form of RFC 9457, with the members
//! `index`, `field`, `reason` and `limit` beside it. Another text is searched for a place.

use ledgerline_transport::{Answer, Certainty, Failure};
use serde::Deserialize;

use super::ids::{self, Listed};
use crate::loss::ServerReason;

/// What to do with a batch whose request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is stored.
    Stored,
    /// The server queued it: its promise, not ours.
    Queued,
    /// More events or bytes than the server takes at once, and how many events it takes if it said
    /// so.
    TooBig { limit: Option<u32> },
    /// The server won't have one of its events, the one at this place if it said so.
    Refused { index: Option<u32>, why: Why },
    /// Not processed: the server is overloaded, and may ask to be left alone for so long.
    Overloaded { after_ms: Option<u64> },
    /// The server failed, and may have stored it.
    ServerError,
    /// It doesn't accept our token, which may have been replaced a moment ago.
    Unauthorized,
    /// The answer of something that isn't our DataStorage, that refuses what we are, or that
    /// contradicts itself: keep the batch, try again slowly, say so loudly.
    Misrouted { is_ambiguous: bool },
    /// As [`Misrouted`](Self::Misrouted), and the batch may be stored by an answer that is too
    /// large to be read: it would be stored again at each try.
    Unreadable,
    /// No connection could be made.
    NotConnected,
    /// The connection ended, and the request was certainly not processed.
    NotProcessed,
    /// The server never looked at it: it ended the connection with the answer to an earlier one.
    Skipped,
    /// There is no answer, and the batch may be stored.
    NoAnswer { is_timeout: bool },
}

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It breaks a rule.
    Invalid,
    /// Its timestamp is too far in the past.
    TooOld,
    /// Its id belongs to an event with other content.
    IdConflict,
}

impl Verdict {
    /// DataStorage has the batch, or has promised to store it.
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::Stored | Self::Queued)
    }

    /// Whether it leaves open if the batch is stored.
    pub(crate) fn is_ambiguous(self) -> bool {
        match self {
            Self::ServerError | Self::Unreadable | Self::NoAnswer { .. } => true,
            Self::Misrouted { is_ambiguous } => is_ambiguous,
            _ => false,
        }
    }
}

/// The verdict over an answer to a batch of `events`.
pub(crate) fn judge(answer: &Answer, events: usize) -> Verdict {
    let is_json = has_type(answer, "application/json");
    let is_problem = has_type(answer, "application/problem+json");
    let is_success = (200..300).contains(&answer.status);
    match answer.status {
        _ if is_success && answer.too_large.is_some() => Verdict::Unreadable,
        _ if is_success && answer.is_early => Verdict::Misrouted { is_ambiguous: true },
        201 if is_json && agrees(answer, events) => Verdict::Stored,
        202 if is_json && agrees(answer, events) => Verdict::Queued,
        _ if is_success => Verdict::Misrouted { is_ambiguous: true },
        401 => Verdict::Unauthorized,
        403 if is_problem => Verdict::Unauthorized,
        413 => Verdict::TooBig { limit: None },
        400 | 409 | 422 if is_problem => judge_problem(answer),
        408 | 429 | 503 => Verdict::Overloaded { after_ms: retry_after_ms(answer) },
        500.. => Verdict::ServerError,
        _ => Verdict::Misrouted { is_ambiguous: false },
    }
}

/// The verdict over a request without an answer.
pub(crate) fn judge_failure(failure: &Failure) -> Verdict {
    let is_ambiguous = failure.certainty == Certainty::Ambiguous;
    let cause = &failure.cause;
    if cause.is_unreadable() {
        Verdict::Misrouted { is_ambiguous }
    } else if is_ambiguous {
        let is_timeout = matches!(cause, ledgerline_transport::Cause::RequestTimeout { .. });
        Verdict::NoAnswer { is_timeout }
    } else if cause.is_without_connection() {
        Verdict::NotConnected
    } else if *cause == ledgerline_transport::Cause::EndedEarlier {
        Verdict::Skipped
    } else {
        Verdict::NotProcessed
    }
}

/// Whether the body of a success says of the batch what it should, as far as it says anything.
fn agrees(answer: &Answer, events: usize) -> bool {
    match ids::listed(&answer.body, events) {
        Listed::Nothing => true,
        Listed::Ids { count } => count == events,
        Listed::Count(count) => answer.status != 202 || count == events as u64,
        Listed::Unreadable => false,
    }
}

fn judge_problem(answer: &Answer) -> Verdict {
    let problem = Problem::read(&answer.body);
    let says = |slug: &[u8]| memchr::memmem::find(&answer.body, slug).is_some();
    let (is_400, is_409) = (answer.status == 400, answer.status == 409);
    if is_400 && says(TOO_MANY) {
        let limit = problem.limit.or_else(|| named_number(&answer.body, LIMIT_WORDS));
        return Verdict::TooBig { limit: limit.filter(|limit| *limit > 0) };
    }
    let is_conflict = says(ID_CONFLICT);
    if is_409 && !is_conflict {
        return Verdict::Misrouted { is_ambiguous: false };
    }
    let index = problem.index.or_else(|| named_number(&answer.body, INDEX_WORDS));
    let why = match is_409 {
        true => Why::IdConflict,
        false if problem.is_too_old() => Why::TooOld,
        false => Why::Invalid,
    };
    Verdict::Refused { index, why }
}

/// What a problem document says, as far as it can be read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem<'a> {
    #[serde(borrow)]
    detail: Option<std::borrow::Cow<'a, str>>,
    #[serde(deserialize_with = "or_none")]
    index: Option<u32>,
    #[serde(borrow)]
    field: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<std::borrow::Cow<'a, str>>,
    #[serde(deserialize_with = "or_none")]
    limit: Option<u32>,
}

/// A number that isn't one says nothing; the other members still do.
fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = serde_json::Value::deserialize(deserializer)?;
    Ok(number.as_u64().and_then(|number| u32::try_from(number).ok()))
}

impl<'a> Problem<'a> {
    fn read(body: &'a [u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Our DataStorage gives the reason; today's says it in its detail.
    fn is_too_old(&self) -> bool {
        if let Some(reason) = &self.reason {
            return reason == "too_old";
        }
        let detail = self.detail.as_deref().unwrap_or_default();
        detail.contains("timestamp") && (detail.contains("past") || detail.contains("too old"))
    }
}

/// What an answer says in the server's words, of which a problem document says most: for the log,
/// and for a dead letter's reason.
pub(crate) fn reason(answer: &Answer) -> ServerReason {
    let is_problem = has_type(answer, "application/problem+json");
    let problem = if is_problem { Problem::read(&answer.body) } else { Problem::default() };
    let named = if is_problem { named_number(&answer.body, INDEX_WORDS) } else { None };
    ServerReason {
        status: answer.status,
        detail: printable(problem.detail.as_deref().unwrap_or_default(), DETAIL_CHARS_MAX),
        rule: problem.reason.map(|rule| printable(&rule, WORD_CHARS_MAX)),
        field: problem.field.map(|field| printable(&field, WORD_CHARS_MAX)),
        index: problem.index.or(named),
    }
}

/// A text as a line of a log may have it: no longer than this, control characters escaped.
fn printable(text: &str, chars_max: usize) -> Box<str> {
    let mut line = String::new();
    for character in text.chars().take(chars_max) {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.into()
}

/// The number behind the first of these words of a text that has one.
fn named_number(body: &[u8], words: &[&[u8]]) -> Option<u32> {
    words
        .iter()
        .filter_map(|words| {
            let found = memchr::memmem::find(body, words)?;
            let rest = body[found + words.len()..].trim_ascii_start();
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // A date or an id begins with digits too.
            let is_number = |next: &u8| !next.is_ascii_alphanumeric() && *next != b'-';
            rest.get(digits).is_none_or(is_number).then_some(())?;
            std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
        })
        .next()
}

fn has_type(answer: &Answer, wanted: &str) -> bool {
    let given = answer.content_type.as_deref().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(wanted)
}

/// RFC 9110 section 10.2.3: seconds, or a date. A date is read by the server's own clock, which the
/// answer tells; ours may be another. Capped, however many digits it has.
fn retry_after_ms(answer: &Answer) -> Option<u64> {
    let text = answer.retry_after.as_deref()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if is_number {
        text.parse().unwrap_or(u64::MAX)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        let now = httpdate::parse_http_date(answer.date.as_deref()?.trim()).ok()?;
        until.duration_since(now).unwrap_or_default().as_secs()
    };
    Some(seconds.min(RETRY_AFTER_MAX_S) * 1_000)
}

/// The place of the bad event, from 0, as in `event 3: ...` or `events[3]`.
const INDEX_WORDS: &[&[u8]] = &[b"\"index\":", b"index ", b"event ", b"events[", b"event["];
/// The limit of a batch, as in `exceeds maximum allowed batch size of 500`.
const LIMIT_WORDS: &[&[u8]] =
    &[b"batch size of ", b"maximum of ", b"maximum ", b"at most ", b"limit of ", b"limit is "];
const TOO_MANY: &[u8] = b"batch-size-exceeded";
const ID_CONFLICT: &[u8] = b"event-id-conflict";
const RETRY_AFTER_MAX_S: u64 = 300;
const DETAIL_CHARS_MAX: usize = 300;
const WORD_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests;
