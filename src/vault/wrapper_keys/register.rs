//! Registration of a wrapper key that exists in its KMS or that the vault creates there.

use serde::Serialize;

use crate::{
    crypto::envelope,
    domain::{AuditEvent, Operation, Outcome, ProviderKind, WrapperKey, WrapperKeyId, WrapperKeyName, WrapperState},
    kms::{CreateOptions, Description, Outage, WrapperError},
    storage::Change,
};

use super::{
    WrapperHealth, WrapperKeyView, WrapperKeys,
    canary::{canary_context, wrap_and_verify},
};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// A wrapper key to register.
#[derive(Debug, Clone, Serialize)]
pub struct NewWrapperKey {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<WrapperKeyName>,
    /// Where it is in a KMS.
    pub origin: WrapperKeyOrigin,
}

/// Where a new wrapper key is in a KMS.
#[derive(Debug, Clone, Serialize)]
pub enum WrapperKeyOrigin {
    /// A wrapper key that exists in its KMS.
    Register {
        /// The kind of KMS.
        provider: ProviderKind,
        /// The reference: an ARN, an alias, a URL or a file.
        reference: String,
        /// The regions in the order to try.
        regions: Vec<String>,
    },
    /// A wrapper key that the vault creates.
    Create {
        /// The kind of KMS.
        provider: ProviderKind,
        /// Whether it may have replicas in other regions.
        multi_region: bool,
        /// The regions. The first one is where it is created.
        regions: Vec<String>,
    },
}

impl Vault {
    /// Registers a wrapper key after it wrapped and unwrapped a canary. It becomes active if there is no active one, otherwise standby.
    /// Permitted while the vault is frozen: it opens no private key, and a rotation away from a misused wrapper key needs the new one first.
    ///
    /// # Errors
    /// `Forbidden`, `InvalidAttributes`, `WrapperKeyExists`, the error of the KMS, or `AuditUnavailable`.
    pub async fn add_wrapper_key(&self, call: &CallContext, new: NewWrapperKey) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        self.wrapper_keys.add(call, new).await
    }
}

impl WrapperKeys {
    async fn add(&self, call: &CallContext, new: NewWrapperKey) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        let mut event = self.gate.event(call, Operation::AddWrapperKey);
        let result = self.try_add(&mut event, call, new).await;
        let added = self.gate.conclude(event, result).await?;
        let view = added.value();
        if view.health == WrapperHealth::Ok {
            self.health.record_canary(view.key.id, &Ok(()));
        }
        Ok(added)
    }

    async fn try_add(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        new: NewWrapperKey,
    ) -> Result<Completed<WrapperKeyView>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.not_stopping()?;
        let idempotent = self.gate.idempotent_call(call, "POST /v1/wrapper-keys", &new)?;
        if let Some(id) = self.gate.earlier_result::<WrapperKeyId>(idempotent.as_ref()).await? {
            event.subject = Some(format!("{id}, repeated"));
            return Ok(Completed::read(permit, self.view_of(id).await?));
        }
        let NewWrapperKey { name, origin } = new;
        let created = matches!(origin, WrapperKeyOrigin::Create { .. });
        let (provider, description) = match origin {
            WrapperKeyOrigin::Register { provider, reference, regions } => {
                event.subject = Some(reference.clone());
                (provider, self.providers.resolve(provider, &reference, &regions).await.map_err(invalid_if_unfit)?)
            }
            WrapperKeyOrigin::Create { provider, multi_region, regions } => {
                // The intent entry precedes every effect outside the vault.
                let intent = AuditEvent { outcome: Outcome::Intent, subject: Some(provider.to_string()), ..event.clone() };
                self.gate.record(intent).await?;
                let options = CreateOptions { multi_region, regions, request: call.idempotency_key.clone() };
                let created = self.providers.create(provider, &options).await.map_err(invalid_if_unfit)?;
                // The KMS key exists from here on. If the verification fails, the entry names the unused key.
                event.subject = Some(created.reference.clone());
                (provider, created)
            }
        };
        let mut key = self.verify_new(provider, description).await?;
        key.name = name;
        // A new replica becomes usable after some seconds.
        for region in key.regions.iter().skip(1).filter(|_| created) {
            self.wait_until_usable(&key, region).await.map_err(|error| created_but_not_registered(error, &key, region))?;
        }
        event.subject = Some(format!("{} {}", key.id, key.identity));
        let view = WrapperKeyView {
            key: key.clone(),
            keys: 0,
            last_used_at: None,
            health: WrapperHealth::Ok,
            fault: None,
            left: None,
            incomplete: None,
        };
        let idempotency = self.gate.idempotency_record(idempotent, &key.id);
        Ok(Completed { idempotency, ..Completed::changed(permit, view, Change::InsertWrapperKey(Box::new(key))) })
    }

    /// Verifies that a wrapper key wraps and unwraps a random value, and keeps the wrap as its canary.
    pub(super) async fn verify_new(&self, provider: ProviderKind, description: Description) -> Result<WrapperKey, VaultError> {
        let Description { identity, reference, regions, usable: _ } = description;
        let existing = self.env.store.wrapper_keys().await?;
        if existing.iter().any(|key| key.identity == identity) {
            return Err(VaultError::WrapperKeyExists);
        }
        let active = existing.iter().any(|key| key.state == WrapperState::Active);
        let mut key = WrapperKey {
            id: WrapperKeyId::from_random(self.env.random_bytes()?),
            name: None,
            provider,
            identity,
            reference,
            regions,
            state: if active { WrapperState::Standby } else { WrapperState::Active },
            canary: Vec::new(),
            created_at: self.env.now(),
        };
        let random = envelope::new_data_key(self.env.random.as_ref())?;
        // The wrapper key is not registered yet: no shared connection, and no effect on the health of the vault.
        let wrapper = self.providers.connect(&key).await?;
        let verified = wrap_and_verify(&*wrapper, &random, &canary_context(&self.env.vault_id, key.id)).await?;
        key.canary = verified.ok_or(VaultError::Internal("a new wrap opens to another data key"))?;
        Ok(key)
    }
}

/// A request that cannot be fulfilled is the caller's error and no fault of the KMS.
pub(super) fn invalid_if_unfit(error: WrapperError) -> VaultError {
    match error {
        WrapperError::Unfit { .. } => VaultError::InvalidAttributes(error.to_string()),
        other => other.into(),
    }
}

/// The key was created, but does not work in all regions. Not retryable, because a repeated request would create another key.
fn created_but_not_registered(error: WrapperError, key: &WrapperKey, region: &str) -> VaultError {
    let what = match error {
        WrapperError::Unavailable { outage: Outage::NotUsableYet, .. } => "its replica there cannot be used yet".to_owned(),
        other => other.to_string(),
    };
    let reference = key.reference.clone();
    WrapperError::Misconfigured {
        reference,
        what: format!("it was created but not registered, because it does not work in {region}: {what}. Register it when it works there"),
    }
    .into()
}
