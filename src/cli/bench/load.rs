//! The load itself: threads with a runtime each, a pace, and the window in which things count.

use std::{
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Mutex as AsyncMutex;

use super::{
    process::{self, Usage},
    recorder::Recorder,
    target::{CodeOf, Prepared},
    worker::{Shared, Window, worker},
};
use crate::{cli::Failure, client::Endpoint};

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
