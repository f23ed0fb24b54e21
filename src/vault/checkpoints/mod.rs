//! Checkpoints of the audit log: signed statements of its length, of the root of its tree, and of the newest state change.
//!
//! | file | guarantees |
//! |---|---|
//! | `signing_key` | The signing key is sealed like any other key; no caller can use it. |
//! | `make` | A checkpoint states entries that are durable, and is published only after it is stored. |
//! | `rotate_key` | A rotation is an entry that the old and the new key sign. |
//! | `publish` | A disk that hangs delays no call but the checkpoint, and that for a bounded time. |
//! | `compare` | A start with a store that is older than a checkpoint, or has another history, is refused. |
//! | `tiles` | The log as C2SP tlog-tiles: stored hashes and entries, as they are. |
//! | `calls` | What auditors ask for: the newest checkpoint, verifier keys, proofs. |

mod calls;
mod compare;
mod make;
mod publish;
mod rotate_key;
mod signing_key;
mod tiles;

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::domain::KeyId;

use super::key_cache::OpenKey;

use self::publish::Publisher;

pub use self::{
    calls::{InclusionProof, Proof, VerifierKeyView},
    compare::{Rollback, compare},
    tiles::{Tile, TileKind},
};

/// Where a new checkpoint is published after it is stored: a place that an attacker who can write to the store cannot write to.
/// [`CheckpointSink::publish`] is called on a blocking thread.
pub trait CheckpointSink: Send + Sync {
    /// Publishes the signed note of a checkpoint. A failure is logged by the caller, and the next checkpoint is published again.
    ///
    /// # Errors
    /// The reason, for the log.
    fn publish(&self, note: &str) -> Result<(), String>;
}

/// The state of checkpoints in this process.
pub(super) struct Checkpoints {
    /// The process, as in the entries.
    instance: String,
    publisher: Publisher,
    /// The open signing key. Held while a checkpoint is made, so that one is made at a time.
    signing_key: Mutex<Option<(KeyId, Arc<OpenKey>)>>,
}

impl Checkpoints {
    pub(super) fn new(instance: String, sinks: Vec<Arc<dyn CheckpointSink>>) -> Self {
        Self { instance, publisher: Publisher::new(sinks), signing_key: Mutex::new(None) }
    }
}

/// The name of a log in its checkpoints: `<vault>/<instance>/<incarnation>`.
fn origin(vault: &str, instance: &str, incarnation: u64) -> String {
    format!("{vault}/{instance}/{incarnation}")
}
