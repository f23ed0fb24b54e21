//! The body of a request, which must arrive as a whole within its time limit. What a handler leaves of it is read and discarded before the answer,
//! so that the connection can be used again, or is closed in a way that the client sees.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::activity::Activity;

/// The body did not arrive within `[connections] body_timeout`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body did not arrive in time")]
pub struct BodyTimeout;

/// A body with a time limit. The timer exists only once the body has to be waited for.
pub(super) struct TimedBody {
    /// `None` once it was left.
    body: Option<Incoming>,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Where a rest of it is left. Only over HTTP/1.1, in which the rest stands before the next request.
    activity: Option<Arc<Activity>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, limit: Duration, activity: Option<Arc<Activity>>) -> Self {
        Self { body: Some(body), deadline: Instant::now() + limit, timer: None, activity }
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        if let (Some(body), Some(activity)) = (self.body.take().filter(|body| !body.is_end_stream()), &self.activity) {
            activity.leave_body(LeftBody { body, deadline: self.deadline });
        }
    }
}

/// The rest of a body that nobody read.
pub(super) struct LeftBody {
    body: Incoming,
    deadline: Instant,
}

impl LeftBody {
    /// Reads and discards the rest. `false` if it is too long, or does not arrive in time.
    pub(super) async fn discard(mut self) -> bool {
        let mut read = 0;
        let rest = async {
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > DISCARDED {
                    return false;
                }
            }
            true
        };
        timeout_at(self.deadline, pin!(rest)).await.unwrap_or(false)
    }
}

/// Bytes of a rest that are discarded, so that the connection stays open.
const DISCARDED: usize = 128 * 1024;

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
