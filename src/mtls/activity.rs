//! Whether a connection is in use: a connection without a request in progress is idle, one that begins a request must complete its headers, and
//! a client must read its answers.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    ConnectionLimits,
    body::LeftBody,
    limits::{LINGER, LINGER_BYTES},
};

/// What happens on one connection.
pub(super) struct Activity {
    state: Mutex<State>,
}

struct State {
    requests: usize,
    used: bool,
    quiet_since: Instant,
    /// When the headers of the next request began.
    headers_since: Option<Instant>,
    /// Since when the client has read nothing of each answer that is not sent completely. Few, in the order of their numbers.
    unread: VecDeque<(u64, Instant)>,
    answers: u64,
    /// Since when bytes wait that were written.
    unflushed_since: Option<Instant>,
    /// What a handler left of the body of the present request.
    left_body: Option<LeftBody>,
    /// Whether bytes of the client can be on their way that nobody will read.
    lingers: bool,
}

/// Why a connection ends that does not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    /// No request.
    Idle,
    /// Half a request.
    Headers,
    /// An answer that the client does not read.
    Unread,
}

/// A request in progress, until dropped.
pub(super) struct InProgress(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            requests: 0,
            used: false,
            quiet_since: Instant::now(),
            headers_since: None,
            unread: VecDeque::new(),
            answers: 0,
            unflushed_since: None,
            left_body: None,
            lingers: false,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// A request whose headers are complete.
    pub(super) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.lock();
        state.requests += 1;
        state.used = true;
        state.headers_since = None;
        InProgress(Arc::clone(self))
    }

    /// Whether there was a request.
    pub(super) fn used(&self) -> bool {
        self.lock().used
    }

    /// Keeps the rest of a body that nobody read.
    pub(super) fn leave_body(&self, body: LeftBody) {
        self.lock().left_body = Some(body);
    }

    /// The rest of the body of the present request, if nobody read it.
    pub(super) fn take_left_body(&self) -> Option<LeftBody> {
        self.lock().left_body.take()
    }

    /// The connection ends before the client has sent everything. It must be able to read its answer first.
    pub(super) fn linger(&self) {
        self.lock().lingers = true;
    }

    /// Returns when the connection was quiet for too long. Must be polled after the connection in the same task.
    pub(super) async fn quiet(&self, limits: &ConnectionLimits) -> Quiet {
        // The timer is only ever moved when it fires or would fire too late, so that a request costs no timer.
        let mut timer = pin!(sleep(limits.idle_timeout));
        std::future::poll_fn(|cx| {
            loop {
                let (at, why) = self.deadline(limits);
                if at < timer.deadline() {
                    timer.as_mut().reset(at);
                }
                ready!(timer.as_mut().poll(cx));
                if at <= Instant::now() {
                    return Poll::Ready(why);
                }
                timer.as_mut().reset(at);
            }
        })
        .await
    }

    fn deadline(&self, limits: &ConnectionLimits) -> (Instant, Quiet) {
        let state = self.lock();
        let quiet = match state.headers_since {
            // The end of a request need not wake the connection: look again later.
            _ if state.requests > 0 => (Instant::now() + limits.idle_timeout.min(limits.answer_timeout), Quiet::Idle),
            Some(since) => (since + limits.header_timeout, Quiet::Headers),
            None => (state.quiet_since + limits.idle_timeout, Quiet::Idle),
        };
        let unread = state.unread.iter().map(|(_, since)| since).chain(&state.unflushed_since).min();
        match unread.map(|since| *since + limits.answer_timeout) {
            Some(at) if at < quiet.0 => (at, Quiet::Unread),
            _ => quiet,
        }
    }

    /// Bytes were written, or all of them left.
    fn wrote(&self, all: bool) {
        let mut state = self.lock();
        if all {
            state.unflushed_since = None;
        } else if state.unflushed_since.is_none() {
            state.unflushed_since = Some(Instant::now());
        }
    }

    fn read(&self) {
        let mut state = self.lock();
        if state.requests == 0 && state.headers_since.is_none() {
            state.headers_since = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProgress {
    /// The answer is ready. It is unread until the mark is dropped.
    pub(super) fn answered(self) -> UnreadAnswer {
        let mut state = self.0.lock();
        let number = state.answers;
        state.answers += 1;
        state.unread.push_back((number, Instant::now()));
        drop(state);
        UnreadAnswer { number, activity: Arc::clone(&self.0) }
    }
}

/// An answer that is not sent completely.
pub(super) struct UnreadAnswer {
    number: u64,
    activity: Arc<Activity>,
}

impl UnreadAnswer {
    /// The client has read what was sent of the answer, so that more of it is asked for.
    pub(super) fn is_read(&self) {
        if let Some((_, since)) = self.activity.lock().unread.iter_mut().find(|(number, _)| *number == self.number) {
            *since = Instant::now();
        }
    }
}

impl Drop for UnreadAnswer {
    fn drop(&mut self) {
        // Mostly the first one, and never more than the streams of a connection.
        self.activity.lock().unread.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        state.quiet_since = Instant::now();
    }
}

/// The stream of a connection: notes when a request begins, and whether written bytes leave.
pub(super) struct Watched<I> {
    pub(super) io: I,
    pub(super) activity: Arc<Activity>,
    /// Whether bytes that arrive begin a request, as over HTTP/1.1. Over HTTP/2 bytes also arrive without a request.
    pub(super) bytes_are_requests: bool,
    /// While the connection lingers: until when, and the bytes that were discarded.
    pub(super) lingering: Option<(Pin<Box<Sleep>>, u64)>,
}

impl<I> Watched<I> {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.wrote(false);
        }
        written
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if self.bytes_are_requests && buffer.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.activity.wrote(true);
        Poll::Ready(Ok(()))
    }

    /// Closing a socket with unread bytes resets the connection, and the client would lose its answer. Therefore they are read and discarded first,
    /// for a short time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.activity.lock().lingers {
                return Poll::Ready(Ok(()));
            }
        }
        let (until, discarded) = this.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut bytes = [0; 4096];
        while until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer));
            *discarded += buffer.filled().len() as u64;
            if read.is_err() || buffer.filled().is_empty() || *discarded > LINGER_BYTES {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
