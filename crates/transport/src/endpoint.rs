//! Where requests go, and the heads that take them there.
//!
//! Invariant: what has been parsed needs no more checks: a [`Target`] is a request head that lacks
//! nothing but the length of its content, and nothing in it can end a line early.
//!
//! Limit: `http`, and in a build with TLS `https`; a host name, an IPv4 address or a bracketed IPv6
//! address; `POST` of JSON.

use std::{fmt, net::Ipv6Addr};

use bytes::Bytes;
use thiserror::Error;

/// One server, and the path that all its resources share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    is_tls: bool,
    /// Without brackets.
    host: Box<str>,
    port: u16,
    /// As RFC 9110 section 7.2 wants it in `host`: with brackets, without the default port.
    authority: Box<str>,
    /// Empty, or begins with a slash and doesn't end with one.
    prefix: Box<str>,
}

/// Where at an [`Endpoint`] a request goes: its head up to the value of `content-length`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Box<str>);

/// What is wrong with an endpoint or a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It doesn't start with `http://` or `https://`.
    #[error("an endpoint begins with http:// or https://")]
    Scheme,
    /// It starts with `https://`, and this build was made without TLS.
    #[error("https needs the cargo feature tls-aws-lc-rs or tls-ring, and this build has neither")]
    NoTls,
    /// It has a user name, or a password, which are not repeated here.
    #[error("an endpoint takes no user name and no password")]
    UserInfo,
    /// The host is neither a name, nor an IPv4 address, nor a bracketed IPv6 address.
    #[error("invalid host {0:?}")]
    Host(String),
    /// The port is not between 1 and 65535.
    #[error("invalid port {0:?}, must be 1 to 65535")]
    Port(String),
    /// It has a query.
    #[error("an endpoint and its paths take no query")]
    Query,
    /// It has a fragment.
    #[error("an endpoint and its paths take no fragment")]
    Fragment,
    /// The path doesn't start with a slash, or has a character that a path must encode.
    #[error("invalid path {0:?}")]
    Path(String),
}

impl Endpoint {
    /// Parses `http://host:port/prefix` or `https://host:port/prefix`, port and prefix being
    /// optional.
    ///
    /// ```
    /// use ledgerline_transport::Endpoint;
    ///
    /// let endpoint = Endpoint::parse("http://[::1]:8080/api/")?;
    /// assert_eq!(endpoint.to_string(), "http://[::1]:8080/api");
    /// # Ok::<(), ledgerline_transport::EndpointError>(())
    /// ```
    ///
    /// # Errors
    /// Says which part of `text` can't be used.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::Scheme)?;
        let is_tls = scheme.eq_ignore_ascii_case("https");
        if !is_tls && !scheme.eq_ignore_ascii_case("http") {
            return Err(EndpointError::Scheme);
        }
        if is_tls && !cfg!(feature = "__tls") {
            return Err(EndpointError::NoTls);
        }
        // RFC 3986 section 3.2: the authority ends at the first of these.
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let prefix = path.trim_end_matches('/');
        if !prefix.is_empty() {
            check_path(prefix)?;
        }
        let port_default = if is_tls { TLS_PORT_DEFAULT } else { PORT_DEFAULT };
        let (host, port) = split_authority(authority, port_default)?;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority =
            if port == port_default { bracketed } else { format!("{bracketed}:{port}") };
        let (host, authority, prefix) = (host.into(), authority.into(), prefix.into());
        Ok(Self { is_tls, host, port, authority, prefix })
    }

    /// A `POST` of JSON to `path`, which is appended to the prefix.
    ///
    /// # Errors
    /// If `path` doesn't start with a slash or isn't a plain, encoded path.
    pub fn post(&self, path: &str) -> Result<Target, EndpointError> {
        check_path(path)?;
        let Self { authority, prefix, .. } = self;
        Ok(Target(
            format!(
                "POST {prefix}{path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: {USER_AGENT}\r\n\
                 content-type: application/json\r\ncontent-length: "
            )
            .into(),
        ))
    }

    /// A `GET` of `path`, which is appended to the prefix.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn get(&self, path: &str) -> Result<Target, EndpointError> {
        check_path(path)?;
        let Self { authority, prefix, .. } = self;
        let line = format!("GET {prefix}{path} HTTP/1.1\r\nhost: {authority}\r\n");
        Ok(Target(format!("{line}user-agent: {USER_AGENT}\r\ncontent-length: ").into()))
    }

    /// The host as a resolver wants it: an IPv6 address has no brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether connections are to be encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl Target {
    /// The whole head of a request with so many bytes of content, and with these lines beside, each
    /// of which ends with a CRLF.
    #[must_use]
    pub fn head(&self, content_length: usize, lines: &str) -> Bytes {
        let mut digits = itoa::Buffer::new();
        Bytes::from([&self.0, digits.format(content_length), "\r\n", lines, "\r\n"].concat())
    }
}

fn split_authority(authority: &str, port_default: u16) -> Result<(&str, u16), EndpointError> {
    let invalid_host = || EndpointError::Host(authority.to_owned());
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or_else(invalid_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| invalid_host())?;
        match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if port.is_empty() => (host, None),
            None => return Err(invalid_host()),
        }
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        // The underscore is in no host name by the book, but in many service names.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(is_name) {
            return Err(invalid_host());
        }
        (host, port)
    };
    let port = port.map_or(Ok(port_default), |port| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|number| digits && *number > 0);
        number.ok_or_else(|| EndpointError::Port(port.to_owned()))
    })?;
    Ok((host, port))
}

/// RFC 3986 section 3.3: slashes and `pchar`s, of which the encoded ones are taken as they are.
fn check_path(path: &str) -> Result<(), EndpointError> {
    if path.contains('#') {
        return Err(EndpointError::Fragment);
    }
    if path.contains('?') {
        return Err(EndpointError::Query);
    }
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if path.starts_with('/') && path.bytes().all(is_plain) {
        Ok(())
    } else {
        Err(EndpointError::Path(path.to_owned()))
    }
}

const PORT_DEFAULT: u16 = 80;
const TLS_PORT_DEFAULT: u16 = 443;

/// The longest name that DNS can hold.
const HOST_BYTES_MAX: usize = 253;

const USER_AGENT: &str = concat!("ledgerline/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_taken_apart_and_put_together() {
        let cases = [
            ("http://a", "a", 80, "http://a"),
            ("HTTP://a.b-c:80/", "a.b-c", 80, "http://a.b-c"),
            (
                "http://data_storage:8080/api/v1//",
                "data_storage",
                8080,
                "http://data_storage:8080/api/v1",
            ),
            ("http://127.0.0.1:9", "127.0.0.1", 9, "http://127.0.0.1:9"),
            ("https://a/x", "a", 443, "https://a/x"),
            ("https://a:80", "a", 80, "https://a:80"),
            ("http://[::1]", "::1", 80, "http://[::1]"),
            (
                "http://[2001:db8::1]:65535/x%20y",
                "2001:db8::1",
                65535,
                "http://[2001:db8::1]:65535/x%20y",
            ),
        ];
        for (text, host, port, shown) in cases {
            if text.starts_with("https") && !cfg!(feature = "__tls") {
                assert_eq!(Endpoint::parse(text), Err(EndpointError::NoTls));
                continue;
            }
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(shown).as_ref(), Ok(&endpoint), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        use EndpointError::{Fragment, Host, Path, Port, Query, Scheme, UserInfo};
        let cases = [
            ("", Scheme),
            ("localhost:8080", Scheme),
            ("ftp://a", Scheme),
            ("http://user:secret@a", UserInfo),
            ("http://", Host(String::new())),
            ("http://:80", Host(":80".into())),
            ("http://a b", Host("a b".into())),
            ("http://::1", Host("::1".into())),
            ("http://[::1", Host("[::1".into())),
            ("http://[::1]80", Host("[::1]80".into())),
            ("http://[a]", Host("[a]".into())),
            ("http://a:", Port(String::new())),
            ("http://a:0", Port("0".into())),
            ("http://a:+80", Port("+80".into())),
            ("http://a:65536", Port("65536".into())),
            ("http://a?x=1", Query),
            ("http://a/b?x=1", Query),
            ("http://a/b#c", Fragment),
            ("http://a/b c", Path("/b c".into())),
            ("http://a/b\r\nx: y", Path("/b\r\nx: y".into())),
        ];
        for (text, error) in cases {
            assert_eq!(Endpoint::parse(text), Err(error), "{text:?}");
        }
        let long = format!("http://{}", "a".repeat(HOST_BYTES_MAX + 1));
        assert!(matches!(Endpoint::parse(&long), Err(Host(_))));
    }

    #[test]
    fn no_error_repeats_a_password() {
        let error = Endpoint::parse("http://user:secret@host:x/y z").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_target_is_a_whole_request_head() {
        let endpoint = Endpoint::parse("http://a:8080/api").unwrap();
        let target = endpoint.post("/batch").unwrap();
        let expected = format!(
            "POST /api/batch HTTP/1.1\r\nhost: a:8080\r\nuser-agent: ledgerline/{}\r\n\
             content-type: application/json\r\ncontent-length: 1234\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(target.head(1_234, ""), expected);
        for path in ["", "batch", "/a b", "/a\r\nx: y", "/\u{e9}"] {
            assert_eq!(endpoint.post(path), Err(EndpointError::Path(path.into())), "{path:?}");
        }
    }
}
