//! A vault that can be connected to: one URL, one CA, one client certificate. The certificate of the vault must have the name in the URL.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};

use super::{
    ClientError,
    connector::{Connection, TlsFiles, connect},
};

/// Timeout of the TCP and TLS handshakes together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a vault.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `https://host[:port]`, without a path.
    pub url: String,
    /// PEM file of the certificate authorities that may issue the certificate of the vault.
    pub ca: PathBuf,
    /// PEM file of the client certificate, leaf first.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A vault whose URL and files are valid. It can be connected to any number of times.
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
    /// Checks the URL and reads the files. Sends nothing.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming the file or the fault of the URL.
    pub fn new(options: &ConnectOptions) -> Result<Self, ClientError> {
        Self::with(&options.url, Arc::new(client_config(options)?))
    }

    /// The same files with another URL.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming the fault of the URL.
    pub fn at(&self, url: &str) -> Result<Self, ClientError> {
        Self::with(url, Arc::clone(&self.tls))
    }

    fn with(text: &str, tls: Arc<ClientConfig>) -> Result<Self, ClientError> {
        let url = || format!("--url {text:?}");
        let uri: http::Uri = text.parse().map_err(|error| ClientError::Usage(format!("{}: {error}", url())))?;
        let (Some("https"), Some(authority), "" | "/", None) = (uri.scheme_str(), uri.authority(), uri.path(), uri.query()) else {
            return Err(ClientError::Usage(format!("{}: write https://host:port, without a path", url())));
        };
        if authority.as_str().contains('@') {
            return Err(ClientError::Usage("--url: remove the user name; the client certificate identifies the caller".into()));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(host.clone()).map_err(|error| ClientError::Usage(format!("{}: {error}", url())))?;
        Ok(Self {
            url: text.to_owned(),
            authority: authority.as_str().to_owned(),
            port: authority.port_u16().unwrap_or(443),
            host,
            server_name,
            tls,
        })
    }

    /// The same vault, with a full TLS handshake for every connection.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        Arc::make_mut(&mut self.tls).resumption = Resumption::disabled();
        self
    }

    /// The `Host` header of requests.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The URL as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`], after at most 10 seconds.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let cannot = |reason: String| ClientError::CannotConnect { url: self.url.clone(), reason };
        let tls = (self.server_name.clone(), Arc::clone(&self.tls));
        match tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.host, self.port, Some(tls))).await {
            Ok(connected) => connected.map_err(|fault| cannot(fault.to_string())),
            Err(_) => Err(cannot(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }
}

fn client_config(options: &ConnectOptions) -> Result<ClientConfig, ClientError> {
    let files = TlsFiles { ca: Some(options.ca.clone()), client: Some((options.cert.clone(), options.key.clone())) };
    files.client_config().map_err(|error| {
        let flag = if error.file == options.ca {
            "--ca"
        } else if error.file == options.key {
            "--key"
        } else {
            "--cert"
        };
        ClientError::Usage(format!("{flag} {}: {}", error.file.display(), error.problem))
    })
}
