//! One thread of the load: its connections, each with one request at a time until the end.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, header::HOST};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc::UnboundedReceiver},
    time::timeout_at,
};

use super::{
    recorder::Recorder,
    target::{CodeOf, Prepared},
};
use crate::{
    cli::Failure,
    client::{Candidate, Connection, Endpoints},
};

/// An open connection, and where it leads.
type Open = (Arc<Candidate>, Connection);

/// How long a connection waits after a failure, so that a server that is down is not counted a million times.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// The schedule of the run.
#[derive(Clone, Copy)]
pub(super) struct MeasuredPeriod {
    /// The first request is due.
    pub(super) start: Instant,
    /// The warm-up is over.
    pub(super) begin: Instant,
    /// The last time at which a request is due.
    pub(super) end: Instant,
}

/// The state that the connections share.
pub(super) struct Shared {
    pub(super) endpoints: Endpoints,
    pub(super) requests: Arc<[Prepared]>,
    pub(super) code_of: CodeOf,
    pub(super) connect_each_time: bool,
    pub(super) each_once: bool,
    pub(super) timeout: Duration,
    /// Counts requests, to send them in turn.
    pub(super) turn: AtomicUsize,
    /// Open loop: when requests are due, oldest first.
    pub(super) due: Option<AsyncMutex<UnboundedReceiver<Instant>>>,
}

/// Opens connections, signals that they are open, waits for the start, and drives them to the end.
pub(super) fn worker(
    shared: &Arc<Shared>,
    connections: u32,
    ready: mpsc::Sender<Result<(), Failure>>,
    window: &mpsc::Receiver<MeasuredPeriod>,
) -> Result<Recorder, Failure> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let opened = runtime.block_on(async {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(if shared.connect_each_time { None } else { Some(shared.endpoints.connect().await?) });
        }
        Ok::<_, Failure>(opened)
    });
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            drop(ready.send(Err(failure)));
            return Recorder::new();
        }
    };
    drop(ready.send(Ok(())));
    // Dropping it signals the main thread that all are ready.
    drop(ready);
    // The main thread gave up, because another worker could not connect.
    let Ok(window) = window.recv() else { return Recorder::new() };
    runtime.block_on(async {
        let tasks: Vec<_> = opened
            .into_iter()
            .map(|connection| tokio::spawn(drive(Arc::clone(shared), connection, window, Arc::clone(&recorder))))
            .collect();
        for task in tasks {
            task.await.map_err(|error| Failure::Unexpected(error.to_string()))?;
        }
        Ok::<_, Failure>(())
    })?;
    drop(runtime);
    let seen = Arc::into_inner(recorder).ok_or_else(|| Failure::Unexpected("a connection of the generator still runs".into()))?;
    Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// One connection: a request at a time until the end.
async fn drive(shared: Arc<Shared>, mut connection: Option<Open>, window: MeasuredPeriod, recorder: Arc<Mutex<Recorder>>) {
    while let Some(due) = next(&shared, window).await {
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let index = if shared.each_once { turn } else { turn % shared.requests.len() };
        let Some(request) = shared.requests.get(index) else { return };
        let outcome = send(&shared, &mut connection, request).await;
        let latency = due.elapsed();
        let lost = outcome.is_err() && connection.is_none();
        if due >= window.begin {
            let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(()) => recorder.success(latency),
                Err(code) => recorder.failure(code),
            }
        }
        if lost {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}

/// When the next request is or was due; `None` at the end.
async fn next(shared: &Shared, window: MeasuredPeriod) -> Option<Instant> {
    // A timeout polls first and checks the clock second. Without this check a backlog would be sent after the end.
    if Instant::now() >= window.end {
        return None;
    }
    let due = match &shared.due {
        None => Some(Instant::now()),
        Some(queue) => {
            let end = tokio::time::Instant::from_std(window.end);
            timeout_at(end, async { queue.lock().await.recv().await }).await.ok().flatten()
        }
    };
    due.filter(|due| *due < window.end)
}

/// Sends a request once and reads its whole answer. Errors are codes. With several URLs, the next request goes to another one after a failure
/// or a 503.
async fn send(shared: &Shared, kept: &mut Option<Open>, request: &Prepared) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + shared.timeout;
    let (candidate, mut connection) = match kept.take().filter(|(_, connection)| !connection.is_closed()) {
        Some(open) => open,
        None => timeout_at(deadline, shared.endpoints.connect()).await.map_err(|_| "timeout")?.map_err(|_| "cannot_connect")?,
    };
    let several = shared.endpoints.are_several();
    let mut request = request.clone();
    if several && let Ok(host) = HeaderValue::from_str(candidate.endpoint().authority()) {
        request.headers_mut().insert(HOST, host);
    }
    let exchange = async {
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
    };
    let lost = |code: &str| {
        candidate.failed();
        code.to_owned()
    };
    let answer = timeout_at(deadline, exchange).await.map_err(|_| lost("timeout"))?;
    let (status, body) = answer.map_err(|_| lost("connection_lost"))?;
    if several && status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(lost(&(shared.code_of)(status, &body)));
    }
    candidate.answered();
    if !shared.connect_each_time {
        *kept = Some((candidate, connection));
    }
    if status.is_success() { Ok(()) } else { Err((shared.code_of)(status, &body)) }
}
