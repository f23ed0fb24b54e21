//! Witnesses: after each checkpoint, each witness is asked for its cosignature, which is verified and stored with the checkpoint.
//!
//! A witness remembers the newest tree that it cosigned. It is outside the reach of whoever can replace the database and the high-water mark, so that
//! it notices a log that was rolled back or rewritten. It never delays a checkpoint: it is asked in the background.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{
        Checkpoint, SignedNote, VerifierKey,
        witness::{WitnessAnswer, WitnessError, add_checkpoint, read_answer},
    },
    client::{ClientError, PostTarget},
    config::WitnessConfig,
    domain::{Clock, Timestamp},
    storage::{KeyStore, StoreError, StoredCheckpoint, TreeQuery},
    vault::CheckpointSink,
};

/// How long one request to a witness may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests for one cosignature: one to learn the size that the witness knows, one with the proof.
const ATTEMPTS: u32 = 2;

/// The configured witnesses.
pub(super) struct Witnesses {
    all: Vec<Witness>,
    newest: watch::Sender<Option<String>>,
    clock: Clock,
}

struct Witness {
    key: VerifierKey,
    target: PostTarget,
    required: bool,
    /// The size of the tree that it cosigned last, as far as this process knows.
    size: AtomicU64,
}

/// Why a checkpoint has no cosignature of a witness.
#[derive(Debug, thiserror::Error)]
enum NotCosigned {
    #[error("the witness cosigned a log of {known} entries, and this one has {size}: the log was rolled back or truncated")]
    RolledBack { known: u64, size: u64 },
    #[error("the witness cosigned another log of {0} entries: the log was rewritten or forked")]
    Forked(u64),
    #[error(transparent)]
    Refused(#[from] WitnessError),
    #[error(transparent)]
    Unreachable(#[from] ClientError),
    #[error("the proof for the witness cannot be made: {0}")]
    NoProof(#[from] StoreError),
}

impl NotCosigned {
    /// For the metric.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::RolledBack { .. } => "rolled_back",
            Self::Forked(_) | Self::Refused(WitnessError::Inconsistent) => "forked",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) | Self::NoProof(_) => "unreachable",
        }
    }

    /// Whether the witness knows another history.
    fn is_alarm(&self) -> bool {
        matches!(self.outcome(), "rolled_back" | "forked")
    }
}

impl Witnesses {
    /// Checks the URLs and reads the files of the configuration. `None` without witnesses.
    ///
    /// # Errors
    /// An option that is not valid.
    pub(super) fn new(configured: &[WitnessConfig], clock: Clock) -> anyhow::Result<Option<Arc<Self>>> {
        let witness = |WitnessConfig { url, verifier_key, ca, required }: &WitnessConfig| {
            let target = PostTarget::new(&format!("{}/add-checkpoint", url.trim_end_matches('/')), ca.clone());
            let target = target.map_err(|error| anyhow::anyhow!("[[audit.witnesses]] {error}"))?;
            anyhow::Ok(Witness { key: verifier_key.clone(), target, required: *required, size: AtomicU64::new(0) })
        };
        let all = configured.iter().map(witness).collect::<Result<Vec<_>, _>>()?;
        Ok((!all.is_empty()).then(|| Arc::new(Self { all, newest: watch::Sender::new(None), clock })))
    }

    /// Asks the witnesses about each new checkpoint, until `stop`.
    pub(super) async fn run(self: Arc<Self>, store: Arc<dyn KeyStore>, stop: CancellationToken) {
        let mut newest = self.newest.subscribe();
        let work = async {
            while newest.changed().await.is_ok() {
                let note = newest.borrow_and_update().clone();
                if let Some(note) = note {
                    self.ask_all(store.as_ref(), &note).await;
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn ask_all(&self, store: &dyn KeyStore, note: &str) {
        let Ok(mut note) = SignedNote::parse(note.as_bytes()) else { return };
        let Ok(checkpoint) = Checkpoint::parse(note.text()) else { return };
        let missing = self.all.iter().filter(|witness| note.verify(&witness.key).is_err());
        let (signed, wanted) = (&note, &checkpoint);
        let asked = missing.map(|witness| async move { (witness, witness.cosign(store, signed, wanted).await) });
        let answers = futures_util::future::join_all(asked).await;
        let mut cosigned = false;
        for (Witness { key, required, .. }, answer) in answers {
            let outcome = answer.as_ref().map_or_else(NotCosigned::outcome, |_| "cosigned");
            metrics::counter!("keyvault_witness_requests_total", "outcome" => outcome).increment(1);
            match answer {
                Ok(with) => {
                    note.add_signatures_of(&with);
                    cosigned = true;
                }
                Err(why) if why.is_alarm() || *required => {
                    tracing::error!(witness = key.name(), size = checkpoint.size, %why, "a witness did not cosign a checkpoint of the audit log");
                }
                Err(why) => {
                    tracing::warn!(witness = key.name(), size = checkpoint.size, %why, "a witness did not cosign a checkpoint of the audit log");
                }
            }
        }
        if self.all.iter().all(|witness| note.verify(&witness.key).is_ok()) {
            tell_cosigned((self.clock)());
        }
        if cosigned && let Err(error) = keep(store, &checkpoint, note).await {
            tracing::warn!(%error, size = checkpoint.size, "the cosignatures of a checkpoint could not be stored");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285 million years")]
fn tell_cosigned(at: Timestamp) {
    metrics::gauge!("keyvault_witness_cosigned_timestamp_seconds").set(at.seconds() as f64);
}

/// Stores the cosignatures with their checkpoint, if that is still the newest one. An older one is not needed any more.
async fn keep(store: &dyn KeyStore, checkpoint: &Checkpoint, note: SignedNote) -> Result<(), StoreError> {
    let Some(stored) = store.newest_checkpoint(&checkpoint.origin).await? else { return Ok(()) };
    if stored.size == checkpoint.size {
        store.store_checkpoint(StoredCheckpoint { note: note.to_string(), ..stored }).await?;
    }
    Ok(())
}

impl Witness {
    /// The note with the cosignature of this witness.
    async fn cosign(&self, store: &dyn KeyStore, note: &SignedNote, checkpoint: &Checkpoint) -> Result<SignedNote, NotCosigned> {
        let size = checkpoint.size;
        for _ in 0..ATTEMPTS {
            let old = self.size.load(Ordering::Relaxed).min(size);
            let proof = if old == 0 || old == size { Vec::new() } else { store.tree(TreeQuery::Consistency { old, size }).await? };
            let body = add_checkpoint(old, &proof, note).into_bytes();
            let (status, answer) = self.target.post("text/plain; charset=utf-8", body, TIMEOUT).await?;
            match read_answer(status.as_u16(), &answer, note, &self.key)? {
                WitnessAnswer::Cosigned(cosigned) => {
                    self.size.store(size, Ordering::Relaxed);
                    return Ok(cosigned);
                }
                WitnessAnswer::Knows(known) if known > size => return Err(NotCosigned::RolledBack { known, size }),
                // It knows this size, and another root.
                WitnessAnswer::Knows(known) if known == old => return Err(NotCosigned::Forked(known)),
                WitnessAnswer::Knows(known) => self.size.store(known, Ordering::Relaxed),
            }
        }
        Err(WitnessError::Status(409).into())
    }
}

impl CheckpointSink for Witnesses {
    fn publish(&self, note: &str) -> Result<(), String> {
        self.newest.send_replace(Some(note.to_owned()));
        Ok(())
    }
}
