//! What every part of the vault needs: the vault id, the store, the clock and the source of randomness.

use std::{future::Future, sync::Arc};

use crate::{
    crypto::Random,
    domain::{Clock, Timestamp, VaultId},
    kms::KmsCalls,
    storage::KeyStore,
    traces::{ActiveSpan, Tracer, in_trace},
};

use super::VaultError;

/// The dependencies that all parts share. It decides nothing.
pub(super) struct Environment {
    /// The id of this vault. Every ciphertext is bound to it.
    pub vault_id: VaultId,
    /// The store. All parts read from it; only the audit gate commits to it.
    pub store: Arc<dyn KeyStore>,
    /// The clock.
    pub clock: Clock,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
    /// The calls of the KMS that no entry has yet.
    pub kms_calls: Arc<KmsCalls>,
    /// The tracer of background work. `None` if nothing is traced.
    pub tracer: Option<Arc<Tracer>>,
}

impl Environment {
    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Runs background work in a trace of its own, if it is traced. `describe` adds what the span is about; of a failure it has the code.
    pub(super) async fn traced<T, F>(&self, name: &'static str, work: F, describe: impl FnOnce(&mut ActiveSpan)) -> F::Output
    where
        F: Future<Output = Result<T, VaultError>> + Unpin,
    {
        in_trace(self.tracer.as_ref(), name, work, |span, done| {
            describe(span);
            if let Err(error) = done {
                span.failed(error.code().as_str());
            }
        })
        .await
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// `Internal` if the operating system provides no randomness.
    pub(super) fn random_bytes<const N: usize>(&self) -> Result<[u8; N], VaultError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}
