//! Calls that did not succeed, grouped: denied, failed, and clients whose certificate was refused.

use crate::{
    audit::Entry,
    domain::{Operation, Outcome},
};

use super::{Tally, Use};

/// Groups that are counted one by one, of each kind.
const MOST: usize = 5_000;

/// Calls that were denied or failed for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefusedCalls {
    /// Whose calls: the principal; of a refused client, the certificate (SHA-256, hex).
    pub who: String,
    /// The operation.
    pub operation: Operation,
    /// The problem code.
    pub reason: String,
    /// Of a refused client: what its certificate says. Nothing of it is verified.
    pub says: String,
}

/// The calls that did not succeed.
#[derive(Debug, Clone)]
pub struct Refusals {
    /// The policy denied them.
    pub denied: Tally<RefusedCalls, Use>,
    /// They were permitted and failed.
    pub failed: Tally<RefusedCalls, Use>,
    /// The client was not admitted.
    pub clients: Tally<RefusedCalls, Use>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { denied: Tally::new(MOST), failed: Tally::new(MOST), clients: Tally::new(MOST) }
    }

    /// Adds an entry, if it is of a call that did not succeed.
    pub(super) fn add(&mut self, entry: &Entry, calls: u64) {
        let refused_client = entry.operation == Operation::RefuseClient;
        let group = match entry.outcome {
            _ if refused_client => &mut self.clients,
            Outcome::Denied => &mut self.denied,
            Outcome::Failed => &mut self.failed,
            Outcome::Ok | Outcome::Intent => return,
        };
        let who = if refused_client { entry.certificate.clone().unwrap_or_default() } else { entry.principal.clone() };
        let says = entry.subject.clone().filter(|_| refused_client).unwrap_or_default();
        let key = RefusedCalls { who, operation: entry.operation, reason: entry.reason.clone().unwrap_or_default(), says };
        if let Some(used) = group.of(&key, calls) {
            used.add(entry, calls);
        }
    }
}
