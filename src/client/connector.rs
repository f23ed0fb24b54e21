//! The HTTP/1.1 connector: TCP, TLS with the name of the server checked, and a client certificate. The API client and the OpenBao client
//! use it.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use http_body_util::Full;
use hyper::{
    body::Bytes,
    client::conn::http1,
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use super::error::chain;
use crate::{
    crypto::{read_certificate_file, read_private_key},
    files::{self, MAX_FILE},
};

/// One open HTTP/1.1 connection.
pub type Connection = http1::SendRequest<Full<Bytes>>;

/// The PEM files of a TLS client.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate authorities that may issue the certificate of the server. `None`: no authority, so that every handshake fails. The
    /// authorities of the operating system are never used.
    pub ca: Option<PathBuf>,
    /// The client certificate, leaf first, and its private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A PEM file that cannot be used.
#[derive(Debug)]
pub struct TlsFileError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, and how to fix it.
    pub problem: String,
}

/// Why no connection can be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// The network or the server.
    #[error("{0}")]
    Network(String),
    /// TLS: a certificate is not accepted, or the two have no version in common.
    #[error("{0}")]
    Tls(String),
}

impl TlsFiles {
    /// Reads the files: a configuration for TLS 1.3 and 1.2.
    ///
    /// # Errors
    /// [`TlsFileError`], naming the file.
    pub fn client_config(&self) -> Result<ClientConfig, TlsFileError> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| fault(ca, &error))?;
            }
        }
        let unsupported = |error: rustls::Error| fault(self.ca.as_deref().unwrap_or(Path::new("")), &error);
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unsupported)?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate)?;
        builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let certificate = certificate.display();
                let problem =
                    format!("the key does not belong to the certificate {certificate}, whose first section must be that of the client");
                TlsFileError { file: key.clone(), problem }
            }
            error => fault(certificate, &error),
        })
    }
}

/// Opens a connection and leaves its driver to the current runtime. Without `tls` the connection is plain TCP.
///
/// # Errors
/// Why the server cannot be reached. The caller sets the timeout.
pub async fn connect(host: &str, port: u16, tls: Option<(ServerName<'static>, Arc<ClientConfig>)>) -> Result<Connection, ConnectFault> {
    match tls {
        Some((name, config)) => http_handshake(connect_tls(host, port, name, config).await?).await,
        None => http_handshake(connect_tcp(host, port).await?).await,
    }
}

/// Opens a TLS connection whose server has this name.
///
/// # Errors
/// As [`connect`].
pub async fn connect_tls(
    host: &str,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectFault> {
    let failed = |error: std::io::Error| {
        let text = chain(&error);
        if is_tls(&error) { ConnectFault::Tls(text) } else { ConnectFault::Network(text) }
    };
    TlsConnector::from(config).connect(name, connect_tcp(host, port).await?).await.map_err(failed)
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, ConnectFault> {
    let network = |error: std::io::Error| ConnectFault::Network(error.to_string());
    let tcp = TcpStream::connect((host, port)).await.map_err(network)?;
    // Each request is one small write. Nagle's algorithm would delay it until the next ACK.
    tcp.set_nodelay(true).map_err(network)?;
    Ok(tcp)
}

/// Whether TLS, and not the network, is the cause of an error. The other side may refuse a client certificate after the handshake.
pub fn is_tls(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source()).any(|error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.is::<rustls::Error>() || inner.is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
    })
}

async fn http_handshake<S>(stream: S) -> Result<Connection, ConnectFault>
where
    TokioIo<S>: Read + Write + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| ConnectFault::Network(chain(&error)))?;
    // The request on the connection gets the error of the driver.
    tokio::spawn(async move { drop(driver.await) });
    Ok(sender)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    read_certificate_file(&read(file)?).map_err(|problem| TlsFileError { file: file.to_owned(), problem })
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    read_private_key(&read(file)?).map_err(|problem| TlsFileError { file: file.to_owned(), problem })
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsFileError> {
    files::read(file, MAX_FILE).map_err(|error| fault(file, &error))
}

fn fault(file: &Path, error: &dyn std::error::Error) -> TlsFileError {
    TlsFileError { file: file.to_owned(), problem: chain(error) }
}
