//! `retire`: a wrapper key's wraps are dropped once every key is held without them. Nothing is deleted in the KMS.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    domain::{AuditEvent, KeyId, Operation, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    storage::{Change, Dependents, Retirement, WrapperKeyUse},
};

use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError, WrapperKeyView,
    audit_gate::commit::{ATTEMPTS, Completed},
};

/// A retired wrapper key, and what went with it.
#[derive(Debug)]
pub struct Retired {
    /// The wrapper key, holding nothing any more.
    pub view: WrapperKeyView,
    /// How many wraps were dropped.
    pub wraps_dropped: u64,
    /// Of how many keys.
    pub keys: u64,
}

/// A wrapper key that cannot go yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKeyInUse {
    /// How many keys would be left without a verified wrap.
    pub left: u64,
    /// The first of them.
    pub examples: Vec<KeyId>,
    /// Wrapper keys that do not answer their canary now, and so hold nothing.
    pub silent: Vec<WrapperKeyId>,
}

impl std::fmt::Display for WrapperKeyInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { left, examples, silent } = self;
        let list = |ids: Vec<String>| ids.join(", ");
        write!(f, "{left} keys would be left without a verified wrap under another wrapper key that answers now: ")?;
        write!(f, "{}", list(examples.iter().map(ToString::to_string).collect()))?;
        if *left > examples.len() as u64 {
            f.write_str(", …")?;
        }
        if !silent.is_empty() {
            write!(f, "; not answering: {}", list(silent.iter().map(ToString::to_string).collect()))?;
        }
        Ok(())
    }
}

impl Vault {
    /// Retires a wrapper key that is standby or draining: first it gets no new wraps, then every key must hold a verified wrap of its
    /// generation under another one that answers its canary now, and only then its wraps go. Cut off in between it is `retiring`,
    /// opens as before, and the call can be repeated.
    ///
    /// # Errors
    /// `NotFound`; `InvalidWrapperKeyState` for the active one and one that is retired; `WrapperKeyInUse`, before anything is changed.
    pub async fn retire_wrapper_key(self: &Arc<Self>, call: &CallContext, id: WrapperKeyId) -> Result<AuditedResult<Retired>, VaultError> {
        let mut event = self.event(call, Operation::RetireWrapperKey);
        for _ in 0..ATTEMPTS {
            event = AuditEvent { subject: Some(id.to_string()), ..self.event(call, Operation::RetireWrapperKey) };
            let done = self.try_retire(&mut event, id).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                self.connections.forget(id);
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_retire(&self, event: &mut AuditEvent, id: WrapperKeyId) -> Result<Completed<Retired>, VaultError> {
        let permit = self.permit_vault(event)?;
        self.in_service()?;
        let keys = self.store.wrapper_keys().await?;
        let key = keys.iter().find(|key| key.id == id).ok_or(VaultError::NotFound("such wrapper key"))?;
        if matches!(key.state, WrapperState::Active | WrapperState::Retired) {
            return Err(VaultError::InvalidWrapperKeyState(key.state));
        }
        let (holders, silent) = self.holders(&keys, id).await;
        let needed = |Dependents { left, examples, .. }| {
            VaultError::WrapperKeyInUse(Box::new(WrapperKeyInUse { left, examples, silent: silent.clone() }))
        };
        let before = self.store.dependents(id, &holders).await?;
        if before.left > 0 {
            return Err(needed(before));
        }
        if key.state != WrapperState::Retiring {
            self.begin_retirement(event, id).await?;
        }
        // From here on nothing comes under it: what is counted now is what goes.
        let dependents = self.store.dependents(id, &holders).await?;
        if dependents.left > 0 {
            return Err(needed(dependents));
        }
        let last_used_at = self.wrapper_key_view(id).await?.last_used_at;
        let Dependents { wraps, keys: held, .. } = dependents;
        event.subject = Some(format!("{id} {}, {wraps} wraps of {held} keys, last used {}", key.identity, when(last_used_at)));
        let key = WrapperKey { state: WrapperState::Retired, ..key.clone() };
        let retired = Retired { view: self.wrapper_view(WrapperKeyUse { key, keys: 0, last_used_at }), wraps_dropped: wraps, keys: held };
        Ok(Completed::changed(permit, retired, Change::Retire(Retirement { wrapper_key: id, holders, wraps })))
    }

    /// The other wrapper keys that last, by whether they open their canary now.
    async fn holders(&self, keys: &[WrapperKey], leaving: WrapperKeyId) -> (Vec<WrapperKeyId>, Vec<WrapperKeyId>) {
        let (mut answering, mut silent) = (Vec::new(), Vec::new());
        let lasts = |key: &&WrapperKey| matches!(key.state, WrapperState::Active | WrapperState::Standby | WrapperState::Draining);
        for key in keys.iter().filter(lasts).filter(|key| key.id != leaving) {
            let answers = match self.connections.get(key).await {
                Ok(wrapper) => self.opens_canary(key, &*wrapper).await,
                Err(error) => Err(error),
            };
            if answers.is_ok() { answering.push(key.id) } else { silent.push(key.id) }
        }
        (answering, silent)
    }

    async fn begin_retirement(&self, event: &AuditEvent, id: WrapperKeyId) -> Result<(), VaultError> {
        let event = AuditEvent { subject: Some(format!("{id} gets no new wraps")), ..event.clone() };
        let permit = self.permit_vault(&event)?;
        Ok(self.commit(event, Completed::changed(permit, (), Change::BeginRetirement(id))).await.map(drop)?)
    }
}

fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}
