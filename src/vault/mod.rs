//! The use cases, a file a verb. [`Vault`] holds the parts and no logic; nothing leaves it but what the log has taken.

mod cache;
mod call;
mod commit;
mod create;
mod decrypt;
mod deferred;
mod disable;
mod drill;
mod encrypt;
mod error;
mod explain;
mod export;
mod gate;
mod health;
mod import;
pub mod jobs;
mod limits;
mod look;
mod new_key;
mod once;
mod open;
mod opened;
mod progress;
mod quarantine;
mod refreshing;
mod refusals;
mod reject;
mod replicate;
mod reseal;
mod retire;
mod rewrap;
mod rotate;
mod rotations;
mod show_wrapper_key;
mod sign;
mod start;
mod step;
mod use_key;
mod wrap_order;
mod wrapper_keys;
mod wrappers;

use std::sync::{Arc, atomic::AtomicBool};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::{
    crypto::Random,
    domain::{Clock, Policy, VaultId, WrapperKey},
    storage::KeyStore,
    wrapper::{Providers, Ring},
};

pub use cache::CacheConfig;
pub use call::Call;
pub use commit::Answer;
pub use create::NewKey;
pub use drill::Drilled;
pub use error::{Code, VaultError};
pub use explain::{Decision, Question, Status, Whoami};
pub use export::Exported;
pub use health::WrapperHealth;
pub use import::{ImportKey, Imported, MaterialFormat};
pub use jobs::JobsConfig;
pub use limits::{LimitsConfig, Slot};
pub use look::{Cursor, EntryQuery, KeyQuery, LoggedEntry, Part};
pub use retire::{Needed, Retired};
pub use show_wrapper_key::KmsLook;
pub use start::Parts;
pub use step::{DELETION_DAYS, InForce};
pub use wrapper_keys::{NewWrapperKey, WrapperKeyView};
pub use wrappers::canary_context;

/// A running vault.
pub struct Vault {
    id: VaultId,
    version: String,
    store: Arc<dyn KeyStore>,
    providers: Arc<Providers>,
    ring: Ring,
    clock: Clock,
    random: Arc<dyn Random>,
    /// Swapped by whoever watches the configuration.
    policy: Arc<ArcSwap<Policy>>,
    /// The wrapper keys, as of a revision of the store.
    wrapper_keys: ArcSwap<(u64, Arc<Vec<WrapperKey>>)>,
    cache: cache::Cache,
    limits: limits::Limits,
    refusals: refusals::Refusals,
    deferred: deferred::DeferredList,
    refreshing: refreshing::Refreshing,
    health: health::Health,
    frozen: AtomicBool,
    /// Held while the incident switch goes to the log, so that memory and store end alike whoever turned it last.
    switch: Mutex<()>,
    hash_key: [u8; 32],
    beat: jobs::Beat,
    /// Rung when there may be work over all keys.
    job_bell: watch::Sender<()>,
    progress: progress::Progress,
}
