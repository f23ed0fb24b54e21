//! Why an operation of the vault failed. Each reason has one code. HTTP status codes are in `api::problem`.

use crate::{
    crypto::{CryptoError, RandomFailed, canton::CantonFileError},
    domain::{
        Algorithm, Denied, IdError, JobId, JobState, KeyId, KeyState, MissingRole, NodeName, TransitionError, WrapperState, text_enum,
    },
    kms::{Cure, Outage, Reason, WrapperError},
    storage::{CommitError, LoggedUse, StoreError},
};

use super::{Fault, WrapperKeyInUse};

text_enum!(
    /// The codes of problem documents and of the `reason` of audit entries. The table in `api::problem` says what each means for a caller.
    Code as "problem code" {
        /// The request is malformed.
        InvalidRequest = "invalid_request",
        /// The body is longer than the limit of the call.
        TooLarge = "too_large",
        /// The body did not arrive in time.
        RequestTimeout = "request_timeout",
        /// No such path.
        NoSuchRoute = "no_such_route",
        /// The path exists, but not with this method.
        MethodNotAllowed = "method_not_allowed",
        /// The client certificate is not accepted.
        Unauthenticated = "unauthenticated",
        /// The caller lacks the role for the operation.
        Forbidden = "forbidden",
        /// The object does not exist, or the caller may not see it.
        NotFound = "not_found",
        /// The node is not declared.
        UnknownNode = "unknown_node",
        /// The attributes are not valid together.
        InvalidAttributes = "invalid_attributes",
        /// The material is not a key of a supported scheme.
        InvalidMaterial = "invalid_material",
        /// The key does not support the algorithm.
        UnsupportedAlgorithm = "unsupported_algorithm",
        /// A decryption failed. All causes have this code.
        DecryptionFailed = "decryption_failed",
        /// The key is disabled.
        KeyDisabled = "key_disabled",
        /// The key is superseded: it decrypts, but does not sign or encrypt.
        KeySuperseded = "key_superseded",
        /// The key failed a check and was quarantined.
        KeyQuarantined = "key_quarantined",
        /// The deletion of the key is scheduled.
        KeyPendingDeletion = "key_pending_deletion",
        /// The key was destroyed.
        KeyDestroyed = "key_destroyed",
        /// The state of the key does not allow the transition.
        InvalidKeyState = "invalid_key_state",
        /// The key is permanent.
        PermanentKey = "permanent_key",
        /// The key was used, so that it cannot be withdrawn.
        KeyWasUsed = "key_was_used",
        /// The log does not prove that the key was never used.
        KeyUseUnknown = "key_use_unknown",
        /// The key was not imported.
        NotImported = "not_imported",
        /// The key was rotated before.
        KeyHasSuccessor = "key_has_successor",
        /// The key signs topology transactions only.
        TopologyOnly = "topology_only",
        /// The bytes are not a topology transaction that the vault shows and signs.
        InvalidTopology = "invalid_topology",
        /// The key was not created exportable.
        NotExportable = "not_exportable",
        /// A key with this id and other attributes exists.
        KeyExists = "key_exists",
        /// The wrapper key is registered already.
        WrapperKeyExists = "wrapper_key_exists",
        /// The state of the wrapper key does not allow the operation.
        InvalidWrapperKeyState = "invalid_wrapper_key_state",
        /// Keys depend on the wrapper key.
        WrapperKeyInUse = "wrapper_key_in_use",
        /// Keys have no verified wrap under the active wrapper key, and no rotation runs. A reason of the status, which no call gets.
        RotationIncomplete = "rotation_incomplete",
        /// No entry of the audit log can be removed now.
        NothingToRemove = "nothing_to_remove",
        /// The entries of the audit log were archived and removed.
        EntriesRemoved = "entries_removed",
        /// A job over all keys is running.
        JobRunning = "job_running",
        /// The job has ended.
        JobEnded = "job_ended",
        /// The idempotency key was used with another body.
        IdempotencyMismatch = "idempotency_mismatch",
        /// Another operation changed the object.
        Conflict = "conflict",
        /// The KMS denies the use of the wrapper key.
        WrapperDenied = "wrapper_denied",
        /// The wrapper key does not exist in the KMS.
        WrapperKeyNotFound = "wrapper_key_not_found",
        /// The KMS rejects the credentials of the vault.
        WrapperCredentialsRejected = "wrapper_credentials_rejected",
        /// The wrapper key, its file or its configuration is not valid.
        WrapperMisconfigured = "wrapper_misconfigured",
        /// The configuration does not allow this wrapper key.
        WrapperNotAllowed = "wrapper_not_allowed",
        /// The KMS cannot be reached.
        WrapperUnavailable = "wrapper_unavailable",
        /// The audit entry could not be made durable.
        AuditUnavailable = "audit_unavailable",
        /// An audit sink does not confirm entries. A reason of the status, which no call gets.
        SinkFailing = "sink_failing",
        /// The change is still being written. Whether it is stored is not known yet.
        OutcomeUnknown = "outcome_unknown",
        /// The store cannot be read.
        StorageUnavailable = "storage_unavailable",
        /// The vault is frozen.
        Frozen = "frozen",
        /// The vault is stopping.
        ShuttingDown = "shutting_down",
        /// The principal exceeded a limit.
        TooManyRequests = "too_many_requests",
        /// An internal error of the vault.
        Internal = "internal",
    }
);

impl Code {
    /// The code of a reason of the KMS. Several reasons have one code; the reason has the remedy.
    pub const fn of_wrapper(reason: Reason) -> Self {
        match reason {
            Reason::AccessDenied | Reason::KeyDisabled | Reason::KeyPendingDeletion | Reason::KeyVersionDisabled => Self::WrapperDenied,
            Reason::KeyNotFound => Self::WrapperKeyNotFound,
            Reason::CredentialsMissing
            | Reason::CredentialsExpired
            | Reason::AccessKeyUnknown
            | Reason::SignatureRefused
            | Reason::ClockSkew
            | Reason::CredentialProcessFailed
            | Reason::CredentialProcessOutput
            | Reason::SsoLoginEnded
            | Reason::RoleRefused
            | Reason::WebIdentityRefused
            | Reason::CredentialEndpointRefused
            | Reason::CredentialsMisconfigured
            | Reason::TokenRefused
            | Reason::CertificateLoginRefused
            | Reason::LoginRefused
            | Reason::AccessTokenRefused
            | Reason::PinRefused
            | Reason::PinLocked
            | Reason::PinLastTry => Self::WrapperCredentialsRejected,
            Reason::NotAllowed => Self::WrapperNotAllowed,
            // A retry does not cure a certificate.
            Reason::KeyOfWrongKind
            | Reason::KeyExportable
            | Reason::WrapInvalid
            | Reason::RequestUnfit
            | Reason::Misconfigured
            | Reason::TlsFailed => Self::WrapperMisconfigured,
            Reason::Unreachable
            | Reason::TimedOut
            | Reason::CredentialsUnavailable
            | Reason::Throttled
            | Reason::ServerError
            | Reason::Sealed
            | Reason::TokenAbsent
            | Reason::ReplicaNotReady
            | Reason::NotTried => Self::WrapperUnavailable,
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key does not exist, or the caller may not see it.
    #[error("key {0} does not exist, or this principal may not see it")]
    KeyNotFound(KeyId),
    /// The object does not exist. The text names its kind.
    #[error("no {0} exists")]
    NotFound(&'static str),
    /// The caller lacks the role.
    #[error("{0}")]
    Forbidden(Box<MissingRole>),
    /// The node is not declared.
    #[error("node {0} is not declared. Add it to `nodes` in the configuration")]
    UndeclaredNode(NodeName),
    /// The request is malformed. The text says how.
    #[error("{0}")]
    InvalidRequest(String),
    /// The path does not exist.
    #[error("this path does not exist")]
    NoSuchRoute,
    /// The path does not support the method.
    #[error("this path does not support this method")]
    MethodNotAllowed,
    /// The body is too long.
    #[error("{0}")]
    TooLarge(&'static str),
    /// The body did not arrive in time.
    #[error("the body of the request did not arrive in time. [connections] body_timeout limits it")]
    BodyTimeout,
    /// Attributes that are not valid together. The text says why.
    #[error("{0}")]
    InvalidAttributes(String),
    /// The material is not a supported key. The text says why.
    #[error("{0}")]
    InvalidMaterial(String),
    /// The key does not support the algorithm.
    #[error("a key of this spec and purpose does not support {0}")]
    UnsupportedAlgorithm(Algorithm),
    /// The ciphertext does not decrypt. All causes have this text.
    #[error("the ciphertext does not decrypt under this key")]
    DecryptionFailed,
    /// The state of the key does not allow the use.
    #[error("the key is {0}")]
    State(KeyState),
    /// The state of the key does not allow the transition.
    #[error("{0}")]
    InvalidKeyState(TransitionError),
    /// The key is permanent. The text says what cannot be done.
    #[error("the key is permanent: it cannot be {0}")]
    Permanent(&'static str),
    /// The key was used, so that it cannot be withdrawn.
    #[error("the key was used: {0}. Only a key that was never used can be withdrawn")]
    KeyWasUsed(LoggedUse),
    /// The log does not prove that the key was never used. The text says why.
    #[error("the log does not prove that the key was never used: {0}")]
    KeyUseUnknown(String),
    /// The key was generated by the vault.
    #[error("the vault generated this key. Only an imported key can be withdrawn")]
    NotImported,
    /// The key signs topology transactions only. The text says what is permitted.
    #[error("the key signs topology transactions only: {0}")]
    TopologyOnly(String),
    /// The bytes are not a topology transaction that the vault can show completely. The text says why.
    #[error("not a topology transaction that the vault signs: {0}")]
    InvalidTopology(String),
    /// The key is not exportable.
    #[error("the key was not created exportable")]
    NotExportable,
    /// The key exists, with another value of an attribute.
    #[error("key {id} exists with the {attribute} {stored:?}. The request says {requested:?}")]
    KeyExists {
        /// The key.
        id: KeyId,
        /// The first attribute that differs.
        attribute: &'static str,
        /// Its value.
        stored: String,
        /// The value in the request.
        requested: String,
    },
    /// The key exists, or existed, on a node on which the caller may not import.
    #[error("key {0} belongs to a node on which this principal may not import keys")]
    KeyOfAnotherNode(KeyId),
    /// The key was destroyed, and the request does not allow to replace it.
    #[error("key {0} was destroyed. To import it again, set replace_destroyed")]
    KeyWasDestroyed(KeyId),
    /// The key was rotated before.
    #[error("the key already has the successor {0}")]
    HasSuccessor(KeyId),
    /// The wrapper key is registered.
    #[error("this wrapper key is already registered, possibly under another alias or region")]
    WrapperKeyExists,
    /// The state of the wrapper key does not allow the operation.
    #[error("a wrapper key that is {0} cannot take this step")]
    InvalidWrapperKeyState(WrapperState),
    /// Keys depend on the wrapper key.
    #[error("{0}")]
    WrapperKeyInUse(Box<WrapperKeyInUse>),
    /// No entry of the audit log is old enough to be removed, or not everybody has it.
    #[error("nothing was removed: {0}")]
    NothingToRemove(String),
    /// The call needs entries that were archived and removed.
    #[error("the entries up to {0} were archived and removed, except state changes. Begin after entry {0}, or read the archive")]
    EntriesRemoved(u64),
    /// Another job runs. Only one job runs at a time.
    #[error("another job over all keys is running{}", .0.map_or_else(String::new, |id| format!(": {id}")))]
    JobRunning(Option<JobId>),
    /// The job does not run.
    #[error("the job already ended: it {0}")]
    JobEnded(JobState),
    /// The `Idempotency-Key` was used with another body.
    #[error("this Idempotency-Key was used with another body")]
    IdempotencyMismatch,
    /// Every attempt lost a compare-and-swap.
    #[error("another operation changed the object. Read it again, then retry")]
    Conflict,
    /// The error of a wrapper key or its KMS.
    #[error(transparent)]
    Wrapper(#[from] WrapperError),
    /// No wrapper key is active.
    #[error("no wrapper key is active yet")]
    NoWrapperKey,
    /// The audit log cannot be written.
    #[error("the audit log cannot be written: {0}")]
    AuditUnavailable(StoreError),
    /// A required audit sink is known to fail.
    #[error("the required audit sink {sink} does not confirm entries: {fault}")]
    SinkFailing {
        /// The sink.
        sink: String,
        /// Its fault.
        fault: &'static str,
    },
    /// A required audit sink did not confirm the entry of the call in time. The operation changed nothing, and its result is dropped.
    #[error("the result was withheld: the required audit sink {sink} did not confirm entry {sequence} in time")]
    ResultWithheld {
        /// The sink.
        sink: String,
        /// The entry.
        sequence: u64,
    },
    /// A required audit sink did not confirm the entry of a change in time. The change is in force.
    #[error("the change is stored, but the required audit sink {sink} did not confirm its entry {sequence} in time")]
    ChangeUnconfirmed {
        /// The sink.
        sink: String,
        /// The entry.
        sequence: u64,
    },
    /// The change is still being written. It completes or fails without the caller.
    #[error("the store has not confirmed the change in time. It may be stored now, later or not at all")]
    OutcomeUnknown,
    /// The store cannot be read.
    #[error("{0}")]
    StorageUnavailable(StoreError),
    /// The vault is frozen.
    #[error("the vault is frozen")]
    Frozen,
    /// The vault is stopping.
    #[error("the vault is shutting down")]
    ShuttingDown,
    /// The principal exceeded a limit.
    #[error("too many {what}. Retry later at a lower rate")]
    TooMany {
        /// What is limited.
        what: &'static str,
        /// After how many seconds the call can succeed, if the caller makes no other one.
        retry_after: u32,
    },
    /// An internal error. The text contains no secret.
    #[error("an internal check failed: {0}")]
    Internal(&'static str),
}

impl VaultError {
    /// A limit on what happens at the same time.
    pub(super) const fn too_many(what: &'static str) -> Self {
        Self::TooMany { what, retry_after: 1 }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::KeyNotFound(_) | Self::NotFound(_) => Code::NotFound,
            Self::Forbidden(_) => Code::Forbidden,
            Self::UndeclaredNode(_) => Code::UnknownNode,
            Self::InvalidRequest(_) => Code::InvalidRequest,
            Self::TooLarge(_) => Code::TooLarge,
            Self::BodyTimeout => Code::RequestTimeout,
            Self::InvalidAttributes(_) => Code::InvalidAttributes,
            Self::InvalidMaterial(_) => Code::InvalidMaterial,
            Self::UnsupportedAlgorithm(_) => Code::UnsupportedAlgorithm,
            Self::DecryptionFailed => Code::DecryptionFailed,
            Self::State(KeyState::Disabled) => Code::KeyDisabled,
            Self::State(KeyState::Superseded) => Code::KeySuperseded,
            Self::State(KeyState::Quarantined) => Code::KeyQuarantined,
            Self::State(KeyState::PendingDeletion) => Code::KeyPendingDeletion,
            Self::State(KeyState::Destroyed) | Self::KeyWasDestroyed(_) => Code::KeyDestroyed,
            Self::State(KeyState::Active) | Self::InvalidKeyState(_) => Code::InvalidKeyState,
            Self::Permanent(_) => Code::PermanentKey,
            Self::KeyWasUsed(_) => Code::KeyWasUsed,
            Self::KeyUseUnknown(_) => Code::KeyUseUnknown,
            Self::NotImported => Code::NotImported,
            Self::HasSuccessor(_) => Code::KeyHasSuccessor,
            Self::NoSuchRoute => Code::NoSuchRoute,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::TopologyOnly(_) => Code::TopologyOnly,
            Self::InvalidTopology(_) => Code::InvalidTopology,
            Self::NotExportable => Code::NotExportable,
            Self::KeyExists { .. } | Self::KeyOfAnotherNode(_) => Code::KeyExists,
            Self::WrapperKeyExists => Code::WrapperKeyExists,
            Self::InvalidWrapperKeyState(_) => Code::InvalidWrapperKeyState,
            Self::NothingToRemove(_) => Code::NothingToRemove,
            Self::EntriesRemoved(_) => Code::EntriesRemoved,
            Self::WrapperKeyInUse(_) => Code::WrapperKeyInUse,
            Self::JobRunning(_) => Code::JobRunning,
            Self::JobEnded(_) => Code::JobEnded,
            Self::IdempotencyMismatch => Code::IdempotencyMismatch,
            Self::Conflict => Code::Conflict,
            Self::Wrapper(error) => Code::of_wrapper(error.reason()),
            Self::NoWrapperKey => Code::WrapperUnavailable,
            Self::AuditUnavailable(_) | Self::SinkFailing { .. } | Self::ResultWithheld { .. } => Code::AuditUnavailable,
            Self::OutcomeUnknown | Self::ChangeUnconfirmed { .. } => Code::OutcomeUnknown,
            Self::StorageUnavailable(_) => Code::StorageUnavailable,
            Self::Frozen => Code::Frozen,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::TooMany { .. } => Code::TooManyRequests,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether a refusal with this error is recorded as a denial: the caller may not do it, or may not see the object.
    pub(super) const fn is_denial(&self) -> bool {
        matches!(self, Self::KeyNotFound(_) | Self::NotFound(_) | Self::Forbidden(_) | Self::UndeclaredNode(_))
    }

    /// The sentence about a vault that cannot register its first wrapper key, and what it waits for.
    pub fn without_wrapper_key(&self) -> String {
        let awaited = if let Self::Wrapper(error) = self { error.cure() } else { Cure::Time }.awaited();
        format!("there is no wrapper key yet: {self}; {awaited}")
    }

    /// Whether only another configuration cures the error, which a running vault does not read.
    pub const fn needs_configuration(&self) -> bool {
        matches!(self, Self::Wrapper(error) if matches!(error.cure(), Cure::Configuration))
    }

    /// Whether a retry can cure the error.
    pub(super) const fn retry_can_cure(&self) -> bool {
        if let Self::Wrapper(WrapperError::Unavailable { outage, .. }) = self {
            return !matches!(outage, Outage::TlsFailed);
        }
        matches!(
            self,
            Self::NoWrapperKey
                | Self::AuditUnavailable(_)
                | Self::SinkFailing { .. }
                | Self::ResultWithheld { .. }
                | Self::ChangeUnconfirmed { .. }
                | Self::OutcomeUnknown
                | Self::StorageUnavailable(_)
                | Self::Conflict
                | Self::Frozen
                | Self::ShuttingDown
        )
    }

    /// The reason of an error of the KMS.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Wrapper(error) => Some(error.reason()),
            _ => None,
        }
    }

    /// The fault, for the status of the vault.
    pub(super) const fn fault(&self, detail: String) -> Fault {
        Fault { code: self.code(), reason: self.reason(), detail: Some(detail) }
    }

    /// The KMS request id of the error, for the audit entry.
    pub(super) fn kms_request_id(&self) -> Option<&str> {
        if let Self::Wrapper(error) = self { error.request_id() } else { None }
    }
}

/// A failed read. A corrupt row is not an outage: the key is quarantined, and a retry cannot cure it.
impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { table: "keys" | "wraps", .. } => Self::State(KeyState::Quarantined),
            StoreError::Corrupt { .. } => Self::Internal("a row of the store cannot be read"),
            other => Self::StorageUnavailable(other),
        }
    }
}

/// A failed write.
impl From<CommitError> for VaultError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(store) => Self::AuditUnavailable(store),
            CommitError::WrapperKeyExists => Self::WrapperKeyExists,
            CommitError::JobRunning => Self::JobRunning(None),
            CommitError::Stale
            | CommitError::LostRace
            | CommitError::KeyExists
            | CommitError::ActiveWrapperChanged
            | CommitError::WrapperKeyNotFilled
            | CommitError::KeysLeft(_)
            | CommitError::IdempotencyKeyTaken => Self::Conflict,
        }
    }
}

impl From<CryptoError> for VaultError {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::Unsupported(algorithm) => Self::UnsupportedAlgorithm(algorithm),
            CryptoError::DecryptionFailed => Self::DecryptionFailed,
            CryptoError::BadKey(_) => Self::InvalidMaterial(error.to_string()),
            CryptoError::TooLong(_) => Self::InvalidRequest(error.to_string()),
            CryptoError::Faulty => Self::Internal("the result of a computation did not verify"),
        }
    }
}

impl From<CantonFileError> for VaultError {
    fn from(error: CantonFileError) -> Self {
        Self::InvalidMaterial(error.to_string())
    }
}

impl From<IdError> for VaultError {
    fn from(error: IdError) -> Self {
        Self::InvalidRequest(error.to_string())
    }
}

impl From<RandomFailed> for VaultError {
    fn from(_: RandomFailed) -> Self {
        Self::Internal("the operating system provided no randomness")
    }
}

/// The error of a denial.
pub(super) fn denied(denied: Denied, key: Option<KeyId>, node: Option<&NodeName>) -> VaultError {
    match (denied, key, node) {
        (Denied::NotFound, Some(key), _) => VaultError::KeyNotFound(key),
        (Denied::NotFound, None, _) => VaultError::NotFound("such object"),
        (Denied::UndeclaredNode, _, Some(node)) => VaultError::UndeclaredNode(node.clone()),
        (Denied::UndeclaredNode, ..) => VaultError::Internal("an undeclared node without a name"),
        (Denied::Forbidden(missing), ..) => VaultError::Forbidden(missing),
    }
}
