//! The load: the same calls over HTTP and mutual TLS to each server, in a closed or an open loop, and what they cost the server.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A server, and the call that is made.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) body: String,
    /// What an answer contains that did what was asked for.
    pub(crate) expected: &'static str,
    /// With the session cache of the client, so that a new connection resumes.
    pub(crate) resuming: Arc<ClientConfig>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// How the calls are made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Over as many connections, each with one call at a time.
    Http1,
    /// In as many streams of one connection, each with one call at a time.
    Http2,
    /// The same as `Http1`, at this rate.
    Rate(u32),
    /// Each call over a new connection.
    Connect { resume: bool },
}

/// What a load found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    /// Calls a second.
    pub(crate) throughput: f64,
    /// In milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU time of the server for each call, in microseconds.
    pub(crate) cpu: f64,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Target {
    async fn connect(&self, tls: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from("localhost")?, stream).await?)
    }

    async fn http1(&self, tls: &Arc<ClientConfig>) -> anyhow::Result<Sender> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect(tls).await?)).await?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }

    async fn http2(&self) -> anyhow::Result<http2::SendRequest<Full<Bytes>>> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(self.connect(&Arc::new(tls)).await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn call(&self, sender: &mut Sender) -> anyhow::Result<()> {
        let request = |uri: String| {
            let mut request = Request::post(uri).header("host", "localhost").header("content-type", "application/json");
            if let Some(token) = &self.token {
                request = request.header("x-vault-token", token);
            }
            request.body(Full::new(Bytes::from(self.body.clone())))
        };
        let answer = match sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request(self.path.clone())?).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request(format!("https://localhost{}", self.path))?).await?
            }
        };
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status.is_success() && text.contains(self.expected), "{status}: {text}");
        Ok(())
    }

    /// Makes calls for this time, after a short warm-up.
    pub(crate) async fn load(&self, kind: Kind, number: u32, time: Duration) -> anyhow::Result<Cell> {
        Ok(load(std::slice::from_ref(self), kind, number, time, || Ok(Duration::ZERO)).await?.0)
    }

    /// The latencies, in microseconds, of the calls of one caller that ended in the time.
    async fn caller(
        self,
        kind: Kind,
        caller: u32,
        number: u32,
        shared: Option<http2::SendRequest<Full<Bytes>>>,
        begin: Instant,
        end: Instant,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut latencies = Histogram::new(3)?;
        let mut sender = match (kind, shared) {
            (Kind::Connect { .. }, _) => None,
            (_, Some(shared)) => Some(Sender::Http2(shared)),
            (_, None) => Some(self.http1(&self.tls).await?),
        };
        // Of an open loop: the latency counts from the time when the call was due.
        let interval = match kind {
            Kind::Rate(rate) => Some(Duration::from_secs(1) * number / rate),
            _ => None,
        };
        let mut due = Instant::now() + interval.unwrap_or_default() * caller / number;
        while Instant::now() < end {
            let asked = match interval {
                Some(interval) => {
                    let this = due;
                    tokio::time::sleep_until(this.into()).await;
                    due += interval;
                    this
                }
                None => Instant::now(),
            };
            match (&mut sender, kind) {
                (Some(sender), _) => self.call(sender).await?,
                (None, Kind::Connect { resume }) => {
                    let tls = if resume { &self.resuming } else { &self.tls };
                    self.call(&mut self.http1(tls).await?).await?;
                }
                (None, _) => {}
            }
            let now = Instant::now();
            if asked >= begin && now <= end {
                latencies.record(u64::try_from(asked.elapsed().as_micros())?)?;
            }
        }
        Ok(latencies)
    }
}

/// Makes calls to all targets at once for this time, after a short warm-up. Each target gets `number` callers. The CPU time of the cell is that of all
/// targets; the number beside it is what `beside` counts, for each call and in microseconds too.
pub(crate) async fn load(
    targets: &[Target],
    kind: Kind,
    number: u32,
    time: Duration,
    beside: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<(Cell, f64)> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut tasks = Vec::new();
    for target in targets {
        let shared = if let Kind::Http2 = kind { Some(target.http2().await?) } else { None };
        tasks.extend((0..number).map(|caller| {
            let (target, shared) = (target.clone(), shared.clone());
            tokio::spawn(async move { target.caller(kind, caller, number, shared, begin, end).await })
        }));
    }
    let used = || targets.iter().map(|target| cpu_time(target.pid)).sum::<anyhow::Result<Duration>>();
    tokio::time::sleep_until(begin.into()).await;
    let (cpu, other) = (used()?, beside()?);
    tokio::time::sleep_until(end.into()).await;
    let (cpu, other) = (used()?.saturating_sub(cpu), beside()?.saturating_sub(other));
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks {
        all.add(task.await??)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    let calls = all.len().max(1) as f64;
    let millis = |quantile: f64| Duration::from_micros(all.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    let [cpu, other] = [cpu, other].map(|used| used.as_secs_f64() * 1e6 / calls);
    Ok((Cell { throughput: calls / time.as_secs_f64(), p50: millis(0.5), p99: millis(0.99), cpu }, other))
}

const WARM_UP: Duration = Duration::from_millis(500);

/// The CPU time of a process so far, which Linux counts in hundredths of a second.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program can contain spaces, and ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ").context("no name in /proc")?;
    let ticks: Vec<u64> = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}
