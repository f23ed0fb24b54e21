//! Reads that a program repeats many times: which audit entry covers the next one of the same caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    domain::{AuditEvent, Operation, Timestamp},
    storage::Receipt,
};

/// How long an entry covers further reads. A reviewer learns who read the log in which minute.
const COVERS: Duration = Duration::from_mins(1);
/// The most callers that are kept. Only callers with a permit are. Beyond it, entries that cover nothing more are dropped.
const MAX_CALLERS: usize = 1024;

/// A caller: the principal, its certificate, the operation.
type Caller = (Arc<str>, Option<[u8; 32]>, Operation);

/// The newest entry of each caller.
#[derive(Default)]
pub(super) struct RepeatedReads(Mutex<HashMap<Caller, (Timestamp, Receipt)>>);

impl RepeatedReads {
    /// The durable entry that covers this read. `None` if the read needs one of its own.
    pub(super) fn covering(&self, event: &AuditEvent) -> Option<Receipt> {
        let (at, receipt) = *self.lock().get(&caller(event))?;
        covers(at, event.at).then_some(receipt)
    }

    /// Remembers the entry of a read.
    pub(super) fn wrote(&self, event: &AuditEvent, receipt: Receipt) {
        let mut callers = self.lock();
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, (at, _)| covers(*at, event.at));
        }
        if callers.len() < MAX_CALLERS {
            callers.insert(caller(event), (event.at, receipt));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Caller, (Timestamp, Receipt)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn caller(event: &AuditEvent) -> Caller {
    (Arc::clone(&event.principal.name), event.principal.certificate, event.operation)
}

/// A time before the entry means that the clock was set.
fn covers(entry: Timestamp, read: Timestamp) -> bool {
    read >= entry && read.since(entry) < COVERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Principal;

    fn read(name: &str, second: i64) -> AuditEvent {
        let principal = Principal { name: name.into(), certificate: Some([1; 32]) };
        AuditEvent::new(Timestamp::from_micros(second * 1_000_000), principal, Operation::ReadTiles, "p".into())
    }

    #[test]
    fn an_entry_covers_a_minute_of_one_caller() {
        let (reads, receipt) = (RepeatedReads::default(), Receipt { sequence: 7, store_revision: 1 });
        assert!(reads.covering(&read("a", 100)).is_none());
        reads.wrote(&read("a", 100), receipt);
        for (event, expected) in
            [(read("a", 100), true), (read("a", 159), true), (read("a", 160), false), (read("a", 99), false), (read("b", 100), false)]
        {
            assert_eq!(reads.covering(&event).map(|receipt| receipt.sequence), expected.then_some(7), "{event:?}");
        }
        let mut other_certificate = read("a", 100);
        other_certificate.principal.certificate = Some([2; 32]);
        assert!(reads.covering(&other_certificate).is_none());
    }

    #[test]
    fn the_number_of_callers_is_bounded() {
        let (reads, receipt) = (RepeatedReads::default(), Receipt { sequence: 7, store_revision: 1 });
        for number in 0..2 * MAX_CALLERS {
            reads.wrote(&read(&number.to_string(), 100), receipt);
        }
        assert_eq!(reads.lock().len(), MAX_CALLERS);
        reads.wrote(&read("later", 1000), receipt);
        assert_eq!(reads.lock().len(), 1);
    }
}
