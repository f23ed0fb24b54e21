//! Audit events: one for each call, including reads and refusals, before the audit log numbers it.

use std::sync::Arc;

use super::{Algorithm, KeyId, Lifecycle, NodeName, Operation, Principal, Timestamp, WrapperKeyId, text::text_enum};

text_enum!(
    /// The outcome of a call.
    Outcome as "outcome" {
        /// The call succeeded.
        Ok = "ok",
        /// The policy denied the call.
        Denied = "denied",
        /// The call was permitted but failed. The reason is the problem code.
        Failed = "failed",
        /// An effect outside the vault is about to happen, such as the creation of a KMS key. A second entry has its outcome.
        Intent = "intent",
    }
);

/// The state of a key after a change. The vault compares each row with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The revision of the key after the change.
    pub revision: u64,
    /// The lifecycle of the key after the change.
    pub lifecycle: Lifecycle,
    /// The successor of the key.
    pub successor: Option<KeyId>,
    /// When a key pending deletion is destroyed. An edited row cannot destroy a key earlier.
    pub delete_at: Option<Timestamp>,
}

/// In the subject of the entry of a start: the process shares its store with others, so that a part of the state changes is in their logs.
pub const REPLICA: &str = "one of several replicas";

/// What begins the text of KMS calls whose request id is not known, among the request ids of an entry: `unidentified:<number>:<action>:<place>`.
///
/// There was no answer, or the answer has no id.
pub const UNIDENTIFIED_KMS_CALLS: &str = "unidentified:";

/// The KMS calls of an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsUse {
    /// The request ids that the KMS assigned, to find the calls in its own log; calls without one as `unidentified:…`. The audit gate adds them.
    pub request_ids: Vec<String>,
    /// The wrapper keys that wrapped or unwrapped a data key. The store records the time for each. The audit entry has only the request
    /// ids.
    pub wrapper_keys: Vec<WrapperKeyId>,
}

impl KmsUse {
    /// Adds the KMS calls of another part of the same operation.
    pub fn add(&mut self, other: Self) {
        self.request_ids.extend(other.request_ids);
        other.wrapper_keys.into_iter().for_each(|wrapper_key| self.took_part(wrapper_key));
    }

    /// Records that a wrapper key wrapped or unwrapped a data key in this request.
    pub fn took_part(&mut self, wrapper_key: WrapperKeyId) {
        if !self.wrapper_keys.contains(&wrapper_key) {
            self.wrapper_keys.push(wrapper_key);
        }
    }
}

/// One event. It contains digests only: no message, plaintext, ciphertext or key material. The texts that every call has are shared, so that a copy of
/// the event of a use allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The time of the event.
    pub at: Timestamp,
    /// The caller.
    pub principal: Principal,
    /// The operation.
    pub operation: Operation,
    /// The key.
    pub key: Option<KeyId>,
    /// The node.
    pub node: Option<NodeName>,
    /// The algorithm.
    pub algorithm: Option<Algorithm>,
    /// SHA-256 of the message to sign, of the *ciphertext* of an encryption or decryption, or of the text of the policy of a start or reload.
    pub digest: Option<[u8; 32]>,
    /// The outcome.
    pub outcome: Outcome,
    /// The problem code of a refusal or failure, or the cause of a state change.
    pub reason: Option<String>,
    /// The revision of the policy that decided.
    pub policy_revision: Arc<str>,
    /// The KMS calls.
    pub kms: KmsUse,
    /// What the client says of itself, at most 64 visible ASCII characters and spaces. Not authenticated.
    pub client: Option<Arc<str>>,
    /// The W3C trace id (32 hex digits), if the caller sent one.
    pub trace_id: Option<Arc<str>>,
    /// The request id, as in `x-request-id` of the response.
    pub request_id: Option<Arc<str>>,
    /// The new state of a key, for a state change.
    pub change: Option<StateChange>,
    /// The object of the operation if it is not a key: a wrapper key id, a file name, a revision.
    pub subject: Option<String>,
    /// The number of refusals that this entry represents, if it is more than one.
    pub count: Option<u64>,
    /// A signed note, of the rotation of the key that signs checkpoints.
    pub note: Option<String>,
}

impl AuditEvent {
    /// An event with the mandatory fields only.
    pub fn new(at: Timestamp, principal: Principal, operation: Operation, policy_revision: Arc<str>) -> Self {
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
            client: None,
            trace_id: None,
            request_id: None,
            change: None,
            subject: None,
            count: None,
            note: None,
        }
    }
}
