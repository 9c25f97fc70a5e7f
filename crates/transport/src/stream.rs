//! What a connection reads from and writes to: a socket, or TLS on one.

#[cfg(not(feature = "__tls"))]
pub(crate) use tokio::net::TcpStream as Stream;

#[cfg(feature = "__tls")]
pub(crate) use self::either::Stream;

#[cfg(feature = "__tls")]
mod either;
