//! Facts: what a key, a wrapper key, a principal and an audit event *are*. No I/O, no async, no clock.

mod audit_event;
mod context;
mod ids;
mod job;
mod key;
mod lifecycle;
mod operation;
mod policy;
mod principal;
mod spec;
mod text;
mod timestamp;
mod wrapper_key;

pub use audit_event::{AuditEvent, KmsUse, Outcome, StateChange};
pub use context::EncryptionContext;
pub use ids::{Fingerprint, IdError, JobId, KeyId, KeyName, NodeName, VaultId, WrapperKeyId};
pub use job::{Job, JobError, JobKind, JobState, Work};
pub use key::{Facts, KeyRecord, SealedKey, Wrap};
pub use lifecycle::{KeyState, Lifecycle, Transition, TransitionError};
pub use operation::{Operation, Role};
pub use policy::{Denied, Grant, NodeScope, Permit, Policy, PolicyError, Target};
pub use principal::{CertificateId, Principal};
pub use spec::{Algorithm, Class, KeySpec, Origin, Purpose, Usage, Usages};
pub use text::UnknownText;
pub(crate) use text::{Hex, text_enum};
pub use timestamp::{Clock, Timestamp};
pub use wrapper_key::{KmsRotation, KmsRotationKind, ProviderKind, WrapperKey, WrapperState};
