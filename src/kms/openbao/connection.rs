//! Opening a connection to an OpenBao server: TLS with its name checked against one CA, or plain on loopback.

use std::{io, path::Path, sync::Arc};

use http_body_util::Full;
use hyper::{
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    error::Kind,
    http_client::{Files, Server},
};
use crate::kms::Outage;

/// Opens a connection and leaves its driver to the current runtime.
pub(super) async fn connect(server: &Server) -> Result<SendRequest<Full<Bytes>>, Kind> {
    let (kind, why) = match timeout(server.connect_timeout, open(server)).await {
        Ok(Ok(sender)) => return Ok(sender),
        Ok(Err(Failure::Files(what))) => return Err(Kind::Misconfigured(what)),
        Ok(Err(Failure::Network(why))) => (Outage::Unreachable, why),
        Err(_) => (Outage::TimedOut, "no connection in time".to_owned()),
    };
    // The one place that knows why; the caller only needs to know that it may pass.
    tracing::warn!(address = %server.address, why, "OpenBao cannot be reached");
    Err(Kind::Outage(kind))
}

/// Why no connection can be opened, for a person; `None` if one can.
pub(super) async fn why_not(server: &Server) -> Option<String> {
    match timeout(server.connect_timeout, open(server)).await {
        Ok(Ok(_)) => None,
        Ok(Err(Failure::Files(why) | Failure::Network(why))) => Some(why),
        Err(_) => Some("no connection in time: is the address right, and no firewall between?".to_owned()),
    }
}

enum Failure {
    /// The network, the server or its certificate.
    Network(String),
    /// A file of ours.
    Files(String),
}

async fn open(server: &Server) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let address = &server.address;
    let unreachable = |error: io::Error| Failure::Network(error.to_string());
    if !address.tls {
        return spawn(TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?).await;
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|_| Failure::Files(format!("{address} has no name to check")))?;
    let files = server.files.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&files)).await.map_err(|error| Failure::Network(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config.map_err(Failure::Files)?));
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
    // Requests are one small write each: Nagle would hold them back for a delayed ACK.
    tcp.set_nodelay(true).map_err(unreachable)?;
    spawn(connector.connect(name, tcp).await.map_err(unreachable)?).await
}

async fn spawn<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    TokioIo<S>: Read + Write + Unpin + Send + 'static,
{
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| Failure::Network(error.to_string()))?;
    // What ends the connection is told to the request that was on it.
    tokio::spawn(async move { drop(driver.await) });
    Ok(sender)
}

/// Reads the files; the error names the one to mend.
fn client_config(Files { ca, client }: &Files) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.iter().map(|ca| certificates(ca)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        roots.add(certificate).map_err(|error| format!("[[wrapper.openbao]] ca: {error}"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| unusable(certificate, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(format!("{} holds no certificate in PEM", path.display())),
        all => all.map_err(|error| unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> String {
    format!("{} cannot be used: {error}", path.display())
}
