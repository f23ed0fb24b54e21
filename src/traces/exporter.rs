//! The exporter: sends ended spans to the collector in batches, from a task of its own. What the collector does not take is counted and forgotten.

use std::{path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Tracer, TracesConfig,
    otlp::{self, TraceSource},
    span::Span,
    tracer::SpanQueue,
};
use crate::{
    client::{ClientError, PostTarget, connector::Connection},
    crypto::Random,
    domain::Clock,
    files::{self, MAX_FILE},
};

/// What becomes of spans, for the metric: the collector took them; it could not be reached or refused the request; it refused the spans; they found
/// the queue full; their caller's share of the queue was used up.
pub const OUTCOMES: &[&str] = &["exported", "failed", "rejected", "queue_full", "share_used"];

/// The most spans of one request.
const BATCH: usize = 256;
/// How long a span waits for others of its batch.
const DELAY: Duration = Duration::from_secs(1);
/// At most one log line in this time says that the collector takes no spans.
const QUIET: Duration = Duration::from_mins(1);

/// The exporter, before it runs.
pub struct Exporter {
    spans: SpanQueue,
    target: Option<PostTarget>,
    config: TracesConfig,
    source: TraceSource,
    kept: Option<Connection>,
    warned: Option<Instant>,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the collector answered {0}")]
    Refused(StatusCode),
    #[error("{0}")]
    Headers(String),
    #[error("a task of the exporter was cancelled")]
    Cancelled,
    #[error("the spans cannot be encoded: {0}")]
    Encoding(#[from] serde_json::Error),
}

impl Exporter {
    /// The tracer of a checked configuration, and its exporter. Opens and reads nothing.
    pub fn new(config: TracesConfig, source: TraceSource, clock: Clock, random: Arc<dyn Random>) -> (Arc<Tracer>, Self) {
        let (tracer, spans) = Tracer::new(config.sample_ratio, config.queue, clock, random);
        (tracer, Self { spans, target: None, config, source, kept: None, warned: None })
    }

    /// Tries whether the collector of a checked configuration accepts a connection, without sending a span. The text says what was found.
    ///
    /// # Errors
    /// What is wrong: a file, the network, a certificate.
    pub async fn probe(config: &TracesConfig) -> Result<String, String> {
        let reached = async {
            let target = read_target(config).await?;
            read_headers(config).await?;
            target.connect().await?;
            Ok::<_, NotTaken>(())
        };
        let late = || format!("{} does not accept a connection within {}", config.endpoint, humantime::format_duration(config.timeout));
        let reached = tokio::time::timeout(config.timeout, reached).await.map_err(|_| late())?;
        reached.map(|()| format!("{} accepts a connection", config.endpoint)).map_err(|error| error.to_string())
    }

    /// Sends spans until `stop`, and then those that are left.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            let count = tokio::select! {
                count = self.spans.take(&mut batch, BATCH) => count,
                () = stop.cancelled(), if !self.spans.is_closed() => {
                    self.spans.close();
                    continue;
                }
            };
            if count == 0 {
                return;
            }
            tokio::select! {
                () = fill(&mut self.spans, &mut batch) => {}
                () = sleep(DELAY) => {}
                () = stop.cancelled() => {}
            }
            self.send(&batch).await;
        }
    }

    async fn send(&mut self, batch: &[Box<Span>]) {
        let all = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let lost = match self.post(batch).await {
            Ok(None) => None,
            Ok(Some((rejected, why))) => Some(("rejected", rejected.min(all), format!("the collector rejected spans: {why}"))),
            Err(error) => Some(("failed", all, error.to_string())),
        };
        let count =
            |outcome: &'static str, spans: u64| metrics::counter!("keyvault_trace_spans_total", "outcome" => outcome).increment(spans);
        count("exported", all - lost.as_ref().map_or(0, |(_, spans, _)| *spans));
        let Some((outcome, spans, cause)) = lost else { return };
        count(outcome, spans);
        if self.warned.is_none_or(|at| at.elapsed() >= QUIET) {
            self.warned = Some(Instant::now());
            tracing::warn!(spans, cause, "the collector of [traces] did not take spans; they are lost. Calls are not affected");
        }
    }

    async fn post(&mut self, batch: &[Box<Span>]) -> Result<Option<(u64, String)>, NotTaken> {
        let body = otlp::encode(batch, &self.source)?;
        let headers = read_headers(&self.config).await?;
        let target = match self.target.take().filter(|_| self.kept.as_ref().is_some_and(|connection| !connection.is_closed())) {
            Some(target) => target,
            // The file of the CAs may have changed.
            None => read_target(&self.config).await?,
        };
        let answer = target.post_over(&mut self.kept, headers, "application/json", body, self.config.timeout).await;
        self.target = Some(target);
        let (status, answer) = answer?;
        if status.is_success() { Ok(otlp::rejected(&answer)) } else { Err(NotTaken::Refused(status)) }
    }
}

/// Returns when the batch is full, or no more spans can come.
#[expect(clippy::vec_box, reason = "the queue has boxes, and a batch takes them as they are")]
async fn fill(spans: &mut SpanQueue, batch: &mut Vec<Box<Span>>) {
    while batch.len() < BATCH && spans.take(batch, BATCH - batch.len()).await > 0 {}
}

/// Reads the file of the CAs.
async fn read_target(config: &TracesConfig) -> Result<PostTarget, NotTaken> {
    let (url, ca) = (config.url(), config.ca.clone());
    Ok(tokio::task::spawn_blocking(move || PostTarget::new(&url, ca)).await.map_err(|_| NotTaken::Cancelled)??)
}

/// Reads the file of the headers, if there is one.
async fn read_headers(config: &TracesConfig) -> Result<HeaderMap, NotTaken> {
    let Some(file) = config.headers_file.clone() else { return Ok(HeaderMap::new()) };
    let read = tokio::task::spawn_blocking(move || headers_in(&file)).await;
    read.map_err(|_| NotTaken::Cancelled)?.map_err(NotTaken::Headers)
}

/// The headers in a file: one `name: value` on each line. The values are secrets, and no message has one.
///
/// # Errors
/// The file and the line that cannot be used.
fn headers_in(file: &Path) -> Result<HeaderMap, String> {
    let bytes = files::read(file, MAX_FILE).map_err(|error| format!("[traces] headers_file {}: {error}", file.display()))?;
    let mut headers = HeaderMap::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let wrong = || format!("[traces] headers_file {}: line {} is not name: value", file.display(), number + 1);
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        let (name, value) = line.split_at_checked(colon).ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| wrong())?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let mut value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_lines_and_a_wrong_line_is_named_without_its_value() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Authorization: Bearer a:b\r\n\nx-tenant:7").unwrap();
        let headers = headers_in(file.path()).unwrap();
        assert_eq!(["authorization", "x-tenant"].map(|name| headers[name].to_str().unwrap()), ["Bearer a:b", "7"]);
        assert!(headers["authorization"].is_sensitive());
        std::fs::write(file.path(), "a: b\nsecret without a colon").unwrap();
        let error = headers_in(file.path()).unwrap_err();
        assert!(error.ends_with(": line 2 is not name: value") && !error.contains("secret without"), "{error}");
    }
}
