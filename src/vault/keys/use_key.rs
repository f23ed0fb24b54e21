//! How every use of a key walks: facts, permit, open key, result, commit, answer (design §4).

use std::{sync::Arc, time::Instant};

use crate::{
    crypto::on_wiped_stack,
    domain::{AuditEvent, KeyAttributes, KeyId, KeySpec, KeyState, Lifecycle, Permit},
    storage::CommitError,
};

use crate::vault::{
    AuditedResult, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    key_cache::cached_key::{CachedKey, OpenKey},
};

/// What a use needs of the key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum RequiredState {
    /// Signing and encrypting: only while active.
    Active,
    /// Decrypting: also when superseded.
    ActiveOrSuperseded,
}

/// A result and the digest that its entry carries.
pub(in crate::vault) struct KeyOperationResult<T> {
    pub value: T,
    pub digest: Option<[u8; 32]>,
}

impl Vault {
    /// Uses a key: `work` runs on the open key, and its result leaves only once its entry is durable and the key unchanged.
    pub(in crate::vault) async fn use_key<T, W>(
        self: &Arc<Self>,
        event: AuditEvent,
        id: KeyId,
        needs: RequiredState,
        work: W,
    ) -> Result<AuditedResult<T>, VaultError>
    where
        T: Send + 'static,
        W: Fn(&OpenKey, &KeyAttributes) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        let (began, work) = (Instant::now(), Arc::new(work));
        for _ in 1..ATTEMPTS {
            let mut event = event.clone();
            let done = match self.try_use(&mut event, id, needs, &work).await {
                Ok(done) => done,
                Err(VaultError::Conflict) => continue,
                Err(error) => return self.refuse(event, error).await,
            };
            metrics::histogram!("keyvault_execution_seconds", "operation" => event.operation.as_str())
                .record(began.elapsed().as_secs_f64());
            match self.commit(event, done).await {
                Ok(answer) => return Ok(answer),
                Err(CommitError::Stale) => self.cache.forget(id).await,
                Err(error) => return Err(error.into()),
            }
        }
        self.refuse(AuditEvent { key: Some(id), ..event }, VaultError::Conflict).await
    }

    async fn try_use<T, W>(
        self: &Arc<Self>,
        event: &mut AuditEvent,
        id: KeyId,
        needs: RequiredState,
        work: &Arc<W>,
    ) -> Result<Completed<T>, VaultError>
    where
        T: Send + 'static,
        W: Fn(&OpenKey, &KeyAttributes) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        let (permit, lifecycle) = self.permit_use(event, id).await?;
        self.in_service()?;
        if self.pending_audit.disables(id) {
            return Err(VaultError::State(KeyState::Disabled));
        }
        let allowed = |lifecycle: Lifecycle| match needs {
            RequiredState::Active => lifecycle.can_sign(),
            RequiredState::ActiveOrSuperseded => lifecycle.can_decrypt(),
        };
        if !allowed(lifecycle) {
            return Err(VaultError::State(lifecycle.state()));
        }
        let opened = self.opened(&permit, id).await?;
        if !allowed(opened.lifecycle) {
            return Err(VaultError::State(opened.lifecycle.state()));
        }
        event.kms.add(opened.take_kms());
        // Wiped between the look-up and now: opened anew by the next attempt.
        let ready = opened.ready().ok_or(VaultError::Conflict)?;
        let precondition = opened.precondition();
        let KeyOperationResult { value, digest } = self.work(&permit, &opened, ready, work).await?;
        event.digest = digest.or(event.digest);
        Ok(Completed { permit, value, change: None, idempotency: None, precondition: Some(precondition) })
    }

    /// The permit, from the cached facts where the key is open: then no store is read.
    async fn permit_use(&self, event: &mut AuditEvent, id: KeyId) -> Result<(Permit, Lifecycle), VaultError> {
        if let Some(opened) = self.cache.get(id).await {
            return Ok((self.permit_on_key(event, id, Some(&opened.attributes.node))?, opened.lifecycle));
        }
        let (permit, stored) = self.permit_key(event, id).await?;
        // A state that refuses may itself have been edited in: the log has the last word.
        self.check_row(&stored).await?;
        Ok((permit, stored.record.lifecycle))
    }

    /// Runs the computation where it belongs: RSA off the async threads, everything else (up to 100 µs) in place.
    async fn work<T, W>(
        &self,
        permit: &Permit,
        opened: &Arc<CachedKey>,
        ready: Arc<OpenKey>,
        work: &Arc<W>,
    ) -> Result<KeyOperationResult<T>, VaultError>
    where
        T: Send + 'static,
        W: Fn(&OpenKey, &KeyAttributes) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        if !is_heavy(&opened.attributes) {
            return on_wiped_stack(|| work(&ready, &opened.attributes));
        }
        let slot = self.limits.heavy(permit.principal()).await?;
        let (opened, work) = (Arc::clone(opened), Arc::clone(work));
        let worked = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            on_wiped_stack(|| work(&ready, &opened.attributes))
        });
        worked.await.map_err(|_| VaultError::Internal("a computation was cut off"))?
    }
}

const fn is_heavy(attributes: &KeyAttributes) -> bool {
    matches!(attributes.spec, KeySpec::Rsa2048)
}
