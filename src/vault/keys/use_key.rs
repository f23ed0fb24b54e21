//! Every use of a key: permit, open key, computation, commit, answer.

use std::{sync::Arc, time::Instant};

use crate::{
    crypto::{Scheme, with_wiped_stack},
    domain::{AuditEvent, KeyId, KeyState, Lifecycle, MappingKinds, Permit},
};

use super::new_key::scheme_of;
use crate::vault::{
    AuditedResult, Vault, VaultError,
    audit_gate::Completed,
    heavy_work::Heavy,
    key_cache::{CachedKey, OpenKey},
};

/// The use of a key, which decides the required state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyUse {
    /// Signs a message.
    SignMessage,
    /// Signs topology transactions with mappings of these kinds.
    SignTopology(MappingKinds),
    /// Encrypts.
    Encrypt,
    /// Decrypts. A superseded key still decrypts.
    Decrypt,
}

impl KeyUse {
    /// # Errors
    /// `State`, or `TopologyOnly` for a key that signs topology transactions only.
    fn check(self, lifecycle: Lifecycle) -> Result<(), VaultError> {
        let allowed = match self {
            Self::SignMessage | Self::SignTopology(_) | Self::Encrypt => lifecycle.can_sign(),
            Self::Decrypt => lifecycle.can_decrypt(),
        };
        if !allowed {
            return Err(VaultError::State(lifecycle.state()));
        }
        match (self, lifecycle.topology_only()) {
            (Self::SignMessage, Some(_)) => Err(VaultError::TopologyOnly("use sign-topology".into())),
            (Self::SignTopology(kinds), Some(permitted)) if !permitted.contains_all(kinds) => {
                Err(VaultError::TopologyOnly(format!("it signs only these mappings: {permitted}")))
            }
            _ => Ok(()),
        }
    }
}

/// A result, and the digest for its audit entry.
pub(super) struct KeyOperationResult<T> {
    pub value: T,
    /// Replaces the digest of the event, if there is one.
    pub digest: Option<[u8; 32]>,
}

/// A further use of the key in the same call, for its entry.
#[derive(Debug, Clone)]
pub(super) struct FurtherUse {
    /// SHA-256 of what is signed.
    pub digest: [u8; 32],
    /// The W3C trace id, if it is another one than that of the call.
    pub trace_id: Option<Arc<str>>,
}

impl Vault {
    /// Uses a key: `operation` runs on the open key. Its result is returned only after its audit entry is durable, and only if the key did
    /// not change meanwhile.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `State`, `Frozen`, `TooMany`, the errors of `operation`, the KMS, the store and the audit log.
    pub(super) async fn use_key<T, O>(
        &self,
        event: AuditEvent,
        id: KeyId,
        key_use: KeyUse,
        operation: O,
    ) -> Result<AuditedResult<T>, VaultError>
    where
        T: Send + 'static,
        O: Fn(&OpenKey, &dyn Scheme) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        self.use_key_repeatedly(event, &[], id, key_use, move |key, scheme, _| operation(key, scheme)).await?.only()
    }

    /// As [`Self::use_key`], for an operation that uses the key several times: `operation` gets the number of the use, from 0, and each further use has
    /// an entry of its own. All entries are durable before the results are returned, or none is written.
    pub(super) async fn use_key_repeatedly<T, O>(
        &self,
        event: AuditEvent,
        further: &[FurtherUse],
        id: KeyId,
        key_use: KeyUse,
        operation: O,
    ) -> Result<AuditedResult<Vec<T>>, VaultError>
    where
        T: Send + 'static,
        O: Fn(&OpenKey, &dyn Scheme, usize) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        let operation = &Arc::new(operation);
        let result = self
            .gate
            .run(event, |mut event, attempt| async move {
                if attempt > 0 {
                    // The last attempt failed because the cached key is out of date.
                    Box::pin(self.key_cache.evict(id)).await;
                    if Box::pin(self.is_frozen_elsewhere()).await {
                        return (event, Err(VaultError::Frozen));
                    }
                }
                let result = self.try_use(&mut event, further, id, key_use, operation).await;
                (event, result)
            })
            .await?;
        let store_revision = result.store_revision();
        Ok(result.map(|(values, key)| {
            key.record_unchanged(store_revision);
            values
        }))
    }

    async fn try_use<T, O>(
        &self,
        event: &mut AuditEvent,
        further: &[FurtherUse],
        id: KeyId,
        key_use: KeyUse,
        operation: &Arc<O>,
    ) -> Result<Completed<(Vec<T>, Arc<CachedKey>)>, VaultError>
    where
        T: Send + 'static,
        O: Fn(&OpenKey, &dyn Scheme, usize) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        let began = Instant::now();
        let found = self.key_cache.cached(id).await;
        let (permit, lifecycle) = self.permit_use(event, id, found.as_deref()).await?;
        self.gate.in_service()?;
        if self.gate.pending_audit().is_disabled(id) {
            return Err(VaultError::State(KeyState::Disabled));
        }
        key_use.check(lifecycle)?;
        let cached = self.key_cache.open(&permit, id, found, || self.limits.cache_miss(permit.principal())).await?;
        key_use.check(cached.lifecycle)?;
        let further = further.iter().map(|FurtherUse { digest, trace_id }| {
            let trace_id = trace_id.clone().or_else(|| event.trace_id.clone());
            AuditEvent { digest: Some(*digest), trace_id, ..event.clone() }
        });
        // The KMS calls belong to the first entry.
        let further: Vec<_> = further.collect();
        event.kms.add(cached.take_kms());
        // If the key was wiped since the look-up, the next attempt opens it again.
        let open_key = cached.open_key().ok_or(VaultError::Conflict)?;
        let precondition = cached.precondition();
        let (values, digest) = self.compute(&permit, &cached, open_key, further.len() + 1, operation).await?;
        event.digest = digest.or(event.digest);
        let histogram = || metrics::histogram!("keyvault_execution_seconds", "operation" => event.operation.as_str());
        self.execution_seconds.record(Some(event.operation), 0, began.elapsed(), histogram);
        Ok(Completed { precondition: Some(precondition), further, ..Completed::read(permit, (values, cached)) })
    }

    /// Whether another replica froze the vault, and this process has not taken it over yet.
    async fn is_frozen_elsewhere(&self) -> bool {
        self.env.store.replication().is_some() && self.env.store.state().await.is_ok_and(|state| state.frozen)
    }

    /// The permit. For a cached key it needs no access to the store.
    async fn permit_use(&self, event: &mut AuditEvent, id: KeyId, cached: Option<&CachedKey>) -> Result<(Permit, Lifecycle), VaultError> {
        if let Some(cached) = cached {
            return Ok((self.gate.permit_key(event, id, Some(&cached.attributes.node))?, cached.lifecycle));
        }
        // Boxed, because the future of each operation would contain this one, although most find the key in the cache.
        Box::pin(async {
            let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
            // The state that refuses the use may itself be edited. The audit log is the authority.
            self.key_cache.check_row(&stored).await?;
            Ok((permit, stored.record.lifecycle))
        })
        .await
    }

    /// Runs the computation as often as asked for: an expensive one on a blocking thread and within a share of the principal, any other (up to 100 µs)
    /// in place, with the turn of other calls after each use. Returns the values, and the digest of the last one.
    async fn compute<T, O>(
        &self,
        permit: &Permit,
        cached: &CachedKey,
        open_key: Arc<OpenKey>,
        number: usize,
        operation: &Arc<O>,
    ) -> Result<(Vec<T>, Option<[u8; 32]>), VaultError>
    where
        T: Send + 'static,
        O: Fn(&OpenKey, &dyn Scheme, usize) -> Result<KeyOperationResult<T>, VaultError> + Send + Sync + 'static,
    {
        let scheme = scheme_of(cached.attributes.spec, cached.attributes.purpose)?;
        let (mut values, mut last) = (Vec::with_capacity(number), None);
        if scheme.is_expensive() {
            let operation = Arc::clone(operation);
            let all = move || (0..number).map(|use_number| operation(&open_key, scheme, use_number)).collect::<Result<Vec<_>, _>>();
            for KeyOperationResult { value, digest } in Box::pin(self.limits.heavy(permit.principal(), Heavy::Computation, all)).await? {
                values.push(value);
                last = digest;
            }
            return Ok((values, last));
        }
        for use_number in 0..number {
            if use_number > 0 {
                tokio::task::yield_now().await;
            }
            let KeyOperationResult { value, digest } = with_wiped_stack(|| operation(&open_key, scheme, use_number))?;
            values.push(value);
            last = digest;
        }
        Ok((values, last))
    }
}
