//! A header line that every request carries.

use std::fmt;

/// A name and a value, which may be a secret: `Debug` shows only the name.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

impl Header {
    /// None if the name is no token, or the value has other than visible ASCII characters and
    /// spaces (RFC 9110 section 5.5), or the line would change what HTTP is about.
    ///
    /// ```
    /// use ledgerline::Header;
    ///
    /// assert!(Header::new("x-tenant", "payments").is_some());
    /// assert!(Header::new("content-length", "0").is_none());
    /// assert!(Header::new("x-tenant", "a\r\nb: c").is_none());
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Option<Self> {
        let (name, value) = (name.into(), value.into());
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let is_usable = !name.is_empty()
            && name.len() + value.len() <= BYTES_MAX
            && name.bytes().all(is_token)
            && value.bytes().all(is_text)
            && !RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
        is_usable.then_some(Self { name, value })
    }

    /// From `name: value`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.split_once(':')?;
        Self::new(name.trim(), value.trim())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.name, &self.value)
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: (not shown)", self.name)
    }
}

/// What the engine itself says, or what frames a message.
const RESERVED: [&str; 8] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];
const BYTES_MAX: usize = 8 * 1024;
