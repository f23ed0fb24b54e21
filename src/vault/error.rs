//! Why the vault did not do what it was asked: reasons for whoever must act, each with one code. No HTTP in here.

use crate::{
    crypto::{CryptoError, RandomFailed, canton::CantonFileError},
    domain::{Algorithm, Denied, IdError, JobId, JobState, KeyId, KeyState, NodeName, WrapperState, text_enum},
    kms::WrapperError,
    storage::{CommitError, StoreError},
};

use super::WrapperKeyInUse;

text_enum!(
    /// The codes of problem documents and of the log's `reason`. What each means for a caller stands in one table, in `api`.
    Code as "problem code" {
        /// The request is malformed.
        InvalidRequest = "invalid_request",
        /// The body is longer than the call takes.
        TooLarge = "too_large",
        /// No such path.
        NoSuchRoute = "no_such_route",
        /// The path exists, the method does not.
        MethodNotAllowed = "method_not_allowed",
        /// The client certificate is not accepted.
        Unauthenticated = "unauthenticated",
        /// Visible, but not allowed.
        Forbidden = "forbidden",
        /// Unknown, or of another node.
        NotFound = "not_found",
        /// The node is not declared.
        UnknownNode = "unknown_node",
        /// The facts do not fit together.
        InvalidAttributes = "invalid_facts",
        /// The material is no key that the vault keeps.
        InvalidMaterial = "invalid_material",
        /// The key does not do this algorithm.
        UnsupportedAlgorithm = "unsupported_algorithm",
        /// Every way in which a decryption can fail.
        DecryptionFailed = "decryption_failed",
        /// The key is switched off.
        KeyDisabled = "key_disabled",
        /// The key has a successor and makes nothing new.
        KeySuperseded = "key_superseded",
        /// The key failed a check and was set aside.
        KeyQuarantined = "key_quarantined",
        /// The key waits to be destroyed.
        KeyPendingDeletion = "key_pending_deletion",
        /// The key is gone.
        KeyDestroyed = "key_destroyed",
        /// The step does not exist from the key's state.
        InvalidKeyState = "wrong_state",
        /// The key is permanent.
        PermanentKey = "permanent_key",
        /// The key was not created exportable.
        NotExportable = "not_exportable",
        /// A key with this id and other facts exists.
        KeyExists = "key_exists",
        /// The wrapper key is registered already.
        WrapperKeyExists = "wrapper_key_exists",
        /// The wrapper key's state has no such step.
        InvalidWrapperKeyState = "wrong_wrapper_state",
        /// Keys depend on the wrapper key.
        WrapperKeyInUse = "wrapper_key_needed",
        /// A job over all keys is running.
        JobRunning = "job_running",
        /// The job has ended.
        JobEnded = "job_ended",
        /// The idempotency key was used with another body.
        IdempotencyMismatch = "idempotency_mismatch",
        /// Something changed meanwhile.
        Conflict = "conflict",
        /// The KMS refuses.
        WrapperDenied = "wrapper_denied",
        /// The configuration does not allow this wrapper key.
        WrapperNotAllowed = "wrapper_not_allowed",
        /// The KMS cannot be reached.
        WrapperUnavailable = "wrapper_unavailable",
        /// The entry could not be made durable.
        AuditUnavailable = "audit_unavailable",
        /// The store cannot be read.
        StorageUnavailable = "storage_unavailable",
        /// The vault is frozen.
        Frozen = "frozen",
        /// The vault is stopping.
        ShuttingDown = "shutting_down",
        /// A limit of this principal.
        TooManyRequests = "too_many_requests",
        /// The vault is at fault.
        Internal = "internal",
    }
);

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Unknown or invisible.
    #[error("there is no key {0} that this principal can see")]
    KeyNotFound(KeyId),
    /// Unknown or invisible.
    #[error("there is no {0}")]
    NotFound(&'static str),
    /// Not allowed.
    #[error("no grant of this principal allows it")]
    Forbidden,
    /// Not declared.
    #[error("node {0} is not declared: add it to `nodes` in the configuration")]
    UndeclaredNode(NodeName),
    /// Malformed.
    #[error("{0}")]
    InvalidRequest(String),
    /// No such path.
    #[error("there is no such path")]
    NoSuchRoute,
    /// No such method there.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// Too long.
    #[error("{0}")]
    TooLarge(&'static str),
    /// Facts that do not fit together.
    #[error("{0}")]
    InvalidAttributes(String),
    /// No key.
    #[error("{0}")]
    InvalidMaterial(String),
    /// Not with this key.
    #[error("a key of this spec and purpose does not do {0}")]
    UnsupportedAlgorithm(Algorithm),
    /// One text for all.
    #[error("the ciphertext does not decrypt under this key")]
    DecryptionFailed,
    /// The state forbids the use.
    #[error("the key is {0}")]
    State(KeyState),
    /// The state has no such step.
    #[error("a key that is {0} cannot take this step")]
    InvalidKeyState(KeyState),
    /// Never for a permanent key.
    #[error("the key is permanent: it cannot be rotated, superseded or deleted")]
    Permanent,
    /// Not created exportable.
    #[error("the key was not created exportable")]
    NotExportable,
    /// Another key has the id.
    #[error("key {0} exists with other facts")]
    KeyExists(KeyId),
    /// It was rotated before.
    #[error("the key has a successor already: {0}")]
    HasSuccessor(KeyId),
    /// Registered already.
    #[error("this wrapper key is registered already, whatever name or region it was given by")]
    WrapperKeyExists,
    /// The wrapper key's state has no such step.
    #[error("a wrapper key that is {0} cannot take this step")]
    InvalidWrapperKeyState(WrapperState),
    /// Keys depend on it.
    #[error("{0}")]
    WrapperKeyInUse(Box<WrapperKeyInUse>),
    /// One at a time.
    #[error("a job over all keys is running{}", .0.map_or_else(String::new, |id| format!(": {id}")))]
    JobRunning(Option<JobId>),
    /// It does not run.
    #[error("the job has {0} already")]
    JobEnded(JobState),
    /// Used with another body.
    #[error("this Idempotency-Key was used with another body")]
    IdempotencyMismatch,
    /// Lost a race.
    #[error("the key changed meanwhile: look at it again")]
    Conflict,
    /// From the KMS or about it.
    #[error(transparent)]
    Wrapper(#[from] WrapperError),
    /// No wrapper key yet.
    #[error("no wrapper key is active yet")]
    NoWrapperKey,
    /// The log cannot be written.
    #[error("the audit log cannot be written: {0}")]
    AuditUnavailable(StoreError),
    /// The store cannot be read.
    #[error("{0}")]
    StorageUnavailable(StoreError),
    /// Frozen.
    #[error("the vault is frozen")]
    Frozen,
    /// Stopping.
    #[error("the vault is shutting down")]
    ShuttingDown,
    /// A limit.
    #[error("too many {0}; slow down")]
    TooMany(&'static str),
    /// Our fault; the text holds nothing secret.
    #[error("the vault failed a check of its own: {0}")]
    Internal(&'static str),
}

impl VaultError {
    /// The one code for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::KeyNotFound(_) | Self::NotFound(_) => Code::NotFound,
            Self::Forbidden => Code::Forbidden,
            Self::UndeclaredNode(_) => Code::UnknownNode,
            Self::InvalidRequest(_) => Code::InvalidRequest,
            Self::TooLarge(_) => Code::TooLarge,
            Self::InvalidAttributes(_) => Code::InvalidAttributes,
            Self::InvalidMaterial(_) => Code::InvalidMaterial,
            Self::UnsupportedAlgorithm(_) => Code::UnsupportedAlgorithm,
            Self::DecryptionFailed => Code::DecryptionFailed,
            Self::State(KeyState::Disabled) => Code::KeyDisabled,
            Self::State(KeyState::Superseded) => Code::KeySuperseded,
            Self::State(KeyState::Quarantined) => Code::KeyQuarantined,
            Self::State(KeyState::PendingDeletion) => Code::KeyPendingDeletion,
            Self::State(KeyState::Destroyed) => Code::KeyDestroyed,
            Self::State(KeyState::Active) | Self::InvalidKeyState(_) => Code::InvalidKeyState,
            Self::Permanent => Code::PermanentKey,
            Self::NoSuchRoute => Code::NoSuchRoute,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::NotExportable => Code::NotExportable,
            Self::KeyExists(_) => Code::KeyExists,
            Self::WrapperKeyExists => Code::WrapperKeyExists,
            Self::InvalidWrapperKeyState(_) => Code::InvalidWrapperKeyState,
            Self::WrapperKeyInUse(_) => Code::WrapperKeyInUse,
            Self::JobRunning(_) => Code::JobRunning,
            Self::JobEnded(_) => Code::JobEnded,
            Self::IdempotencyMismatch => Code::IdempotencyMismatch,
            Self::Conflict | Self::HasSuccessor(_) => Code::Conflict,
            Self::Wrapper(WrapperError::NotAllowed { .. }) => Code::WrapperNotAllowed,
            Self::Wrapper(WrapperError::Unavailable { .. }) | Self::NoWrapperKey => Code::WrapperUnavailable,
            Self::Wrapper(_) => Code::WrapperDenied,
            Self::AuditUnavailable(_) => Code::AuditUnavailable,
            Self::StorageUnavailable(_) => Code::StorageUnavailable,
            Self::Frozen => Code::Frozen,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::TooMany(_) => Code::TooManyRequests,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether time may cure it, or another attempt.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Wrapper(WrapperError::Unavailable { .. })
                | Self::NoWrapperKey
                | Self::AuditUnavailable(_)
                | Self::StorageUnavailable(_)
                | Self::Conflict
                | Self::Frozen
                | Self::ShuttingDown
        )
    }

    /// The KMS request id that came with it, for the log.
    pub(super) fn kms_request_id(&self) -> Option<&str> {
        match self {
            Self::Wrapper(
                WrapperError::Denied { request_id, .. }
                | WrapperError::Invalid { request_id, .. }
                | WrapperError::Unavailable { request_id, .. },
            ) => request_id.as_deref(),
            _ => None,
        }
    }
}

/// A failed read. A corrupt row is no outage: the key is set aside, and a retry would not help.
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
            CryptoError::Faulty => Self::Internal("a computation did not verify"),
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
        Self::Internal("the system gave no randomness")
    }
}

/// A denial, about one key or none.
pub(super) fn denied(denied: Denied, key: Option<KeyId>, node: Option<&NodeName>) -> VaultError {
    match (denied, key, node) {
        (Denied::NotFound, Some(key), _) => VaultError::KeyNotFound(key),
        (Denied::UndeclaredNode, _, Some(node)) => VaultError::UndeclaredNode(node.clone()),
        (Denied::NotFound, None, _) => VaultError::NotFound("such thing"),
        (Denied::Forbidden | Denied::UndeclaredNode, ..) => VaultError::Forbidden,
    }
}
