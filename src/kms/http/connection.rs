//! Connections to the server of a KMS: TLS with the server name verified, or plain TCP where the caller permits it.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::time::timeout;

use super::Address;
use crate::{
    client::connector::{ConnectFault, Connection, TlsFiles, connect},
    kms::{Outage, call_error::CallError},
};

/// A server, as a connection needs it. The files are read for every connection, so that certificates can be replaced while the
/// vault serves requests.
pub(in crate::kms) struct ServerAddress {
    pub(in crate::kms) address: Address,
    pub(in crate::kms) files: TlsFiles,
    pub(in crate::kms) connect_timeout: Duration,
}

/// Why no connection can be opened.
enum ConnectError {
    /// The network or the server.
    Network(String),
    /// A certificate.
    Tls(String),
    /// A file of the configuration.
    File(String),
}

impl From<ConnectFault> for ConnectError {
    fn from(fault: ConnectFault) -> Self {
        match fault {
            ConnectFault::Network(reason) => Self::Network(reason),
            ConnectFault::Tls(reason) => Self::Tls(reason),
        }
    }
}

impl ServerAddress {
    /// Opens a connection.
    ///
    /// # Errors
    /// `Misconfigured` for a file that cannot be used, otherwise an outage. The reason is logged.
    pub(in crate::kms) async fn open(&self) -> Result<Connection, CallError> {
        let (outage, reason) = match timeout(self.connect_timeout, self.try_open()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(ConnectError::File(problem))) => return Err(CallError::Misconfigured(problem)),
            Ok(Err(ConnectError::Network(reason))) => (Outage::Unreachable, reason),
            Ok(Err(ConnectError::Tls(reason))) => (Outage::TlsFailed, reason),
            Err(_) => (Outage::TimedOut, "the connection timed out".to_owned()),
        };
        tracing::warn!(address = %self.address, reason, "the server of the KMS cannot be reached");
        Err(CallError::Outage(outage))
    }

    /// The reason of a failed connection. `None` if one can be opened.
    pub(in crate::kms) async fn fault(&self) -> Option<String> {
        match timeout(self.connect_timeout, self.try_open()).await {
            Ok(Ok(_)) => None,
            Ok(Err(ConnectError::File(reason) | ConnectError::Network(reason) | ConnectError::Tls(reason))) => Some(reason),
            Err(_) => Some("the connection timed out. Check the address and the firewall".to_owned()),
        }
    }

    async fn try_open(&self) -> Result<Connection, ConnectError> {
        let Address { host, port, tls, .. } = &self.address;
        if !tls {
            return connect(host, *port, None).await.map_err(ConnectError::from);
        }
        let invalid_name = |_| ConnectError::File(format!("{} has no valid host name", self.address));
        let name = ServerName::try_from(host.clone()).map_err(invalid_name)?;
        let files = self.files.clone();
        let config = tokio::task::spawn_blocking(move || files.client_config()).await;
        let config = config.map_err(|error| ConnectError::Network(error.to_string()))?;
        let config = config.map_err(|error| ConnectError::File(format!("{} cannot be used: {}", error.file.display(), error.problem)))?;
        connect(host, *port, Some((name, Arc::new(config)))).await.map_err(ConnectError::from)
    }
}
