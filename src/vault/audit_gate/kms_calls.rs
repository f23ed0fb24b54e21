//! The entries of KMS calls that belong to no other entry: probes, refreshes of open keys, refused keys of a job, calls whose caller is gone.
//!
//! There are at most as many entries as one each 15 minutes and one for each 256 calls.

use crate::domain::{AuditEvent, Operation};

use super::AuditGate;

impl AuditGate {
    /// Writes the entries of loose calls that are due, or of all with `now`. Calls whose entry cannot be written wait for the next time.
    pub(in crate::vault) async fn write_loose_kms_calls(&self, now: bool) {
        while let Some(calls) = self.env.kms_calls.take_loose(now) {
            let mut event = AuditEvent {
                subject: Some(calls.job().map_or_else(|| "probes and other calls".to_owned(), |job| job.to_string())),
                ..self.system_event(Operation::RecordKmsCalls)
            };
            event.kms.request_ids = calls.texts();
            if self.record(event).await.is_err() {
                return;
            }
            calls.written();
        }
    }
}
