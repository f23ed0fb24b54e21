//! The use cases, a file a verb. [`Vault`] holds the parts and no logic; nothing leaves it but what the log has taken.

mod access;
mod audit_gate;
pub mod background;
mod call;
mod error;
mod health;
mod key_cache;
mod keys;
mod limits;
mod reject;
mod start;
mod wrapper_keys;

use std::sync::{Arc, atomic::AtomicBool};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::{
    crypto::Random,
    domain::{Clock, Policy, VaultId, WrapperKey},
    kms::{Connections, Providers},
    storage::KeyStore,
};

pub use self::access::{AuthorizationDecision, AuthorizationQuery, Status, Whoami};
pub use self::audit_gate::commit::AuditedResult;
pub use self::background::JobsConfig;
pub use self::call::CallContext;
pub use self::error::{Code, VaultError};
pub use self::health::WrapperHealth;
pub use self::key_cache::cache::CacheConfig;
pub use self::keys::create::NewKey;
pub use self::keys::export::Exported;
pub use self::keys::import::{ImportKey, Imported, MaterialFormat};
pub use self::keys::lifecycle::{DELETION_DAYS, Effective};
pub use self::keys::queries::{EntryQuery, ItemPage, KeyQuery, LoggedEntry, PageRequest};
pub use self::keys::verify_backup::BackupKeyResult;
pub use self::limits::{LimitsConfig, Slot};
pub use self::start::VaultConfig;
pub use self::wrapper_keys::register::{NewWrapperKey, WrapperKeyView};
pub use self::wrapper_keys::retire::{Retired, WrapperKeyInUse};
pub use self::wrapper_keys::show::KmsStatus;
pub use self::wrapper_keys::unwrap::canary_context;

/// A running vault.
pub struct Vault {
    id: VaultId,
    version: String,
    store: Arc<dyn KeyStore>,
    providers: Arc<Providers>,
    connections: Connections,
    clock: Clock,
    random: Arc<dyn Random>,
    /// Swapped by whoever watches the configuration.
    policy: Arc<ArcSwap<Policy>>,
    /// The wrapper keys, as of a revision of the store.
    wrapper_keys: ArcSwap<(u64, Arc<Vec<WrapperKey>>)>,
    cache: key_cache::cache::Cache,
    limits: limits::Limits,
    refusal_throttle: audit_gate::refusal_throttle::RefusalThrottle,
    pending_audit: audit_gate::pending_audit::PendingAudit,
    refresh_state: key_cache::refresh::RefreshState,
    health: health::Health,
    frozen: AtomicBool,
    /// Held while the incident switch goes to the log, so that memory and store end alike whoever turned it last.
    freeze_lock: Mutex<()>,
    hash_key: [u8; 32],
    job_rate_limit: background::JobRateLimit,
    /// Rung when there may be work over all keys.
    job_wakeup: watch::Sender<()>,
    progress: background::progress::Progress,
}
