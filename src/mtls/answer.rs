//! The body of an answer, which counts as unread until its bytes have left the buffers of the protocol.

use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Error, body::Body};
use hyper::body::{Bytes, Frame, SizeHint};

use super::activity::UnreadAnswer;

/// What an answer holds until its bytes have left the buffers of the protocol: its place within limits. A handler puts it into the extensions of
/// the response.
#[derive(Clone)]
pub struct HeldByAnswer(pub Arc<dyn Any + Send + Sync>);

/// A body whose bytes hold a mark on their connection. HTTP/2 takes the bytes of a body at once, and keeps them until the client has a window
/// for them: the mark lasts as long as the bytes, not only as long as the body.
pub(super) struct MarkedBody {
    body: Body,
    mark: Arc<Mark>,
}

struct Mark {
    unread: UnreadAnswer,
    _held: Option<HeldByAnswer>,
}

impl MarkedBody {
    pub(super) fn new(body: Body, unread: UnreadAnswer, held: Option<HeldByAnswer>) -> Self {
        Self { body, mark: Arc::new(Mark { unread, _held: held }) }
    }
}

impl hyper::body::Body for MarkedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        // The connection has room for more: the client reads. A body that is made while it is sent may last longer than one answer may be unread.
        self.mark.unread.is_read();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| {
            let mark = |bytes| Bytes::from_owner(MarkedBytes { bytes, _mark: Arc::clone(&self.mark) });
            frame.map(|frame| frame.map(|frame| frame.map_data(mark)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct MarkedBytes {
    bytes: Bytes,
    _mark: Arc<Mark>,
}

impl AsRef<[u8]> for MarkedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
