//! The domain: keys, wrapper keys, principals, policy and audit events. No I/O, no async, no clock.

mod audit_event;
mod context;
mod dimension;
mod ids;
mod job;
mod key;
mod lifecycle;
mod mapping_kind;
mod operation;
mod policy;
mod policy_text;
mod principal;
mod spec;
mod text;
mod timestamp;
mod work_kind;
mod wrapper_key;

pub use self::audit_event::{AuditEvent, KmsUse, Outcome, StateChange, UNIDENTIFIED_KMS_CALLS};
pub use self::context::EncryptionContext;
pub use self::dimension::Dimension;
pub use self::ids::{Fingerprint, IdError, JobId, KeyId, KeyName, NodeName, VaultId, WrapperKeyId};
pub use self::job::{Job, JobError, JobKind, JobState, Work};
pub use self::key::{KeyAttributes, KeyRecord, SealedKey, Wrap};
pub use self::lifecycle::{KeyState, Lifecycle, Transition, TransitionError};
pub use self::mapping_kind::{MappingKind, MappingKinds};
pub use self::operation::{Concern, Operation, Role};
pub use self::policy::{Denied, Grant, MissingRole, NodeScope, Permit, Policy, PolicyError, Target};
pub use self::policy_text::grants_in;
pub use self::principal::{CertificateId, Principal};
pub use self::spec::{Algorithm, Class, KeySpec, Origin, Purpose, SignatureFormat, Usage, Usages};
pub use self::text::UnknownText;
pub(crate) use self::text::{Hex, text_enum};
pub use self::timestamp::{Clock, Timestamp};
pub use self::work_kind::WorkKind;
pub use self::wrapper_key::{KmsRotation, KmsRotationKind, ProviderKind, WrapperKey, WrapperState};
