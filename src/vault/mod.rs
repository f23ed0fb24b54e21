//! The operations of the vault. [`Vault`] consists of a few parts with private fields.
//!
//! A folder may use only those before it (held by `tests/it/layers.rs`):
//!
//! ```text
//! audit_gate → wrapper_keys → key_cache → keys → checkpoints → jobs → background
//! ```
//!
//! | part | guarantees |
//! |---|---|
//! | `AuditGate` | Every operation has a permit, and no result leaves the vault before its audit entry is durable. |
//! | `WrapperKeys` | Data keys are wrapped and verified under registered, allowed wrapper keys only. |
//! | `KeyCache` | A private key is opened only after all checks, and wiped when it is evicted. |
//! | `KeyLifecycle` | Every state change of a key has a new revision and a row tag. |
//! | `Checkpoints` | Signed statements of the log cover durable entries only. |
//! | `Limits` | One caller cannot exhaust the resources of others. Background tasks have no access to it. |

mod audit_access;
mod audit_export;
mod audit_gate;
mod audit_query;
mod audit_summary;
mod authorize;
pub mod background;
mod call;
mod call_fields;
mod checkpoints;
mod detached;
mod environment;
mod error;
mod freeze;
mod heavy_work;
mod job_tracker;
mod jobs;
mod key_cache;
mod keys;
mod limits;
mod operation_histograms;
mod pagination;
mod quarantine;
mod rejected_request;
mod remove_entries;
mod sink_states;
mod start;
mod status;
mod token_bucket;
mod topology;
mod wrapper_keys;

use std::{sync::Arc, time::Duration};

use self::{
    audit_gate::AuditGate, background::Background, checkpoints::Checkpoints, detached::DetachedCalls, environment::Environment,
    job_tracker::JobTracker, key_cache::KeyCache, keys::KeyLifecycle, limits::Limits, wrapper_keys::WrapperKeys,
};

pub use self::{
    audit_access::{KeyAccess, PolicyInForce},
    audit_export::{EXPORT_TIME, Export},
    audit_gate::{AuditedResult, ClientRefusal},
    audit_query::{EntryQuery, KeySelector, LoggedEntry},
    authorize::{AuthorizationDecision, AuthorizationQuery, Whoami},
    background::JobsConfig,
    call::CallContext,
    call_fields::CallFields,
    checkpoints::{CheckpointSink, InclusionProof, Proof, Rollback, Tile, TileKind, VerifierKeyView, compare},
    error::{Code, VaultError},
    freeze::Effective,
    heavy_work::DERIVATIONS,
    key_cache::CacheConfig,
    keys::{
        BackupKeyResult, BatchMessage, DELETION_DAYS, ExportKey, ExportedKey, ImportKey, ImportedKey, KeyQuery, MAX_TRANSACTIONS,
        MaterialFormat, NewKey, Signature, TopologySigned, VerifiedBackupKey, VerifiedKey,
    },
    limits::{
        BODIES, BODIES_TOTAL, CONCURRENT_INCIDENT, EXPORTS, EXPORTS_TOTAL, LONG_ANSWERS, LONG_ANSWERS_TOTAL, LimitsConfig, PATIENCE,
        REPEATED_FREEZES_PER_MINUTE, RESERVED_REQUESTS, RequestSlot, SMALL_BODY, limits_of,
    },
    operation_histograms::OperationHistograms,
    pagination::ItemPage,
    remove_entries::{EntryRemoval, MINIMUM_RETENTION, RemovedEntries},
    start::{Sinks, VaultConfig},
    status::{Fault, Status},
    topology::DecodedTopology,
    wrapper_keys::{
        KmsStatus, NewWrapperKey, Retired, WrapperHealth, WrapperKeyInUse, WrapperKeyOrigin, WrapperKeyView, active_coverage_fault,
        canary_context, compare_with_configuration,
    },
};
pub use crate::{
    kms::Reason,
    storage::{Lease, Order, PageRequest, Replica, StoredCheckpoint, Total, Totals, TotalsQuery},
};

/// A running vault.
pub struct Vault {
    version: String,
    env: Arc<Environment>,
    gate: Arc<AuditGate>,
    wrapper_keys: Arc<WrapperKeys>,
    key_cache: Arc<KeyCache>,
    key_lifecycle: Arc<KeyLifecycle>,
    checkpoints: Checkpoints,
    job_tracker: Arc<JobTracker>,
    limits: Limits,
    background: Background,
    detached_calls: DetachedCalls,
    execution_seconds: OperationHistograms,
    minimum_retention: Duration,
}
