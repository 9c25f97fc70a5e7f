//! HTTP/1.1 towards one endpoint: request bodies out, answers back.
//!
//! Two layers. [`h1::Pipeline`] is the machine of one connection: bytes and time in, bytes and
//! outcomes out, without sockets, clock or runtime. [`Connection`] is tokio around it: it connects
//! when there is something to send, keeps the connection, and replaces it when it is gone.
//!
//! Invariant: every request that is handed over ends in exactly one [`What::Answered`] or
//! [`What::Failed`], and a failure says whether the server may have processed the request.
//!
//! Limit: HTTP/1.1 only, plain, or over TLS 1.2 and 1.3 with the feature `tls-aws-lc-rs` or
//! `tls-ring`. Nothing is retried here: what a status means, and when to try again, is for the
//! caller to decide.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use ledgerline_transport::{Connection, ConnectionConfig, Endpoint, What};
//! use tokio::sync::mpsc;
//!
//! # async fn example() -> Result<(), ledgerline_transport::EndpointError> {
//! let endpoint = Arc::new(Endpoint::parse("http://localhost:8080/audit")?);
//! let target = endpoint.post("/batch")?;
//! let (events, mut happenings) = mpsc::unbounded_channel();
//! let connection = Connection::spawn(0, endpoint, ConnectionConfig::default(), events);
//! connection.send(1, &target, "", vec![Bytes::from_static(b"[]")]);
//! while let Some(event) = happenings.recv().await {
//!     match event.what {
//!         What::FirstByte(at) => println!("under way since {at:?}"),
//!         What::Answered(answer) => return Ok(println!("status {}", answer.status)),
//!         What::Failed(failure) => return Ok(println!("{failure}")),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod connection;
mod endpoint;
pub mod h1;
mod outcome;
mod stamp;
mod stream;
#[cfg(feature = "__tls")]
mod tls;

pub use connection::{Connection, ConnectionConfig, ConnectionEvent};
pub use endpoint::{Endpoint, EndpointError, Target};
pub use outcome::{Answer, Cause, Certainty, Failure, Garbled, IoFault, Part, TooLarge, What};
pub use stamp::FileStamp;
#[cfg(feature = "__tls")]
pub use tls::{Tls, TlsError, TlsFiles};
