//! TLS in front of a server: certificates of its own making, and whatever passes them goes on as it
//! is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// An authority, and the certificates that it has given, as files.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    directory: TempDir,
}

/// A running front. It stops when it is dropped.
#[derive(Debug)]
pub struct Front {
    addr: SocketAddr,
    _runtime: Runtime,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If there is no room for its files.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it signs for itself");
        let directory = tempfile::tempdir().expect("there is room for a temporary directory");
        let authority =
            Self { der: certificate.der().clone(), issuer: Issuer::new(params, key), directory };
        authority.write("ca.pem", &certificate.pem());
        authority
    }

    /// Its own certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A new client's certificate and key.
    ///
    /// # Panics
    /// If there is no room for the files.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue("client");
        (
            self.write("client.pem", &certificate.pem()),
            self.write("client.key", &key.serialize_pem()),
        )
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("keys can be made");
        let params = CertificateParams::new([name.to_owned()]).expect("a valid name");
        (params.signed_by(&key, &self.issuer).expect("it signs"), key)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("there is room for a file");
        path
    }

    /// TLS in front of the server at this address, which asks clients for certificates of this
    /// authority if it is told to.
    ///
    /// # Panics
    /// If it doesn't start.
    #[must_use]
    pub fn front(&self, server: SocketAddr, asks_clients: bool) -> Front {
        let (certificate, key) = self.issue("localhost");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the default versions exist");
        let builder = if asks_clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).expect("a valid certificate");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("an authority to trust"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key as it was made");
        let config = builder.with_single_cert(vec![certificate.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("they belong together")));
        let runtime = Runtime::new().expect("threads to be had");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port on the loopback");
        let addr = listener.local_addr().expect("a bound socket has an address");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Front { addr, _runtime: runtime }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Front {
    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }
}
