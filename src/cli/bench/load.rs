//! The load itself: threads with a runtime each, connections with one request at a time, and a pace.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use tokio::sync::{Mutex as AsyncMutex, mpsc::UnboundedReceiver};

use super::{
    process::{self, Usage},
    recorder::Recorder,
    target::{CodeOf, Prepared},
};
use crate::cli::{
    Failure,
    client::{Connection, Endpoint},
};

/// How long a connection waits after a loss, so that a server that is down is not counted a million times.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What to put on a service.
pub(super) struct Load {
    /// Where.
    pub(super) endpoint: Endpoint,
    /// What, in turn.
    pub(super) requests: Arc<[Prepared]>,
    /// How refusals are named.
    pub(super) code_of: CodeOf,
    /// Over so many connections.
    pub(super) connections: u32,
    /// On so many threads, at most as many as connections.
    pub(super) threads: u32,
    /// When the next request is due.
    pub(super) pace: Pace,
    /// Whether each request has a connection of its own, opened within its latency.
    pub(super) connect_each_time: bool,
    /// Whether each request is sent once, and the end is when all are.
    pub(super) each_once: bool,
    /// What is due before that is not counted.
    pub(super) warmup: Duration,
    /// How long is counted.
    pub(super) duration: Duration,
    /// How long to wait for an answer.
    pub(super) timeout: Duration,
}

/// When a request is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// When the connection is free.
    Closed,
    /// So many times a second.
    Open(f64),
}

/// What was seen between the end of the warm-up and the end.
pub(super) struct Measured {
    /// Latencies and failures of all requests that were due in the window.
    pub(super) seen: Recorder,
    /// Open loop: requests that were due in the window, but found no free connection before its end.
    pub(super) not_sent: u64,
    /// The length of the window.
    pub(super) window: Duration,
    /// The server at its beginning and end, if it was named.
    pub(super) server: Option<(Usage, Usage)>,
    /// This process at its beginning and end.
    pub(super) generator: (Usage, Usage),
}

#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    begin: Instant,
    end: Instant,
}

/// What the connections share.
struct Shared {
    endpoint: Endpoint,
    requests: Arc<[Prepared]>,
    code_of: CodeOf,
    connect_each_time: bool,
    each_once: bool,
    timeout: Duration,
    turn: AtomicUsize,
    due: Option<AsyncMutex<UnboundedReceiver<Instant>>>,
}

/// Puts the load on and measures. Connections are opened before the clock starts.
pub(super) fn run(load: &Load, server: Option<u32>) -> Result<Measured, Failure> {
    let (due, queue) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        endpoint: load.endpoint.clone(),
        requests: Arc::clone(&load.requests),
        code_of: load.code_of,
        connect_each_time: load.connect_each_time,
        each_once: load.each_once,
        timeout: load.timeout,
        turn: AtomicUsize::new(0),
        due: matches!(load.pace, Pace::Open(_)).then(|| AsyncMutex::new(queue)),
    });
    let (ready, all_ready) = mpsc::channel();
    let mut workers = Vec::new();
    for index in 0..load.threads {
        let count = load.connections / load.threads + u32::from(index < load.connections % load.threads);
        let (shared, ready, (go, window)) = (Arc::clone(&shared), ready.clone(), mpsc::channel());
        let handle = thread::Builder::new().name(format!("bench-{index}")).spawn(move || worker(&shared, count, ready, &window))?;
        workers.push((go, handle));
    }
    drop(ready);
    for outcome in &all_ready {
        outcome?;
    }
    let start = Instant::now();
    let window = Window { start, begin: start + load.warmup, end: start + load.warmup + load.duration };
    for (go, _) in &workers {
        // A worker that is gone is told of when it is joined.
        let _ = go.send(window);
    }
    let pacer = match load.pace {
        Pace::Open(rate) => Some(thread::Builder::new().name("bench-pacer".into()).spawn(move || pace(rate, window, &due))?),
        Pace::Closed => None,
    };
    let look = || Ok::<_, Failure>((server.map(|pid| process::usage(Some(pid))).transpose()?, process::usage(None)?));
    sleep_until(window.begin);
    let (server_before, generator_before) = look()?;
    while Instant::now() < window.end && !workers.iter().all(|(_, handle)| handle.is_finished()) {
        thread::sleep(Duration::from_millis(5).min(window.end.saturating_duration_since(Instant::now())));
    }
    let window_length = window.begin.elapsed();
    let (server_after, generator_after) = look()?;
    let mut seen = Recorder::new()?;
    let gone = || Failure::Unexpected("a thread of the generator failed".into());
    for (_, handle) in workers {
        seen.merge(&handle.join().map_err(|_| gone())??)?;
    }
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| gone())?;
    }
    Ok(Measured {
        seen,
        not_sent: not_sent(&shared, window),
        window: window_length,
        server: server_before.zip(server_after),
        generator: (generator_before, generator_after),
    })
}

fn not_sent(shared: &Shared, window: Window) -> u64 {
    let Some(Ok(mut queue)) = shared.due.as_ref().map(AsyncMutex::try_lock) else { return 0 };
    let mut count = 0;
    while let Ok(due) = queue.try_recv() {
        count += u64::from(due >= window.begin);
    }
    count
}

/// Says when each request is due. A thread of its own: a runtime's timer is good to 1 ms only.
fn pace(rate: f64, window: Window, due: &tokio::sync::mpsc::UnboundedSender<Instant>) {
    for index in 0_u32.. {
        let at = window.start + Duration::from_secs_f64(f64::from(index) / rate);
        if at >= window.end {
            return;
        }
        sleep_until(at);
        if due.send(at).is_err() {
            return;
        }
    }
}

fn sleep_until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

fn worker(
    shared: &Arc<Shared>,
    connections: u32,
    ready: mpsc::Sender<Result<(), Failure>>,
    window: &mpsc::Receiver<Window>,
) -> Result<Recorder, Failure> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let opened = runtime.block_on(async {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(if shared.connect_each_time { None } else { Some(shared.endpoint.connect().await?) });
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
    // Its end tells the main thread that all have said so.
    drop(ready);
    // The main thread gave up if nothing comes: another worker could not connect.
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
async fn drive(shared: Arc<Shared>, mut connection: Option<Connection>, window: Window, recorder: Arc<Mutex<Recorder>>) {
    while let Some(due) = next(&shared, window).await {
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let index = if shared.each_once { turn } else { turn % shared.requests.len() };
        let Some(request) = shared.requests.get(index) else { return };
        let outcome =
            tokio::time::timeout(shared.timeout, send(&shared, &mut connection, request)).await.unwrap_or_else(|_| Err("timeout".into()));
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
async fn next(shared: &Shared, window: Window) -> Option<Instant> {
    // A timeout polls first and looks at the clock second: without this a backlog would be worked off after the end.
    if Instant::now() >= window.end {
        return None;
    }
    let due = match &shared.due {
        None => Some(Instant::now()),
        Some(queue) => {
            let end = tokio::time::Instant::from_std(window.end);
            tokio::time::timeout_at(end, async { queue.lock().await.recv().await }).await.ok().flatten()
        }
    };
    due.filter(|due| *due < window.end)
}

/// Sends a request and reads its answer whole. Errors are codes.
async fn send(shared: &Shared, kept: &mut Option<Connection>, request: &Prepared) -> Result<(), String> {
    let mut connection = match kept.take().filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => shared.endpoint.connect().await.map_err(|_| "cannot_connect")?,
    };
    let lost = |_| "connection_lost".to_owned();
    connection.ready().await.map_err(lost)?;
    let answer = connection.send_request(request.clone()).await.map_err(lost)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(lost)?.to_bytes();
    if !shared.connect_each_time {
        *kept = Some(connection);
    }
    if status.is_success() { Ok(()) } else { Err((shared.code_of)(status, &body)) }
}
