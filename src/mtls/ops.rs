//! The operations listener: health, readiness and metrics for every client that can reach it, over TLS or plain HTTP on one port.

use std::sync::Arc;

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Trust,
    connection::{ConnectionLimits, Protocol, drive},
    server::{accept_until, protocol_of},
};

/// Serves `router` until `shutdown`. The first byte of the client selects TLS (with the certificate of the server, without a client
/// certificate) or plain HTTP/1.1. No request here has a peer, so no route that needs a principal can be served by mistake.
pub async fn serve_ops(listener: TcpListener, trust: Arc<Trust>, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let open = Arc::new(Semaphore::new(limits.connections));
    accept_until(&listener, &shutdown, |stream| {
        let (trust, router, limits, shutdown, open) =
            (Arc::clone(&trust), router.clone(), limits.clone(), shutdown.clone(), Arc::clone(&open));
        async move {
            if let Ok(_open) = open.try_acquire() {
                connection(stream, &trust, router, &limits, &shutdown).await;
            }
        }
    })
    .await;
}

async fn connection(stream: TcpStream, trust: &Trust, router: Router, limits: &ConnectionLimits, shutdown: &CancellationToken) {
    let end = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(limits.age) => {}
        }
    };
    let mut first = [0];
    match timeout(limits.handshake, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [TLS_HANDSHAKE] => {
            if let Ok(Ok(stream)) = timeout(limits.handshake, TlsAcceptor::from(trust.ops_tls()).accept(stream)).await {
                let protocol = protocol_of(&stream);
                drive(stream, protocol, router, |_| {}, end, limits).await;
            }
        }
        Ok(Ok(1)) => drive(stream, Protocol::Http1, router, |_| {}, end, limits).await,
        _ => {}
    }
}

/// The content type of a TLS record that starts a handshake (RFC 8446 §5.1). No HTTP method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;
