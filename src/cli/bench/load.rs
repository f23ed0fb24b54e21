//! The load: threads with one runtime each, a pace, and the measured period.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Mutex as AsyncMutex;

use super::{
    process::{self, Usage},
    recorder::Recorder,
    target::{CodeOf, Prepared},
    worker::{MeasuredPeriod, Shared, worker},
};
use crate::{
    cli::{
        Failure,
        progress::{Counts, Progress, Unit},
    },
    client::Endpoints,
};

/// The load to put on a service.
pub(super) struct Load {
    /// The addresses.
    pub(super) endpoints: Endpoints,
    /// The requests, sent in turn.
    pub(super) requests: Arc<[Prepared]>,
    /// How a refusal is named.
    pub(super) code_of: CodeOf,
    /// The number of connections.
    pub(super) connections: u32,
    /// The number of threads, at most the number of connections.
    pub(super) threads: u32,
    /// When the next request is due.
    pub(super) pace: Pace,
    /// Whether each request opens its own connection, within its latency.
    pub(super) connect_each_time: bool,
    /// Whether each request is sent once, and the run ends after the last one.
    pub(super) each_once: bool,
    /// The warm-up. Requests that are due in it are not counted.
    pub(super) warmup: Duration,
    /// The length of the measured period.
    pub(super) duration: Duration,
    /// The timeout of a request.
    pub(super) timeout: Duration,
}

/// When a request is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// When the connection is free.
    Closed,
    /// At this many requests a second.
    Open(f64),
}

/// The result of the measured period.
pub(super) struct Measured {
    /// Latencies and failures of all requests that were due in the measured period.
    pub(super) seen: Recorder,
    /// Open loop: requests that were due in the measured period, but found no free connection before its end.
    pub(super) not_sent: u64,
    /// The length of the measured period.
    pub(super) window: Duration,
    /// The server at the start and end of the measured period, if its process was named.
    pub(super) server: Option<(Usage, Usage)>,
    /// This process at the start and end of the measured period.
    pub(super) generator: (Usage, Usage),
}

/// Runs the load and measures. Connections are opened before the clock starts.
pub(super) fn run(load: &Load, server: Option<u32>) -> Result<Measured, Failure> {
    let (due, queue) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        endpoints: load.endpoints.clone(),
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
    let window = MeasuredPeriod { start, begin: start + load.warmup, end: start + load.warmup + load.duration };
    for (go, _) in &workers {
        // Joining a worker reports its panic.
        let _ = go.send(window);
    }
    let pacer = match load.pace {
        Pace::Open(rate) => Some(thread::Builder::new().name("bench-pacer".into()).spawn(move || pace(rate, window, &due))?),
        Pace::Closed => None,
    };
    let look = || Ok::<_, Failure>((server.map(|pid| process::usage(Some(pid))).transpose()?, process::usage(None)?));
    let mut progress = Progress::of(if load.each_once { Unit::Items } else { Unit::Seconds }, "bench");
    while Instant::now() < window.begin {
        show(&mut progress, load, &shared, window);
        thread::sleep(Duration::from_millis(5).min(window.begin.saturating_duration_since(Instant::now())));
    }
    let (server_before, generator_before) = look()?;
    while Instant::now() < window.end && !workers.iter().all(|(_, handle)| handle.is_finished()) {
        show(&mut progress, load, &shared, window);
        thread::sleep(Duration::from_millis(5).min(window.end.saturating_duration_since(Instant::now())));
    }
    let window_length = window.begin.elapsed();
    drop(progress);
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

/// Shows the time that passed, with the warm-up; or the requests that were sent, if each is sent once.
fn show(progress: &mut Progress, load: &Load, shared: &Shared, window: MeasuredPeriod) {
    let (done, total) = if load.each_once {
        let all = load.requests.len();
        (shared.turn.load(Ordering::Relaxed).min(all) as u64, all as u64)
    } else {
        (window.start.elapsed().as_secs(), (load.warmup + load.duration).as_secs())
    };
    progress.show(Counts { done, failed: 0, total }, Instant::now());
}

fn not_sent(shared: &Shared, window: MeasuredPeriod) -> u64 {
    let Some(Ok(mut queue)) = shared.due.as_ref().map(AsyncMutex::try_lock) else { return 0 };
    let mut count = 0;
    while let Ok(due) = queue.try_recv() {
        count += u64::from(due >= window.begin);
    }
    count
}

/// Signals when each request is due. It has its own thread, because the timer of a runtime is accurate to 1 ms only.
fn pace(rate: f64, window: MeasuredPeriod, due: &tokio::sync::mpsc::UnboundedSender<Instant>) {
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
