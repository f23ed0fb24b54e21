//! One connection over HTTP/1.1 or HTTP/2: limits on headers, streams, idle time and age, and a graceful end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use http::{
    HeaderValue,
    header::{CONNECTION, EXPECT},
};
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

use super::{
    ConnectionLimits,
    activity::{Activity, Quiet, Watched},
    answer::{HeldByAnswer, MarkedBody},
    body::TimedBody,
    limits::{CONNECTION_WINDOW, HEADER_BUFFER, HEADERS, STREAM_WINDOW},
};

/// The protocol that ALPN selected. HTTP/1.1 without ALPN.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves `router` until the client disconnects, the connection is quiet for too long, or until `end`. Then answers the requests in progress,
/// within the drain time. Returns why the connection ended, as a label; `end` returns such a label.
pub(super) async fn drive<I, P, E>(io: I, protocol: Protocol, router: Router, prepare: P, end: E, limits: &ConnectionLimits) -> &'static str
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    P: Fn(&mut Request<Incoming>) + Send + Sync + 'static,
    E: Future<Output = &'static str>,
{
    let activity = Activity::new();
    let service = service_fn({
        let (activity, body_timeout, one_by_one) = (Arc::clone(&activity), limits.body_timeout, matches!(protocol, Protocol::Http1));
        move |mut request: Request<Incoming>| {
            let in_progress = activity.begin();
            prepare(&mut request);
            let left = one_by_one.then(|| Arc::clone(&activity));
            // Such a client sends its body only once it is asked for.
            let waits = request.headers().contains_key(EXPECT);
            let answer = router.clone().oneshot(request.map(|body| Body::new(TimedBody::new(body, body_timeout, left.clone()))));
            async move {
                let mut answer = answer.await.unwrap_or_else(|never| match never {});
                if let Some((activity, body)) = left.and_then(|activity| activity.take_left_body().map(|body| (activity, body)))
                    && (waits || !body.discard().await)
                {
                    activity.linger();
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let held = answer.extensions_mut().remove::<HeldByAnswer>();
                Ok::<_, Infallible>(answer.map(|body| MarkedBody::new(body, in_progress.answered(), held)))
            }
        }
    });
    let builder = builder(protocol, limits);
    let io = Watched { io, activity: Arc::clone(&activity), bytes_are_requests: matches!(protocol, Protocol::Http1), lingering: None };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let (reason, result) = tokio::select! {
        // In this order, because `quiet` looks at what the connection just did.
        biased;
        result = connection.as_mut() => ("client", Some(result)),
        quiet = activity.quiet(limits) => match quiet {
            Quiet::Idle => ("idle", None),
            Quiet::Headers => ("header_timeout", Some(Ok(()))),
            Quiet::Unread => ("answer_timeout", Some(Ok(()))),
        },
        reason = end => (reason, None),
    };
    let result = match result {
        Some(result) => result,
        // hyper would wait for a first request here.
        None if !activity.used() => Ok(()),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(limits.drain_timeout, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    reason
}

fn builder(protocol: Protocol, limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    // `Activity` has the time limit of headers: hyper's would also count the time between requests.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_headers(HEADERS).max_buf_size(HEADER_BUFFER as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
