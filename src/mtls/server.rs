//! The API listener: accepts, does the handshake, and serves each connection in its own task until it must end.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Trust,
    admission::CloseConnection,
    connection::{ConnectionLimits, Protocol, drive},
    peer::Peer,
};

/// Serves `router` over mTLS until `shutdown`, then answers the requests in progress (at most `limits.drain`) and returns.
///
/// Each request carries an `Extension<Arc<Peer>>`; put [`crate::mtls::admit`] in front of the routes to turn it into a principal.
pub async fn serve(listener: TcpListener, trust: Arc<Trust>, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let server = Arc::new(Listener {
        connections: Semaphore::new(limits.connections),
        handshakes: Semaphore::new(limits.handshakes),
        trust,
        router,
        limits,
        shutdown: shutdown.clone(),
    });
    accept_until(&listener, &shutdown, |stream| {
        let server = Arc::clone(&server);
        async move { server.connection(stream).await }
    })
    .await;
}

struct Listener {
    trust: Arc<Trust>,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
    handshakes: Semaphore,
    connections: Semaphore,
}

impl Listener {
    async fn connection(&self, stream: TcpStream) {
        let (outcome, ready) = match self.shake_hands(stream).await {
            Ok(ready) => ("ok", Some(ready)),
            Err(reason) => (reason, None),
        };
        metrics::counter!("keyvault_handshakes_total", "outcome" => outcome).increment(1);
        if let Some((stream, peer, _open)) = ready {
            let gauge = metrics::gauge!("keyvault_connections");
            gauge.increment(1);
            self.serve(stream, Arc::new(peer)).await;
            gauge.decrement(1);
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer, SemaphorePermit<'_>), &'static str> {
        let _shaking = self.handshakes.try_acquire().map_err(|_| "too_many_handshakes")?;
        let shaken = timeout(self.limits.handshake, TlsAcceptor::from(self.trust.api_tls()).accept(stream));
        let shaken = self.shutdown.run_until_cancelled(shaken).await.ok_or("shutdown")?.map_err(|_| "timeout")?;
        let stream = shaken.map_err(|error| {
            tracing::debug!(%error, "handshake failed");
            "refused"
        })?;
        let open = self.connections.try_acquire().map_err(|_| "too_many_connections")?;
        // A second check: a connection without a certificate is never served.
        let peer = Peer::read(stream.get_ref().1.peer_certificates().unwrap_or_default()).map_err(|_| "refused")?;
        Ok((stream, peer, open))
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Arc<Peer>) {
        let protocol = protocol_of(&stream);
        let hang_up = CloseConnection(CancellationToken::new());
        let end = {
            let (hang_up, peer) = (hang_up.clone(), Arc::clone(&peer));
            async move {
                tokio::select! {
                    () = self.shutdown.cancelled() => {}
                    () = hang_up.0.cancelled() => {}
                    () = sleep(self.limits.age) => {}
                    () = self.not_trusted_any_more(&peer) => {}
                }
            }
        };
        let prepare = move |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            request.extensions_mut().insert(hang_up.clone());
        };
        drive(stream, protocol, self.router.clone(), prepare, end, &self.limits).await;
    }

    /// Returns when a change of the trust ends the admission of the peer, also while the connection is idle.
    async fn not_trusted_any_more(&self, peer: &Peer) {
        let mut changes = self.trust.changes();
        loop {
            // A peer that was never admitted gets its answer before the connection ends.
            let admitted = self.trust.admit(peer).is_ok();
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if admitted && let Err(reason) = self.trust.admit(peer) {
                let principal = peer.name().map_or("(no valid name)", |name| name);
                tracing::warn!(principal, issuer = peer.issuer(), serial = peer.serial(), %reason, "connection ended: the client is no longer admitted");
                return;
            }
        }
    }
}

/// Accepts until `shutdown`, with one task for each connection. Then waits for all of them.
pub(super) async fn accept_until<F, T>(listener: &TcpListener, shutdown: &CancellationToken, connection: F)
where
    F: Fn(TcpStream) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Answers are small and follow each other, so they are sent without delay.
                let _ = stream.set_nodelay(true);
                tasks.spawn(connection(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                if !is_of_one_connection(&error) {
                    // Out of file descriptors. The pause avoids a busy loop until one is free.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

pub(super) fn protocol_of(stream: &TlsStream<TcpStream>) -> Protocol {
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}
