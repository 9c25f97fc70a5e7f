//! The head of a response: status, framing, and the few fields that matter.
//!
//! Invariant: the framing follows RFC 9112 section 6.3, and where that leaves a choice between
//! tolerating and refusing a contradiction, it is refused: a wrong guess would match an answer to
//! the wrong request.
//!
//! Limit: fields other than the framing, `connection`, `content-type` and `retry-after` are checked
//! for syntax and dropped.

use httparse::{Header, ParserConfig, Response, Status};

use super::{Limits, chunked::ChunkDecoder};
use crate::{Cause, Garbled, Part, TooLarge};

/// A parsed response head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) retry_after: Option<String>,
    pub(super) date: Option<String>,
    pub(super) framing: Framing,
    pub(super) ending: Ending,
    /// The limit that it is above.
    pub(super) too_large: Option<TooLarge>,
}

/// Where the content ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// Where the chunks say so.
    Chunked(ChunkDecoder),
    /// Where the connection ends.
    UntilClose,
}

/// Whether the connection ends with this response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It persists.
    No,
    /// Its content ends with the connection, but the server has not said that it processes no
    /// later request.
    Undeclared,
    /// The server said so, and processes no later request (RFC 9112 section 9.6).
    Declared,
}

impl Head {
    /// Parses a head at the start of `window`; with its length, or nothing if there is more to it.
    pub(super) fn parse(window: &[u8], limits: &Limits) -> Result<Option<(Self, usize)>, Cause> {
        // httparse skips empty lines, which RFC 9112 section 2.2 allows before requests only.
        if window.first().is_some_and(|byte| *byte != b'H') {
            return foreign(window).map_or(Ok(None), |garbled| Err(Cause::Garbled(garbled)));
        }
        let mut headers: Vec<Header<'_>> = Vec::with_capacity(limits.headers_max);
        let room = &mut headers.spare_capacity_mut()[..limits.headers_max];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, window, room)
            .map_err(|error| syntax(error, limits))?;
        let (Status::Complete(length), Some(status), Some(version)) =
            (parsed, response.code, response.version)
        else {
            return Ok(None);
        };
        let mut fields = Fields::default();
        response.headers.iter().for_each(|header| fields.add(header));
        Ok(Some((Self::new(status, version, fields)?, length)))
    }

    /// What the status and the fields say together.
    pub(super) fn new(status: u16, version: u8, fields: Fields) -> Result<Self, Cause> {
        if status < 100 {
            return Err(Cause::Garbled(Garbled::Status(status)));
        }
        if status == 101 {
            return Err(Cause::Garbled(Garbled::Upgrade));
        }
        let old = version == 0;
        let framing = fields.framing(status, old)?;
        let ending = fields.ending(old, &framing);
        let Fields { content_type, retry_after, date, .. } = fields;
        Ok(Self { status, content_type, retry_after, date, framing, ending, too_large: None })
    }

    /// Whether a final response is still to come.
    pub(super) fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// What the header fields say, each list joined over its lines.
#[derive(Debug, Default)]
pub(super) struct Fields {
    content_type: Option<String>,
    retry_after: Option<String>,
    date: Option<String>,
    lengths: Lengths,
    codings: Codings,
    close: bool,
    keep_alive: bool,
}

/// The values of `content-length`.
#[derive(Debug, Default)]
enum Lengths {
    #[default]
    Absent,
    Agreed(u64),
    Invalid,
}

/// The values of `transfer-encoding`.
#[derive(Debug, Default, PartialEq, Eq)]
enum Codings {
    #[default]
    Absent,
    Empty,
    ChunkedOnce,
    Other,
}

impl Fields {
    /// Takes in one more field.
    pub(super) fn add(&mut self, Header { name, value }: &Header<'_>) {
        if name.eq_ignore_ascii_case(CONTENT_LENGTH) {
            elements(value).for_each(|element| self.add_length(element));
        } else if name.eq_ignore_ascii_case(TRANSFER_ENCODING) {
            self.add_codings(value);
        } else if name.eq_ignore_ascii_case(CONNECTION) {
            for element in elements(value) {
                self.close |= element.eq_ignore_ascii_case(b"close");
                self.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case("content-type") && self.content_type.is_none() {
            self.content_type = text(value);
        } else if name.eq_ignore_ascii_case("retry-after") && self.retry_after.is_none() {
            self.retry_after = text(value);
        } else if name.eq_ignore_ascii_case("date") && self.date.is_none() {
            self.date = text(value);
        }
    }

    /// Whether the end of the content, or of the connection, depends on the field of this name.
    pub(super) fn are_framed_by(name: &str) -> bool {
        [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION]
            .iter()
            .any(|framing| name.eq_ignore_ascii_case(framing))
    }

    /// Equal lengths may be merged, anything else is an error (RFC 9112 section 6.3, rule 5).
    fn add_length(&mut self, element: &[u8]) {
        let digits = !element.is_empty() && element.iter().all(u8::is_ascii_digit);
        // A length beyond u64 is beyond every limit, which is all that is asked of it later.
        let length = element.iter().fold(0_u64, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0')))
        });
        self.lengths = match self.lengths {
            Lengths::Absent if digits => Lengths::Agreed(length),
            Lengths::Agreed(known) if digits && known == length => Lengths::Agreed(known),
            _ => Lengths::Invalid,
        };
    }

    fn add_codings(&mut self, value: &[u8]) {
        if self.codings == Codings::Absent {
            self.codings = Codings::Empty;
        }
        for coding in elements(value).filter(|coding| !coding.is_empty()) {
            let first = self.codings == Codings::Empty;
            let chunked = first && coding.eq_ignore_ascii_case(b"chunked");
            self.codings = if chunked { Codings::ChunkedOnce } else { Codings::Other };
        }
    }

    /// RFC 9112 section 6.3, for the answer to a POST.
    fn framing(&self, status: u16, old: bool) -> Result<Framing, Cause> {
        // Rule 1: these have no content, whatever their fields say.
        if status < 200 || status == 204 || status == 304 {
            return Ok(Framing::Length(0));
        }
        match (&self.codings, &self.lengths) {
            (Codings::Absent, Lengths::Absent) => Ok(Framing::UntilClose),
            (Codings::Absent, Lengths::Invalid) => Err(Cause::Garbled(Garbled::ContentLength)),
            (Codings::Absent, Lengths::Agreed(length)) => Ok(Framing::Length(*length)),
            (_, Lengths::Agreed(_) | Lengths::Invalid) => Err(Cause::Garbled(Garbled::TwoLengths)),
            // Section 6.1: with HTTP/1.0 the framing counts as faulty.
            (Codings::ChunkedOnce, _) if !old => Ok(Framing::Chunked(ChunkDecoder::default())),
            _ => Err(Cause::Garbled(Garbled::TransferEncoding)),
        }
    }

    /// RFC 9112 section 9.3.
    fn ending(&self, old: bool, framing: &Framing) -> Ending {
        if self.close || (old && !self.keep_alive) {
            Ending::Declared
        } else if matches!(framing, Framing::UntilClose) {
            Ending::Undeclared
        } else {
            Ending::No
        }
    }
}

/// What begins with these bytes, and is no response. None: so far it may be several things.
pub(super) fn foreign(window: &[u8]) -> Option<Garbled> {
    // RFC 4253 section 4.2; RFC 8446 section 5.1: an alert or a handshake of TLS 1.x; RFC 9113
    // sections 3.4 and 6.5: the first frame of a server is its settings, on stream 0.
    let speaks = [
        (Garbled::Ssh, &b"SSH-"[..], 0),
        (Garbled::Tls, b"\x15\x03", 0),
        (Garbled::Tls, b"\x16\x03", 0),
        (Garbled::Http2, b"\x04\x00\x00\x00\x00\x00", 3),
    ];
    let mut is_open = false;
    for (garbled, mark, at) in speaks {
        let given = window.get(at..).unwrap_or_default();
        let is_possible = at == 0 || window.first() == Some(&0);
        if is_possible && given.starts_with(mark) {
            return Some(garbled);
        }
        is_open |= is_possible && mark.starts_with(given);
    }
    if is_open { None } else { Some(Garbled::StatusLine) }
}

/// Our own words for what the parser refused.
fn syntax(error: httparse::Error, limits: &Limits) -> Cause {
    match error {
        httparse::Error::TooManyHeaders => {
            Cause::TooLarge(TooLarge { part: Part::Headers, limit: limits.headers_max })
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => {
            Cause::Garbled(Garbled::Header)
        }
        httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
            Cause::Garbled(Garbled::StatusLine)
        }
    }
}

/// The elements of a comma-separated list, empty ones included.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A field that is passed on as text. Outside of ASCII it has no agreed meaning (RFC 9110 section
/// 5.5), and counts as absent.
fn text(value: &[u8]) -> Option<String> {
    str::from_utf8(value.trim_ascii()).ok().filter(|text| text.is_ascii()).map(str::to_owned)
}

const CONTENT_LENGTH: &str = "content-length";
const TRANSFER_ENCODING: &str = "transfer-encoding";
const CONNECTION: &str = "connection";
