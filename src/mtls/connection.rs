//! One connection over HTTP/1.1 or HTTP/2: limits on headers, streams, idle time and age, and a graceful end.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tower::ServiceExt;

/// Limits on what one client can use. The defaults suit a vault with a few hundred clients.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections after the handshake. A further one is closed at once.
    pub connections: usize,
    /// Connections in the handshake. A further one is closed at once.
    pub handshakes: usize,
    /// Time limit of a handshake.
    pub handshake: Duration,
    /// HTTP/1.1: time from one answer to the end of the headers of the next request. This is also the longest idle time.
    pub idle: Duration,
    /// Age at which a connection is ended, after the requests in progress. Clients then see the current certificate.
    pub age: Duration,
    /// Time limit for the requests in progress when a connection is ended.
    pub drain: Duration,
    /// HTTP/2: concurrent requests.
    pub streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshakes: 256,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            age: Duration::from_hours(1),
            drain: Duration::from_secs(20),
            streams: 256,
        }
    }
}

/// The protocol that ALPN selected. HTTP/1.1 without ALPN.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves `router` until the client disconnects, or until `end`. Then answers the requests in progress, within the drain time.
pub(super) async fn drive<I, P, E>(io: I, protocol: Protocol, router: Router, prepare: P, end: E, limits: &ConnectionLimits)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    P: Fn(&mut Request<Incoming>) + Send + Sync + 'static,
    E: Future<Output = ()>,
{
    let used = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let used = Arc::clone(&used);
        move |mut request: Request<Incoming>| {
            used.store(true, Ordering::Relaxed);
            prepare(&mut request);
            let answer = router.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        }
    });
    let builder = builder(protocol, limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = end => None,
    };
    let result = match ended {
        Some(result) => result,
        // hyper would wait for a first request here.
        None if !used.load(Ordering::Relaxed) => Ok(()),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder(protocol: Protocol, limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    // hyper panics on a time-out without a timer.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_headers(64).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
