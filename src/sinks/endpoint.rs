//! The address of a sink's server, and connections to it over TLS. The CA and certificate files are read for every connection.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::SinkFault;
use crate::client::connector::{ConnectFault, Connection, TlsFiles, connect, connect_tls};

/// The URL of an HTTP sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpUrl {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    /// The value of `Host`.
    pub(super) authority: String,
}

impl HttpUrl {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@') && !text.contains('#'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        ServerName::try_from(host.clone()).ok()?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Some(Self { tls, host, port, path, authority: authority.as_str().to_owned() })
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The address of a syslog sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyslogAddress {
    pub(super) host: String,
    pub(super) port: u16,
}

impl SyslogAddress {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(host.clone()).ok()?;
        Some(Self { host, port: port.parse().ok().filter(|port| *port != 0)? })
    }
}

/// A server, with the files that a connection needs.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: plain TCP.
    pub(super) tls: Option<TlsFiles>,
}

impl Server {
    pub(super) fn files(ca: Option<PathBuf>, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> TlsFiles {
        TlsFiles { ca, client: certificate.cloned().zip(key.cloned()) }
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Opens an HTTP/1.1 connection.
    pub(super) async fn http(&self) -> Result<Connection, SinkFault> {
        let tls = self.tls_parts().await?;
        connect(&self.host, self.port, tls).await.map_err(|fault| self.fault(fault))
    }

    /// Opens a TLS connection.
    pub(super) async fn stream(&self) -> Result<TlsStream<TcpStream>, SinkFault> {
        let plain = || SinkFault::Tls { address: self.address(), reason: "the sink has no CA".into() };
        let (name, config) = self.tls_parts().await?.ok_or_else(plain)?;
        connect_tls(&self.host, self.port, name, config).await.map_err(|fault| self.fault(fault))
    }

    async fn tls_parts(&self) -> Result<Option<(ServerName<'static>, Arc<ClientConfig>)>, SinkFault> {
        let Some(files) = self.tls.clone() else { return Ok(None) };
        let unreachable = |reason: String| SinkFault::Unreachable { address: self.address(), reason };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(error.to_string()))?;
        let config = tokio::task::spawn_blocking(move || files.client_config()).await.map_err(|error| unreachable(error.to_string()))?;
        let config = config.map_err(|error| SinkFault::Settings { file: error.file, problem: error.problem })?;
        Ok(Some((name, Arc::new(config))))
    }

    fn fault(&self, fault: ConnectFault) -> SinkFault {
        match fault {
            ConnectFault::Network(reason) => SinkFault::Unreachable { address: self.address(), reason },
            ConnectFault::Tls(reason) => SinkFault::Tls { address: self.address(), reason },
        }
    }
}
