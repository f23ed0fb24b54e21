//! What happened, before the log gives it a place: one event per call, reads and refusals too.

use super::{Algorithm, KeyId, Lifecycle, NodeName, Operation, Principal, Timestamp, WrapperKeyId, text::text_enum};

text_enum!(
    /// How a call ended.
    Outcome as "outcome" {
        /// Done.
        Ok = "ok",
        /// Refused by the gate.
        Denied = "denied",
        /// Allowed, but not done; the reason is the problem code.
        Failed = "failed",
        /// About to act on something outside (create a KMS key); a second entry tells how it ended.
        Intent = "intent",
    }
);

/// A key's state after a change: the log's word against which every row is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The key's revision from now on.
    pub revision: u64,
    /// The key's marks from now on.
    pub lifecycle: Lifecycle,
    /// The key that follows it, if one does.
    pub successor: Option<KeyId>,
    /// When it will be destroyed, where it is pending deletion: an edited row destroys nothing earlier.
    pub delete_at: Option<Timestamp>,
}

/// What was asked of a KMS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsUse {
    /// Request ids that the KMS gave, for reconciliation with its own log.
    pub request_ids: Vec<String>,
    /// The wrapper keys that gave or took a data key: their rows remember when. The entry tells it by the request ids alone.
    pub wrapper_keys: Vec<WrapperKeyId>,
}

impl KmsUse {
    /// A wrapper key gave or took a data key, in this request.
    pub fn took(&mut self, wrapper_key: WrapperKeyId, request_id: Option<String>) {
        self.request_ids.extend(request_id);
        self.took_part(wrapper_key);
    }

    /// Joins what was asked for another part of the same call.
    pub fn add(&mut self, other: Self) {
        self.request_ids.extend(other.request_ids);
        other.wrapper_keys.into_iter().for_each(|wrapper_key| self.took_part(wrapper_key));
    }

    /// A wrapper key gave or took a data key.
    pub fn took_part(&mut self, wrapper_key: WrapperKeyId) {
        if !self.wrapper_keys.contains(&wrapper_key) {
            self.wrapper_keys.push(wrapper_key);
        }
    }
}

/// One event. Carries no message, plaintext, ciphertext or key material, only digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// When it happened.
    pub at: Timestamp,
    /// Who asked.
    pub principal: Principal,
    /// What was asked.
    pub operation: Operation,
    /// Of which key.
    pub key: Option<KeyId>,
    /// Of which node.
    pub node: Option<NodeName>,
    /// With which algorithm.
    pub algorithm: Option<Algorithm>,
    /// SHA-256 of the message to sign, or of the *ciphertext* for encrypt and decrypt.
    pub digest: Option<[u8; 32]>,
    /// How it ended.
    pub outcome: Outcome,
    /// The problem code where it did not end well, or what a state change was caused by.
    pub reason: Option<String>,
    /// The revision of the policy that decided.
    pub policy_revision: String,
    /// What was asked of a KMS for it.
    pub kms: KmsUse,
    /// W3C trace id (32 hex digits), if the caller sent one.
    pub trace_id: Option<String>,
    /// Our own id of the call, as in the answer's `x-request-id`.
    pub request_id: Option<String>,
    /// For a change of a key's state: what it is now.
    pub change: Option<StateChange>,
    /// What the operation was about, where it is no key: a wrapper key id, a file name, a revision.
    pub subject: Option<String>,
    /// How many like it this entry stands for, if more than one (bounded refusal floods).
    pub count: Option<u64>,
}

impl AuditEvent {
    /// An event with nothing but the mandatory facts.
    pub fn new(at: Timestamp, principal: Principal, operation: Operation, policy_revision: String) -> Self {
        Self {
            at,
            principal,
            operation,
            key: None,
            node: None,
            algorithm: None,
            digest: None,
            outcome: Outcome::Ok,
            reason: None,
            policy_revision,
            kms: KmsUse::default(),
            trace_id: None,
            request_id: None,
            change: None,
            subject: None,
            count: None,
        }
    }
}
