//! A listener on loopback without TLS, for pages on the own machine: the limits of connections hold, and nobody is identified here.

use std::sync::Arc;

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionLimits,
    arrivals::{Arrival, Arrivals, Stage},
    connection::{Protocol, drive},
    server::accept_until,
};

/// Serves `router` over HTTP/1.1 until `shutdown`. At most `[connections] ops` connections are open: a further one closes the oldest, first of those
/// that did the least. A client must begin its first request within `handshake_timeout`, and the other times of the limits apply.
///
/// Every process of the machine can connect. So the router must decide who gets an answer.
pub async fn serve_loopback(listener: TcpListener, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let arrivals = Arrivals::new(limits.ops);
    accept_until(&listener, &shutdown, |stream, from| {
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        let arrival = Arc::new(arrivals.enter(from));
        async move {
            tokio::select! {
                () = arrival.evicted() => {}
                () = connection(stream, &arrival, router, &limits, &shutdown) => {}
            }
        }
    })
    .await;
}

async fn connection(stream: TcpStream, arrival: &Arc<Arrival>, router: Router, limits: &ConnectionLimits, shutdown: &CancellationToken) {
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
    let Ok(Ok(1)) = timeout(limits.handshake_timeout, stream.peek(&mut [0])).await else { return };
    arrival.reach(Stage::Heard);
    drive(stream, Protocol::Http1, router, asked, end, limits).await;
}
