//! Whom to trust, and what to show: TLS with rustls, from files that may be replaced.
//!
//! The files are looked at whenever a connection is made, through symbolic links, as Kubernetes
//! swaps them; if one has changed, all are read anew. Connections that are there keep what they
//! agreed on. Invariant: files that can't be used replace none that could. Limit: looking at files
//! blocks the engine's thread for as long as their file system takes; secrets lie in memory.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WantsClientCert;
#[cfg(feature = "tls-aws-lc-rs")]
use rustls::crypto::aws_lc_rs as crypto;
#[cfg(not(feature = "tls-aws-lc-rs"))]
use rustls::crypto::ring as crypto;
use rustls::{ClientConfig, ConfigBuilder, InvalidMessage, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::FileStamp;

/// The files, all PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust. None: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, with those between it and its authority, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The files can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{}: {why}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The host's name can be in no certificate.
    #[error("invalid host name")]
    Host(#[from] InvalidDnsNameError),
    /// What the files say can't be used together, or the system has no authorities.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The server answered in something else than TLS.
    #[error("the server does not speak TLS: the endpoint should begin with http://")]
    NoTls,
    /// The server and we came to no agreement.
    #[error(transparent)]
    Handshake(#[from] io::Error),
}

/// TLS as the files say at present. Any thread may use it.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    stamps: Vec<Option<FileStamp>>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file can't be used, and why.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let config = Arc::new(files.load()?);
        Ok(Self { files, current: Mutex::new(Current { stamps, config }) })
    }

    /// A connection to the host over this stream. Cancel safe as far as the stream goes with it.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(host.to_owned())?;
        let connected = TlsConnector::from(self.config()).connect(name, stream).await;
        connected.map_err(|error| if is_no_tls(&error) { TlsError::NoTls } else { error.into() })
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != current.stamps {
            match self.files.load() {
                Ok(config) => *current = Current { stamps, config: Arc::new(config) },
                // Perhaps half written: looked at again by the next connection.
                Err(error) => tracing::warn!(%error, "changed TLS files can't be used"),
            }
        }
        Arc::clone(&current.config)
    }
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Option<FileStamp>> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(identity).map(|path| FileStamp::of(path)).collect()
    }

    fn load(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder: ConfigBuilder<ClientConfig, WantsClientCert> = match &self.ca {
            None => builder.with_platform_verifier()?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
                builder.with_root_certificates(roots)
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let parsed = PrivateKeyDer::from_pem_slice(&read(key)?);
                let parsed = parsed.map_err(|error| pem(key, &error))?;
                builder.with_client_auth_cert(certificates(certificate)?, parsed)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn is_no_tls(error: &io::Error) -> bool {
    let said = error.get_ref().and_then(|said| said.downcast_ref::<rustls::Error>());
    let no_record = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
    said.is_some_and(|said| *said == no_record)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| pem(path, &error))?;
    if found.is_empty() {
        return Err(pem(path, &"no certificate in it"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn pem(path: &Path, why: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), why: why.to_string() }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}
