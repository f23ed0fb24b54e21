//! The operations listener: health, readiness and metrics for every client that can reach it, over TLS or plain HTTP on one port.

use std::sync::Arc;

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionLimits, Trust,
    arrivals::{Arrival, Arrivals, Stage},
    connection::{Protocol, drive},
    limits::{OPS_STREAMS, TLS_BUFFER},
    server::{accept_until, protocol_of},
};

/// Serves `router` until `shutdown`. The first byte of the client selects TLS (with the certificate of the server, without a client
/// certificate) or plain HTTP/1.1. No request here has a peer, so no route that needs a principal can be served by mistake.
///
/// Its clients are unknown, so a new connection always gets in, and closes another one if there are too many: a health probe is answered
/// although others hold connections.
pub async fn serve_ops(listener: TcpListener, trust: Arc<Trust>, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let arrivals = Arrivals::new(limits.ops);
    // The answers are long, and each is made for its request.
    let limits = ConnectionLimits { streams: OPS_STREAMS, ..limits };
    accept_until(&listener, &shutdown, |stream, from| {
        let (trust, router, limits, shutdown) = (Arc::clone(&trust), router.clone(), limits.clone(), shutdown.clone());
        let arrival = Arc::new(arrivals.enter(from));
        async move {
            tokio::select! {
                () = arrival.evicted() => metrics::counter!("keyvault_ops_evictions_total").increment(1),
                () = connection(stream, &arrival, &trust, router, &limits, &shutdown) => {}
            }
        }
    })
    .await;
}

async fn connection(
    stream: TcpStream,
    arrival: &Arc<Arrival>,
    trust: &Trust,
    router: Router,
    limits: &ConnectionLimits,
    shutdown: &CancellationToken,
) {
    let end = async {
        tokio::select! {
            () = shutdown.cancelled() => "shutdown",
            () = sleep(limits.max_age) => "max_age",
        }
    };
    let asked = {
        let arrival = Arc::clone(arrival);
        move |_: &mut Request<Incoming>| arrival.reach(Stage::Asked)
    };
    let mut first = [0];
    let deadline = Instant::now() + limits.handshake_timeout;
    let Ok(Ok(1)) = timeout_at(deadline, stream.peek(&mut first)).await else { return };
    arrival.reach(Stage::Heard);
    if first != [TLS_HANDSHAKE] {
        drive(stream, Protocol::Http1, router, asked, end, limits).await;
    } else if let Ok(Ok(mut stream)) = timeout_at(deadline, TlsAcceptor::from(trust.ops_tls()).accept(stream)).await {
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let protocol = protocol_of(&stream);
        drive(stream, protocol, router, asked, end, limits).await;
    }
}

/// The content type of a TLS record that starts a handshake (RFC 8446 §5.1). No HTTP method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;
