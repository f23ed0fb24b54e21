//! Registering, creating and showing wrapper keys, and the first one of an empty store.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    crypto::envelope,
    domain::{AuditEvent, KmsUse, Operation, Outcome, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{CreateOptions, Description, Outage, WrapperError},
    storage::{Change, Commit, WrapperKeyUse},
};

use super::unwrap::{canary_context, wrap_and_prove};
use crate::vault::{
    AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError, audit_gate::commit::Completed, health::WrapperHealth,
};

/// A wrapper key to add.
#[derive(Debug, Clone, Serialize)]
pub enum NewWrapperKey {
    /// One that exists in its KMS.
    Register {
        /// Which kind of KMS.
        provider: ProviderKind,
        /// By which name: an ARN, an alias, a file.
        reference: String,
        /// Where, in the order to try.
        regions: Vec<String>,
    },
    /// One to be made.
    Create {
        /// In which kind of KMS.
        provider: ProviderKind,
        /// Whether it may have replicas in other regions.
        multi_region: bool,
        /// Where, the first being its home.
        regions: Vec<String>,
    },
}

/// A wrapper key, and how many keys have a wrap under it.
#[derive(Debug, Clone)]
pub struct WrapperKeyView {
    /// The wrapper key.
    pub key: WrapperKey,
    /// How many keys have a wrap under it.
    pub keys: u64,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    pub last_used_at: Option<Timestamp>,
    /// What this process knows of it.
    pub health: WrapperHealth,
    /// Why it did not work when it was last asked.
    pub fault: Option<WrapperError>,
}

impl Vault {
    /// Adds a wrapper key after it proved that it wraps and unwraps; on standby where another is active already.
    ///
    /// # Errors
    /// The gate's, the wrapper key's, `WrapperKeyExists`, or the log's.
    pub async fn add_wrapper_key(
        self: &Arc<Self>,
        call: &CallContext,
        new: NewWrapperKey,
    ) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        let mut event = self.event(call, Operation::AddWrapperKey);
        let done = self.try_add(&mut event, call, new).await;
        let answer = self.conclude(event, done).await?;
        let view = answer.value();
        if view.health == WrapperHealth::Ok {
            self.health.canary(view.key.id, &Ok(()));
        }
        Ok(answer)
    }

    async fn try_add(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        new: NewWrapperKey,
    ) -> Result<Completed<WrapperKeyView>, VaultError> {
        let permit = self.permit_vault(event)?;
        self.in_service()?;
        let idempotent_call = self.idempotent_call(call, "POST /v1/wrapper-keys", &new)?;
        if let Some(id) = self.remembered::<WrapperKeyId>(idempotent_call.as_ref()).await? {
            event.subject = Some(format!("{id}, repeated"));
            return Ok(Completed::read(permit, self.wrapper_key_view(id).await?));
        }
        let created = matches!(new, NewWrapperKey::Create { .. });
        let (provider, description) = match new {
            NewWrapperKey::Register { provider, reference, regions } => {
                event.subject = Some(reference.clone());
                (provider, self.providers.resolve(provider, &reference, &regions).await.map_err(unfit)?)
            }
            NewWrapperKey::Create { provider, multi_region, regions } => {
                // Something outside is about to be made: the intent is in the log before it is.
                let intent = AuditEvent { outcome: Outcome::Intent, subject: Some(provider.to_string()), ..event.clone() };
                self.write(Commit::entry(intent)).await?;
                let options = CreateOptions { multi_region, regions, request: call.idempotency_key.clone() };
                let made = self.providers.create(provider, &options).await.map_err(unfit)?;
                // It exists from here on: should it not prove itself, the entry says which one nobody needs.
                event.subject = Some(made.reference.clone());
                (provider, made)
            }
        };
        let key = self.prove(provider, description, &mut event.kms).await?;
        // Replicas of a moment ago take a while.
        for region in key.regions.iter().skip(1).filter(|_| created) {
            self.until_usable_in(&key, region).await.map_err(|error| made_in_vain(error, &key, region))?;
        }
        event.subject = Some(format!("{} {}", key.id, key.identity));
        let view = WrapperKeyView { key: key.clone(), keys: 0, last_used_at: None, health: WrapperHealth::Ok, fault: None };
        let idempotency = self.remember(idempotent_call, &key.id);
        Ok(Completed { idempotency, ..Completed::changed(permit, view, Change::InsertWrapperKey(Box::new(key))) })
    }

    /// Proves that a wrapper key wraps and unwraps, and keeps the proof as its canary.
    async fn prove(&self, provider: ProviderKind, description: Description, kms: &mut KmsUse) -> Result<WrapperKey, VaultError> {
        let Description { identity, reference, regions, usable: _ } = description;
        let existing = self.store.wrapper_keys().await?;
        if existing.iter().any(|key| key.identity == identity) {
            return Err(VaultError::WrapperKeyExists);
        }
        let active = existing.iter().any(|key| key.state == WrapperState::Active);
        let mut key = WrapperKey {
            id: WrapperKeyId::from_random(self.random_bytes()?),
            provider,
            identity,
            reference,
            regions,
            state: if active { WrapperState::Standby } else { WrapperState::Active },
            canary: Vec::new(),
            created_at: (self.clock)(),
        };
        let random = envelope::new_data_key(self.random.as_ref())?;
        // Not through the ring, and no word to the health of the vault: this key is no part of it yet.
        let wrapper = self.providers.connect(&key).await?;
        let proof = wrap_and_prove(&*wrapper, &random, &canary_context(&self.id, key.id), kms).await?;
        key.canary = proof.ok_or(VaultError::Internal("a fresh wrap gave another data key"))?;
        Ok(key)
    }

    /// Lists the wrapper keys.
    ///
    /// # Errors
    /// The gate's, the store's or the log's.
    pub async fn list_wrapper_keys(
        self: &Arc<Self>,
        call: &CallContext,
        cursor: PageRequest,
    ) -> Result<AuditedResult<ItemPage<WrapperKeyView>>, VaultError> {
        let event = self.event(call, Operation::ListWrapperKeys);
        let done = self.try_list_wrapper_keys(&event, cursor).await;
        self.conclude(event, done).await
    }

    async fn try_list_wrapper_keys(
        &self,
        event: &AuditEvent,
        cursor: PageRequest,
    ) -> Result<Completed<ItemPage<WrapperKeyView>>, VaultError> {
        let permit = self.permit_vault(event)?;
        let all = self.wrapper_key_views().await?;
        let start = usize::try_from(cursor.after).unwrap_or(usize::MAX);
        let items: Vec<WrapperKeyView> = all.iter().skip(start).take(cursor.limit as usize).cloned().collect();
        let end = start.saturating_add(items.len());
        let next = (end < all.len()).then_some(end as u64);
        Ok(Completed::read(permit, ItemPage { items, next }))
    }

    pub(in crate::vault) async fn wrapper_key_view(&self, id: WrapperKeyId) -> Result<WrapperKeyView, VaultError> {
        let found = self.wrapper_key_views().await?.into_iter().find(|view| view.key.id == id);
        found.ok_or(VaultError::NotFound("such wrapper key"))
    }

    async fn wrapper_key_views(&self) -> Result<Vec<WrapperKeyView>, VaultError> {
        let views = self.store.keys_by_wrapper_key().await?.into_iter();
        Ok(views.map(|found| self.wrapper_view(found)).collect())
    }

    /// A wrapper key with what is known of it.
    pub(in crate::vault) fn wrapper_view(&self, found: WrapperKeyUse) -> WrapperKeyView {
        let WrapperKeyUse { key, keys, last_used_at } = found;
        let (health, fault) = (self.health.of_wrapper(key.id), self.health.wrapper_fault(key.id));
        WrapperKeyView { key, keys, last_used_at, health, fault }
    }

    /// Registers `[wrapper]` of the configuration in an empty store; afterwards the store alone decides.
    ///
    /// # Errors
    /// The wrapper key's, or the log's: the caller tries again, so that a vault that starts without its KMS recovers.
    pub async fn bootstrap(&self) -> Result<(), VaultError> {
        if self.wrapper_keys().await?.iter().any(|key| key.state == WrapperState::Active) {
            return Ok(());
        }
        let config = self.providers.config();
        let mut event = self.system_event(Operation::BootstrapWrapperKey);
        let proved = async {
            let found = self.providers.resolve(config.provider, &config.reference, &[]).await?;
            self.prove(config.provider, found, &mut event.kms).await
        };
        let proved = proved.await;
        if let Err(VaultError::Wrapper(error)) = &proved {
            self.health.no_first_wrapper(error);
        }
        let key = proved?;
        let id = key.id;
        event.subject = Some(format!("{} {}", key.id, key.identity));
        let change = Some(Change::InsertWrapperKey(Box::new(key)));
        self.write(Commit { change, ..Commit::entry(event) }).await?;
        self.wrapper_keys().await?;
        self.health.canary(id, &Ok(()));
        Ok(())
    }

    /// Asks a wrapper key to open its own canary, and notes how that went.
    pub(in crate::vault) async fn probe(&self, key: &WrapperKey) {
        let result = match self.connections.get(key).await {
            Ok(wrapper) => self.opens_canary(key, &*wrapper).await,
            Err(error) => Err(error),
        };
        self.health.canary(key.id, &result);
    }

    /// A warning that names both, if the configuration means another wrapper key than the active one: the store decides.
    pub(in crate::vault) async fn differs_from_configured(&self, active: &WrapperKey) -> Result<Option<String>, VaultError> {
        let config = self.providers.config();
        let configured = self.providers.identity(config.provider, &config.reference).await?;
        Ok((configured != active.identity).then(|| {
            format!(
                "[wrapper] of the configuration names {} ({configured}), but the active wrapper key of the store is {}, {} ({}): the store \
                 decides; to change over, register the other one and rotate to it",
                config.reference, active.id, active.reference, active.identity
            )
        }))
    }
}

/// What the caller asked for cannot be: that is the caller's to mend, and says nothing of the KMS.
pub(in crate::vault) fn unfit(error: WrapperError) -> VaultError {
    match error {
        WrapperError::Unfit { .. } => VaultError::InvalidAttributes(error.to_string()),
        other => other.into(),
    }
}

/// A key was created, but not everywhere: repeated, the call would create another one.
fn made_in_vain(error: WrapperError, key: &WrapperKey, region: &str) -> VaultError {
    let what = match error {
        WrapperError::Unavailable { outage: Outage::NotUsableYet, .. } => "its replica there cannot be used yet".to_owned(),
        other => other.to_string(),
    };
    let reference = key.reference.clone();
    WrapperError::Misconfigured {
        reference,
        what: format!("it was created, but not registered, for want of {region}: {what}; register it when it works there"),
    }
    .into()
}
