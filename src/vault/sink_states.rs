//! How far each audit sink has the log, and whether a required one holds back answers. The tasks of the sinks write it; calls read it, and never
//! wait for a best-effort sink.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::domain::{Operation, WorkKind};

/// The states of all sinks.
pub(super) struct SinkStates {
    sinks: Vec<Arc<SinkState>>,
    /// The newest entry that a call wrote.
    written: watch::Sender<u64>,
    /// How long an answer waits for a required sink.
    wait: Duration,
}

/// The state of one sink.
pub(super) struct SinkState {
    pub(super) name: String,
    pub(super) required: bool,
    progress: watch::Sender<Progress>,
}

/// How far a sink is.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// The last entry that the sink confirmed.
    confirmed: u64,
    /// Why the sink does not confirm entries now.
    fault: Option<&'static str>,
}

/// A sink that does not confirm entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailingSink<'a> {
    pub(super) name: &'a str,
    pub(super) required: bool,
    /// The fault, without paths and addresses.
    pub(super) fault: &'static str,
}

impl SinkStates {
    /// Sinks of which nothing is known yet. A required one holds back answers until it confirms its first entry, that of its start.
    pub(super) fn new(sinks: impl IntoIterator<Item = (String, bool)>, wait: Duration) -> Self {
        let state = |(name, required)| {
            let progress = Progress { confirmed: 0, fault: Some("it has not confirmed an entry since the start") };
            Arc::new(SinkState { name, required, progress: watch::Sender::new(progress) })
        };
        Self { sinks: sinks.into_iter().map(state).collect(), written: watch::Sender::new(0), wait }
    }

    /// The sinks, each with the last entry that it confirmed.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sinks.iter().map(|sink| (sink.name.as_str(), sink.progress.borrow().confirmed))
    }

    /// The state of the sink at a place of the configuration.
    pub(super) fn at(&self, place: usize) -> Option<Arc<SinkState>> {
        self.sinks.get(place).cloned()
    }

    /// Wakes the tasks of the sinks, because an entry is durable.
    pub(super) fn written(&self, sequence: u64) {
        if !self.sinks.is_empty() {
            self.written.send_if_modified(|newest| {
                let is_newer = sequence > *newest;
                *newest = sequence.max(*newest);
                is_newer
            });
        }
    }

    /// Receives the newest entry that a call wrote.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// The sinks that do not confirm entries now.
    pub(super) fn failing(&self) -> impl Iterator<Item = FailingSink<'_>> {
        self.sinks.iter().filter_map(|sink| {
            let fault = sink.progress.borrow().fault?;
            Some(FailingSink { name: &sink.name, required: sink.required, fault })
        })
    }

    /// The required sink for which answers of this operation are held back now.
    pub(super) fn holds_back(&self, operation: Operation) -> Option<FailingSink<'_>> {
        if depends_on_sinks(operation) { self.failing().find(|sink| sink.required) } else { None }
    }

    /// Whether an answer of this operation waits for a sink.
    pub(super) fn delay(&self, operation: Operation) -> bool {
        depends_on_sinks(operation) && self.sinks.iter().any(|sink| sink.required)
    }

    /// Waits until every required sink has an entry, for all of them together no longer than the limit. Otherwise the name of the sink that does not
    /// have it. That sink then counts as failing, so that further calls do not wait for it.
    pub(super) async fn confirm(&self, sequence: u64) -> Result<(), &str> {
        let deadline = Instant::now() + self.wait;
        for sink in self.sinks.iter().filter(|sink| sink.required) {
            let mut progress = sink.progress.subscribe();
            let confirmed = progress.wait_for(|progress| progress.confirmed >= sequence);
            if !matches!(tokio::time::timeout_at(deadline, confirmed).await, Ok(Ok(_))) {
                sink.fail_at(sequence, "it does not confirm entries in time");
                return Err(&sink.name);
            }
        }
        Ok(())
    }
}

impl SinkState {
    /// Records that the sink has all entries up to this one. `complete` is whether these were all of the log when they were sent: then the sink works.
    pub(super) fn confirmed(&self, sequence: u64, complete: bool) {
        self.progress.send_modify(|progress| {
            progress.confirmed = sequence;
            if complete {
                progress.fault = None;
            }
        });
    }

    /// Records why the sink does not confirm entries. Returns whether that is news.
    pub(super) fn fail(&self, fault: &'static str) -> bool {
        self.progress.send_if_modified(|progress| progress.fault.replace(fault) != Some(fault))
    }

    /// As [`SinkState::fail`], unless the sink has the entry by now.
    fn fail_at(&self, sequence: u64, fault: &'static str) {
        self.progress.send_if_modified(|progress| {
            let is_late = progress.confirmed < sequence && progress.fault.is_none();
            if is_late {
                progress.fault = Some(fault);
            }
            is_late
        });
    }

    /// Whether the sink does not confirm entries now.
    pub(super) fn is_failing(&self) -> bool {
        self.progress.borrow().fault.is_some()
    }
}

/// Whether an operation needs the required sinks. What takes rights away in an incident does not, and neither does what an operator looks at to find
/// the fault, which uses no key.
fn depends_on_sinks(operation: Operation) -> bool {
    !matches!(operation.work_kind(), None | Some(WorkKind::Incident | WorkKind::Information | WorkKind::NoRoute))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(required: bool) -> SinkStates {
        SinkStates::new([("siem".to_owned(), required)], Duration::from_secs(2))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_a_required_sink_and_no_longer_than_the_limit() {
        let states = states(true);
        assert!(states.holds_back(Operation::Sign).is_some(), "nothing is known of it yet");
        let sink = states.at(0).unwrap();
        sink.confirmed(5, true);
        assert_eq!(states.holds_back(Operation::Sign), None);
        assert_eq!(states.confirm(5).await, Ok(()));
        let (confirmed, ()) = tokio::join!(states.confirm(6), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sink.confirmed(6, true);
        });
        assert_eq!(confirmed, Ok(()));
        let began = Instant::now();
        assert_eq!(states.confirm(7).await, Err("siem"));
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(states.holds_back(Operation::Sign).unwrap().fault, "it does not confirm entries in time");
        sink.confirmed(7, false);
        assert!(states.holds_back(Operation::Sign).is_some(), "it has not caught up");
        sink.confirmed(8, true);
        assert_eq!(states.holds_back(Operation::Sign), None);
    }

    #[test]
    fn an_incident_and_the_status_need_no_sink_and_a_best_effort_sink_holds_nothing_back() {
        let required = states(true);
        for operation in [Operation::Freeze, Operation::DisableKey, Operation::Status, Operation::Whoami] {
            assert_eq!(required.holds_back(operation), None, "{operation}");
            assert!(!required.delay(operation), "{operation}");
        }
        for operation in [Operation::Sign, Operation::Unfreeze, Operation::CreateKey, Operation::QueryAudit] {
            assert!(required.holds_back(operation).is_some() && required.delay(operation), "{operation}");
        }
        let best_effort = states(false);
        assert!(best_effort.holds_back(Operation::Sign).is_none() && !best_effort.delay(Operation::Sign));
        assert_eq!(best_effort.failing().count(), 1);
    }
}
