//! Sends the durable entries to the sinks of the audit log: one task for each sink, in order, from the store, at least once.
//!
//! A sink goes on after its stored cursor. Whoever can write to the database can move a cursor; therefore each start of a sink is an entry that names
//! the place, and a cursor that does not belong to the log is not used.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Entry, leaf_hash},
    domain::{AuditEvent, Operation, Outcome},
    sinks::{EntrySink, SinkEntry, SinkFault, SinkMode, SinkOptions, SinkStart},
    storage::{CHAIN_START, SinkCursor, StoreError, TreeQuery},
};

use super::Background;
use crate::vault::sink_states::SinkState;

/// The most entries of a batch.
const BATCH: u64 = 256;
/// The shortest time between two writes of a cursor. Entries of this time are sent again after a crash.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: a required sink holds back calls until it is tried again.
const LONGEST_PAUSE_REQUIRED: Duration = Duration::from_secs(1);
/// The longest pause of other sinks.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the end of the vault waits for the sinks that work.
const LAST_ENTRIES: Duration = Duration::from_secs(3);

/// The counters of a sink.
const COUNTERS: &[&str] = &[
    "keyvault_audit_sink_sent_total",
    "keyvault_audit_sink_failures_total",
    "keyvault_audit_sink_gaps_total",
    "keyvault_audit_sink_skipped_total",
];

/// One sink with its place in the log.
pub(in crate::vault) struct Delivery {
    options: SinkOptions,
    sink: Box<dyn EntrySink>,
    state: Arc<SinkState>,
    /// `None` before the first successful look at the store.
    cursor: Option<SinkCursor>,
    /// The sequence number that the store has, and since when.
    stored: Option<(u64, Instant)>,
    /// Consecutive failures.
    failures: u32,
}

/// All sinks.
pub(in crate::vault) type Deliveries = Arc<[Mutex<Delivery>]>;

/// Why a batch was not sent.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("{0}")]
    Sink(SinkFault),
    #[error("the log cannot be read: {0}")]
    Store(StoreError),
}

impl From<StoreError> for Undelivered {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Undelivered {
    const fn in_short(&self) -> &'static str {
        match self {
            Self::Sink(fault) => fault.in_short(),
            Self::Store(_) => "the log cannot be read",
        }
    }
}

/// Whether there is more to send.
#[derive(PartialEq, Eq)]
enum Step {
    More,
    Complete,
    /// Entries were left out, which confirms nothing.
    Skipped,
}

impl Delivery {
    pub(in crate::vault) fn new(options: SinkOptions, sink: Box<dyn EntrySink>, state: Arc<SinkState>) -> Self {
        Self { options, sink, state, cursor: None, stored: None, failures: 0 }
    }

    /// The pause before the next attempt.
    fn pause(&self, jitter: u8) -> Duration {
        let longest = if self.state.required { LONGEST_PAUSE_REQUIRED } else { LONGEST_PAUSE };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(longest);
        pause / 2 + pause / 512 * u32::from(jitter)
    }
}

impl Background {
    /// Sends entries to the sink at this place of the configuration until `stop`.
    pub(super) async fn send_entries(self, place: usize, stop: CancellationToken) {
        let Some(delivery) = self.deliveries.get(place) else { return };
        let mut delivery = delivery.lock().await;
        // An alert sees no increase in a counter that appears with its first event.
        for counter in COUNTERS {
            metrics::counter!(*counter, "sink" => delivery.options.name.clone()).increment(0);
        }
        metrics::gauge!("keyvault_audit_sink_up", "sink" => delivery.options.name.clone()).set(0.0);
        let mut written = self.gate.sinks().subscribe();
        while !stop.is_cancelled() {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = self.step(&mut delivery) => result,
            };
            let go_on = match result {
                Ok(Step::Skipped) => true,
                Ok(Step::More) => {
                    Self::succeeded(&mut delivery);
                    true
                }
                Ok(Step::Complete) => {
                    Self::succeeded(&mut delivery);
                    next_entry(&stop, &mut written, CURSOR_INTERVAL, true).await
                }
                Err(error) => {
                    let pause = self.failed(&mut delivery, &error);
                    next_entry(&stop, &mut written, pause, false).await
                }
            };
            if !go_on {
                return;
            }
        }
    }

    /// Sends the entry of the stop, and what is left, to the sinks that work, and stores the cursors. The tasks of the sinks have ended.
    pub(in crate::vault) async fn send_last_entries(&self) {
        let deadline = Instant::now() + LAST_ENTRIES;
        for delivery in self.deliveries.iter() {
            let Ok(mut delivery) = delivery.try_lock() else { continue };
            if !delivery.state.is_failing() {
                let sent = async { while matches!(self.step(&mut delivery).await, Ok(Step::More | Step::Skipped)) {} };
                let _ = tokio::time::timeout_at(deadline, sent).await;
            }
            if let Err(error) = self.store_cursor(&mut delivery, Duration::ZERO).await {
                tracing::warn!(sink = delivery.options.name, %error, "the cursor of an audit sink could not be stored; it gets some entries twice");
            }
        }
    }

    fn succeeded(delivery: &mut Delivery) {
        if std::mem::take(&mut delivery.failures) > 0 {
            tracing::info!(sink = delivery.options.name, "the audit sink confirms entries again");
        }
    }

    /// Records a failure. Returns the pause before the next attempt.
    fn failed(&self, delivery: &mut Delivery, error: &Undelivered) -> Duration {
        let name = &delivery.options.name;
        metrics::counter!("keyvault_audit_sink_failures_total", "sink" => name.clone()).increment(1);
        metrics::gauge!("keyvault_audit_sink_up", "sink" => name.clone()).set(0.0);
        if delivery.state.fail(error.in_short()) || delivery.failures == 0 {
            let mode = if delivery.state.required { "required" } else { "best-effort" };
            tracing::error!(sink = name, mode, %error, "an audit sink does not confirm entries; the vault retries");
        }
        let mut jitter = [0];
        // Without randomness there is no jitter.
        let _ = self.env.random.fill(&mut jitter);
        let pause = delivery.pause(jitter[0]);
        delivery.failures = delivery.failures.saturating_add(1);
        pause
    }

    /// Sends at most one batch.
    #[expect(clippy::cast_precision_loss, reason = "gauges do not need the precision")]
    async fn step(&self, delivery: &mut Delivery) -> Result<Step, Undelivered> {
        let cursor = match delivery.cursor {
            Some(cursor) => cursor,
            None => self.begin(delivery).await?,
        };
        let head = self.env.store.log_head().size;
        let lag = head.saturating_sub(cursor.sequence);
        metrics::gauge!("keyvault_audit_sink_lag_entries", "sink" => delivery.options.name.clone()).set(lag as f64);
        if delivery.options.max_lag.is_some_and(|most| lag > most) {
            self.skip(delivery, cursor, head).await?;
            return Ok(Step::Skipped);
        }
        if lag == 0 {
            delivery.state.confirmed(cursor.sequence, true);
            self.store_cursor(delivery, CURSOR_INTERVAL).await?;
            return Ok(Step::Complete);
        }
        let batch = self.batch(cursor.sequence, lag.min(BATCH)).await?;
        let limit = delivery.options.timeout;
        let sent = timeout(limit, delivery.sink.send(&batch)).await.unwrap_or(Err(SinkFault::TimedOut(limit)));
        sent.map_err(Undelivered::Sink)?;
        let Some(last) = batch.last() else { return Ok(Step::Complete) };
        delivery.cursor = Some(SinkCursor { sequence: last.sequence, leaf: leaf_hash(&last.bytes), at: self.env.now() });
        let complete = last.sequence == head;
        delivery.state.confirmed(last.sequence, complete);
        if complete {
            metrics::gauge!("keyvault_audit_sink_up", "sink" => delivery.options.name.clone()).set(1.0);
        }
        metrics::counter!("keyvault_audit_sink_sent_total", "sink" => delivery.options.name.clone()).increment(batch.len() as u64);
        // The entries are sent. A cursor that cannot be stored now is stored later.
        if let Err(error) = self.store_cursor(delivery, CURSOR_INTERVAL).await {
            tracing::warn!(sink = delivery.options.name, %error, "the cursor of an audit sink could not be stored; the vault retries");
        }
        Ok(if complete { Step::Complete } else { Step::More })
    }

    async fn batch(&self, after: u64, count: u64) -> Result<Vec<SinkEntry>, StoreError> {
        let bytes = self.env.store.entries_for_sinks(after, count).await?;
        let entry = |(sequence, bytes): (u64, Vec<u8>)| {
            let unreadable =
                |what: &dyn std::fmt::Display| StoreError::Corrupt { table: "audit_entries", what: format!("entry {sequence}: {what}") };
            let Entry { at, outcome, trace_id, sequence: inside, .. } = Entry::decode(&bytes).map_err(|error| unreadable(&error))?;
            if inside != sequence {
                return Err(unreadable(&format_args!("its bytes say {inside}")));
            }
            Ok(SinkEntry { sequence, at, ok: matches!(outcome, Outcome::Ok | Outcome::Intent), trace_id, bytes })
        };
        (after.saturating_add(1)..).zip(bytes).map(entry).collect()
    }

    /// Decides where a sink goes on, and writes the entry that says it.
    async fn begin(&self, delivery: &mut Delivery) -> Result<SinkCursor, Undelivered> {
        let SinkOptions { name, from, .. } = &delivery.options;
        let stored = self.env.store.sink_cursor(name).await?;
        let head = self.env.store.log_head().size;
        let at = self.env.now();
        let (cursor, reason) = match stored {
            Some(cursor) if self.is_of_this_log(&cursor, head).await? => (cursor, format!("continues after entry {}", cursor.sequence)),
            Some(cursor) => {
                tracing::error!(
                    sink = name,
                    sequence = cursor.sequence,
                    "the stored cursor of an audit sink does not belong to the log; the sink gets the whole log again"
                );
                let reason =
                    format!("its stored cursor at entry {} does not belong to the log: begins again with entry 1", cursor.sequence);
                (SinkCursor { sequence: 0, leaf: CHAIN_START, at }, reason)
            }
            None if *from == SinkStart::Beginning => (SinkCursor { sequence: 0, leaf: CHAIN_START, at }, "begins with entry 1".to_owned()),
            None => (SinkCursor { sequence: head, leaf: self.leaf_of(head).await?, at }, format!("begins after entry {head}")),
        };
        self.record_of_sink(Operation::StartSink, Outcome::Ok, name, reason).await?;
        let cursor = self.after_removed(name, cursor).await?;
        self.env.store.store_sink_cursor(name, cursor).await?;
        delivery.stored = Some((cursor.sequence, Instant::now()));
        delivery.cursor = Some(cursor);
        delivery.state.confirmed(cursor.sequence, false);
        Ok(cursor)
    }

    /// A sink that lacks removed entries goes on after them. They are in the archive, and the entry of the gap says so.
    async fn after_removed(&self, name: &str, cursor: SinkCursor) -> Result<SinkCursor, StoreError> {
        let removed = self.env.store.removed_through();
        if cursor.sequence >= removed {
            return Ok(cursor);
        }
        let (first, missing) = (cursor.sequence.saturating_add(1), removed - cursor.sequence);
        let reason = format!("entries {first} to {removed} were not sent: they were archived and removed before");
        self.record_of_sink(Operation::SkipEntries, Outcome::Failed, name, reason).await?;
        tracing::error!(
            sink = name,
            first,
            last = removed,
            "an audit sink lacks entries that were archived and removed; send it the archive"
        );
        metrics::counter!("keyvault_audit_sink_gaps_total", "sink" => name.to_owned()).increment(1);
        metrics::counter!("keyvault_audit_sink_skipped_total", "sink" => name.to_owned()).increment(missing);
        Ok(SinkCursor { sequence: removed, leaf: self.leaf_of(removed).await?, at: self.env.now() })
    }

    async fn is_of_this_log(&self, cursor: &SinkCursor, head: u64) -> Result<bool, StoreError> {
        Ok(cursor.sequence <= head && self.leaf_of(cursor.sequence).await? == cursor.leaf)
    }

    /// The leaf hash of an entry, from its bytes if they are not removed.
    async fn leaf_of(&self, sequence: u64) -> Result<[u8; 32], StoreError> {
        let Some(before) = sequence.checked_sub(1) else { return Ok(CHAIN_START) };
        if sequence <= self.env.store.removed_through() {
            // Only the hash may be left.
            let hashes = self.env.store.tree(TreeQuery::Hashes { level: 0, from: before, count: 1 }).await?;
            return Ok(hashes.first().copied().unwrap_or(CHAIN_START));
        }
        let bytes = self.env.store.entries_for_sinks(before, 1).await?;
        Ok(bytes.first().map_or(CHAIN_START, |bytes| leaf_hash(bytes)))
    }

    /// Leaves out what a sink lags behind. The entry that says so is durable before, and is the next one that the sink gets.
    async fn skip(&self, delivery: &mut Delivery, cursor: SinkCursor, head: u64) -> Result<(), Undelivered> {
        let name = &delivery.options.name;
        let (first, most) = (cursor.sequence.saturating_add(1), delivery.options.max_lag.unwrap_or(0));
        let leaf = self.leaf_of(head).await?;
        let reason = format!("entries {first} to {head} were not sent: the sink was more than max_lag ({most}) entries behind");
        self.record_of_sink(Operation::SkipEntries, Outcome::Failed, name, reason).await?;
        tracing::error!(sink = name, first, last = head, "an audit sink was too far behind; these entries are not sent to it");
        metrics::counter!("keyvault_audit_sink_gaps_total", "sink" => name.clone()).increment(1);
        metrics::counter!("keyvault_audit_sink_skipped_total", "sink" => name.clone()).increment(head - cursor.sequence);
        delivery.cursor = Some(SinkCursor { sequence: head, leaf, at: self.env.now() });
        self.store_cursor(delivery, Duration::ZERO).await?;
        Ok(())
    }

    async fn record_of_sink(&self, operation: Operation, outcome: Outcome, name: &str, reason: String) -> Result<(), StoreError> {
        let event = AuditEvent { outcome, subject: Some(name.to_owned()), reason: Some(reason), ..self.gate.system_event(operation) };
        self.gate.record(event).await.map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// Stores the cursor if it moved and the stored one is older than `interval`.
    async fn store_cursor(&self, delivery: &mut Delivery, interval: Duration) -> Result<(), StoreError> {
        let Some(cursor) = delivery.cursor else { return Ok(()) };
        if delivery.stored.is_some_and(|(stored, at)| stored == cursor.sequence || at.elapsed() < interval) {
            return Ok(());
        }
        self.env.store.store_sink_cursor(&delivery.options.name, cursor).await?;
        delivery.stored = Some((cursor.sequence, Instant::now()));
        Ok(())
    }
}

/// Waits for the next entry or the end of `wait`; after a failure, only for the latter. `false` once the task must end.
async fn next_entry(stop: &CancellationToken, written: &mut watch::Receiver<u64>, wait: Duration, wake: bool) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        changed = written.changed(), if wake => changed.is_ok(),
        () = tokio::time::sleep(wait) => true,
    }
}

/// Whether calls depend on the sink.
pub(in crate::vault) fn is_required(options: &SinkOptions) -> bool {
    options.mode == SinkMode::Required
}
