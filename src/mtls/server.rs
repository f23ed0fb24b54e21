//! The API listener: accepts, does the handshake, and serves each connection in its own task until it must end.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ConnectionLimits, Trust,
    arrivals::{Arrival, Arrivals, Stage},
    connection::{Protocol, drive},
    limits::{LINGER, LINGER_BYTES, TLS_BUFFER},
    peer::Peer,
    places::{NoPlace, Places},
};
use crate::domain::Principal;

/// Whether a principal can freeze the vault now. Such principals have reserved places.
pub type MayFreeze = Arc<dyn Fn(&Principal) -> bool + Send + Sync>;

/// Serves `router` over mTLS until `shutdown`, then answers the requests in progress (at most `limits.drain_timeout`) and returns.
///
/// Each request carries an `Extension<Arc<Peer>>`; [`crate::mtls::admit`] turns it into a principal, before anything else looks at the request.
pub async fn serve(
    listener: TcpListener,
    trust: Arc<Trust>,
    router: Router,
    limits: ConnectionLimits,
    may_freeze: MayFreeze,
    shutdown: CancellationToken,
) {
    let arrivals = Arrivals::new(limits.handshakes);
    let server = Arc::new(Listener {
        places: Places::new(&limits),
        full_since: Mutex::new(None),
        trust,
        router,
        limits,
        may_freeze,
        shutdown: shutdown.clone(),
    });
    accept_until(&listener, &shutdown, |stream, from| {
        let (server, arrival) = (Arc::clone(&server), arrivals.enter(from));
        async move { server.connection(stream, arrival).await }
    })
    .await;
}

struct Listener {
    trust: Arc<Trust>,
    router: Router,
    limits: ConnectionLimits,
    may_freeze: MayFreeze,
    shutdown: CancellationToken,
    places: Places,
    /// When the last warning about a limit was logged.
    full_since: Mutex<Option<Instant>>,
}

impl Listener {
    /// A client that is not admitted stays an arrival, so that it never takes a place from one that is.
    async fn connection(&self, stream: TcpStream, arrival: Arrival) {
        let deadline = Instant::now() + self.limits.handshake_timeout;
        let outcome = tokio::select! {
            () = arrival.evicted() => Err("evicted"),
            () = self.shutdown.cancelled() => Err("shutdown"),
            shaken = timeout_at(deadline, self.shake_hands(stream, &arrival)) => shaken.unwrap_or(Err("timeout")),
        };
        let count = |outcome: &'static str| metrics::counter!("keyvault_handshakes_total", "outcome" => outcome).increment(1);
        let (stream, peer) = match outcome {
            Ok((stream, peer)) => (stream, Arc::new(peer)),
            Err(reason) => return count(reason),
        };
        let Ok(principal) = self.trust.admit(&peer) else {
            count("not_admitted");
            // It gets the reason as the answer to its first request.
            tokio::select! {
                () = arrival.evicted() => {}
                _ = timeout_at(deadline, self.serve(stream, peer)) => {}
            }
            return;
        };
        match self.places.take(&principal.name, (self.may_freeze)(&principal)) {
            Ok(_place) => {
                drop(arrival);
                count("ok");
                let gauge = metrics::gauge!("keyvault_connections");
                gauge.increment(1);
                let reason = self.serve(stream, peer).await;
                gauge.decrement(1);
                metrics::counter!("keyvault_connections_ended_total", "reason" => reason).increment(1);
            }
            Err(full) => {
                self.warn(full, &principal.name);
                count(match full {
                    NoPlace::Principal => "too_many_of_principal",
                    NoPlace::Total => "too_many_connections",
                });
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream, arrival: &Arrival) -> Result<(TlsStream<TcpStream>, Peer), &'static str> {
        let client = stream.peer_addr().ok();
        let failed = |error: io::Error| {
            self.trust.refusals().handshake(client, &error);
            "refused"
        };
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
        arrival.reach(Stage::Heard);
        let mut stream = match hello.into_stream(self.trust.api_tls()).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                let refused = failed(error);
                linger(stream).await;
                return Err(refused);
            }
        };
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        // A second check: a connection without a certificate is never served.
        let peer = Peer::read(stream.get_ref().1.peer_certificates().unwrap_or_default()).map_err(|_| "refused")?;
        Ok((stream, peer))
    }

    /// At most one line a minute, because the client chooses how often it connects.
    fn warn(&self, full: NoPlace, principal: &str) {
        let mut last = self.full_since.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < Duration::from_mins(1)) {
            return;
        }
        *last = Some(Instant::now());
        let option = match full {
            NoPlace::Principal => "per_principal",
            NoPlace::Total => "total",
        };
        tracing::warn!(principal, "connection refused: [connections] {option} is reached. Let the client reuse its connections");
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Arc<Peer>) -> &'static str {
        let protocol = protocol_of(&stream);
        let end = {
            let peer = Arc::clone(&peer);
            async move {
                tokio::select! {
                    () = self.shutdown.cancelled() => "shutdown",
                    () = peer.closed() => "not_admitted",
                    () = sleep(self.limits.max_age) => "max_age",
                    () = self.not_trusted_any_more(&peer) => "not_admitted",
                }
            }
        };
        let prepare = move |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
        };
        drive(stream, protocol, self.router.clone(), prepare, end, &self.limits).await
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
    F: Fn(TcpStream, IpAddr) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                // Answers are small and follow each other, so they are sent without delay.
                let _ = stream.set_nodelay(true);
                tasks.spawn(connection(stream, from.ip()));
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

/// Lets the client read the alert of a refused handshake. In TLS 1.3 the client may have sent its first request by then: closing a socket with unread
/// bytes resets the connection, and the client would lose the alert. The caller limits the time of the whole handshake too.
async fn linger(mut stream: TcpStream) {
    let read_to_the_end = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout_at(Instant::now() + LINGER, read_to_the_end).await;
}

pub(super) fn protocol_of(stream: &TlsStream<TcpStream>) -> Protocol {
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}
