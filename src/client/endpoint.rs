//! Where a vault is and how it is reached: one URL, one CA, one client certificate. Promises TLS with the vault's name checked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ClientError, error::chain};

/// How long TCP and TLS may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What it takes to reach a vault.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `https://host[:port]`, nothing after it.
    pub url: String,
    /// PEM file of the certificate authorities that may vouch for the vault; the system's are not asked.
    pub ca: PathBuf,
    /// PEM file of the client certificate, leaf first.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// One open HTTP/1.1 connection.
pub type Connection = http1::SendRequest<Full<Bytes>>;

/// A vault, checked and ready to be connected to, as often as wanted.
#[derive(Clone)]
pub struct Endpoint {
    url: String,
    authority: String,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Endpoint {
    /// Reads the files and checks the URL. Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming the file or the part of the URL to mend.
    pub fn new(options: &ConnectOptions) -> Result<Self, ClientError> {
        let url = || format!("--url {:?}", options.url);
        let uri: http::Uri = options.url.parse().map_err(|error| ClientError::Usage(format!("{}: {error}", url())))?;
        let (Some("https"), Some(authority), "" | "/", None) = (uri.scheme_str(), uri.authority(), uri.path(), uri.query()) else {
            return Err(ClientError::Usage(format!("{}: write https://host:port, with nothing after the port", url())));
        };
        if authority.as_str().contains('@') {
            return Err(ClientError::Usage("--url: a user name has no meaning here; the client certificate says who calls".into()));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(host.clone()).map_err(|error| ClientError::Usage(format!("{}: {error}", url())))?;
        Ok(Self {
            url: options.url.clone(),
            authority: authority.as_str().to_owned(),
            port: authority.port_u16().unwrap_or(443),
            host,
            server_name,
            tls: Arc::new(client_config(options)?),
        })
    }

    /// The same vault, but every connection does a full handshake.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        Arc::make_mut(&mut self.tls).resumption = Resumption::disabled();
        self
    }

    /// The `Host` of requests to it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens a connection and leaves its driver to the current runtime.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`] after at most 10 seconds.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let cannot = |reason: String| ClientError::CannotConnect { url: self.url.clone(), reason };
        let open = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| cannot(error.to_string()))?;
            // Requests are one small write each: Nagle would hold them back for a delayed ACK.
            tcp.set_nodelay(true).map_err(|error| cannot(error.to_string()))?;
            let tls = TlsConnector::from(Arc::clone(&self.tls))
                .connect(self.server_name.clone(), tcp)
                .await
                .map_err(|error| cannot(chain(&error)))?;
            let (sender, driver) = http1::handshake(TokioIo::new(tls)).await.map_err(|error| cannot(chain(&error)))?;
            // What ends the connection is told to the request that was on it.
            tokio::spawn(async move { drop(driver.await) });
            Ok(sender)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, open)
            .await
            .unwrap_or_else(|_| Err(cannot(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))))
    }
}

fn client_config(options: &ConnectOptions) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--ca", &options.ca)? {
        roots.add(certificate).map_err(|error| unusable("--ca", &options.ca, &error))?;
    }
    let chain = certificates("--cert", &options.cert)?;
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|error| unusable("--key", &options.key, &error))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| ClientError::Usage(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("--cert and --key", &options.cert, &error))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error: rustls::pki_types::pem::Error| unusable(flag, path, &error))?;
    if all.is_empty() {
        return Err(ClientError::Usage(format!("{flag} {}: holds no certificate in PEM", path.display())));
    }
    Ok(all)
}

fn unusable(flag: &str, path: &Path, error: &dyn std::error::Error) -> ClientError {
    ClientError::Usage(format!("{flag} {}: {}", path.display(), chain(error)))
}
