//! What a connection reads from and writes to: a socket, or TLS on one.

use std::{io, mem::MaybeUninit};

use socket2::SockRef;

#[cfg(not(feature = "__tls"))]
pub(crate) use tokio::net::TcpStream as Stream;

#[cfg(feature = "__tls")]
pub(crate) use self::either::Stream;

/// Whether the system holds something that was not read: bytes, the end, or an error. Asks the
/// system itself, which knows earlier than the runtime.
pub(crate) fn has_unread(stream: &Stream) -> bool {
    #[cfg(feature = "__tls")]
    let stream = stream.tcp();
    let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(feature = "__tls")]
mod either;
