//! Retirement of a wrapper key: its wraps are deleted after every key has a verified wrap under another one. The KMS key is not deleted.

use crate::{
    domain::{AuditEvent, JobKind, KeyId, Operation, Permit, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    storage::{Change, Dependents, Retirement, WrapperKeyUse},
};

use super::{WrapperKeyView, WrapperKeys};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// A retired wrapper key, and the wraps that open no key any more.
#[derive(Debug)]
pub struct Retired {
    /// The wrapper key. Its wraps do not count any more, also those that are not deleted yet.
    pub view: WrapperKeyView,
    /// The number of its wraps: the commit deletes the first ones, and a background task the others.
    pub wraps_dropped: u64,
    /// The number of keys that they belonged to.
    pub keys: u64,
}

/// Why a wrapper key cannot be retired: keys depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKeyInUse {
    /// The number of keys that would have no verified wrap.
    pub left: u64,
    /// The first of these keys.
    pub examples: Vec<KeyId>,
    /// Wrapper keys that do not open their canary now. Wraps under them do not count.
    pub not_answering: Vec<WrapperKeyId>,
}

impl std::fmt::Display for WrapperKeyInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { left, examples, not_answering } = self;
        let list = |ids: Vec<String>| ids.join(", ");
        write!(f, "{left} keys would have no verified wrap under another wrapper key that works now: ")?;
        write!(f, "{}", list(examples.iter().map(ToString::to_string).collect()))?;
        if *left > examples.len() as u64 {
            f.write_str(", …")?;
        }
        if !not_answering.is_empty() {
            write!(f, ". Not answering: {}", list(not_answering.iter().map(ToString::to_string).collect()))?;
        }
        Ok(())
    }
}

impl Vault {
    /// Retires a standby or draining wrapper key. It gets no new wraps, then every key must have a verified wrap of its generation under
    /// another wrapper key that opens its canary now, and only then are its wraps deleted. If the call is interrupted, the wrapper key is
    /// `retiring`, still opens keys, and the call can be repeated.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`; `JobRunning` during a rotation; `InvalidWrapperKeyState` for the active and for retired wrapper keys;
    /// `WrapperKeyInUse`.
    pub async fn retire_wrapper_key(&self, call: &CallContext, id: WrapperKeyId) -> Result<AuditedResult<Retired>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.gate.event(call, Operation::RetireWrapperKey) };
        let retired = self
            .gate
            .run(event, |mut event, _| async move {
                let result = self.wrapper_keys.try_retire(&mut event, id).await;
                (event, result)
            })
            .await?;
        self.wrapper_keys.connections.forget(id);
        Ok(retired)
    }

    /// What a retirement would delete now. Nothing is changed, and the entry says so.
    ///
    /// # Errors
    /// As [`Vault::retire_wrapper_key`].
    pub async fn preview_retirement(&self, call: &CallContext, id: WrapperKeyId) -> Result<AuditedResult<Retired>, VaultError> {
        let event = AuditEvent { subject: Some(format!("{id}, dry run")), ..self.gate.event(call, Operation::RetireWrapperKey) };
        let result = self.wrapper_keys.try_preview(&event, id).await;
        self.gate.conclude(event, result).await
    }
}

/// A wrapper key that may be retired now.
struct Retirable {
    permit: Permit,
    key: WrapperKey,
    /// The wrapper keys that answer, and those that do not.
    holders: Vec<WrapperKeyId>,
    not_answering: Vec<WrapperKeyId>,
    dependents: Dependents,
}

fn in_use(Dependents { left, examples, .. }: Dependents, not_answering: Vec<WrapperKeyId>) -> VaultError {
    VaultError::WrapperKeyInUse(Box::new(WrapperKeyInUse { left, examples, not_answering }))
}

impl WrapperKeys {
    /// The checks that come before any change.
    async fn retirable(&self, event: &AuditEvent, id: WrapperKeyId) -> Result<Retirable, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.in_service()?;
        let keys = self.env.store.wrapper_keys().await?;
        let key = keys.iter().find(|key| key.id == id).ok_or(VaultError::NotFound("such wrapper key"))?;
        if matches!(key.state, WrapperState::Active | WrapperState::Retired) {
            return Err(VaultError::InvalidWrapperKeyState(key.state));
        }
        // Until it ends, the way back is a rotation to the former wrapper key. The commit checks it again.
        if let Some(job) = self.env.store.state().await?.running_job.filter(|job| job.work.kind() == JobKind::Rotation) {
            return Err(VaultError::JobRunning(Some(job.id)));
        }
        let (holders, not_answering) = self.holders(&keys, id).await;
        let dependents = self.env.store.dependents(id, &holders).await?;
        if dependents.left > 0 {
            return Err(in_use(dependents, not_answering));
        }
        Ok(Retirable { permit, key: key.clone(), holders, not_answering, dependents })
    }

    async fn try_preview(&self, event: &AuditEvent, id: WrapperKeyId) -> Result<Completed<Retired>, VaultError> {
        let Retirable { permit, dependents: Dependents { wraps, keys, .. }, .. } = self.retirable(event, id).await?;
        Ok(Completed::read(permit, Retired { view: self.view_of(id).await?, wraps_dropped: wraps, keys }))
    }

    async fn try_retire(&self, event: &mut AuditEvent, id: WrapperKeyId) -> Result<Completed<Retired>, VaultError> {
        let Retirable { permit, key, holders, not_answering, dependents: _ } = self.retirable(event, id).await?;
        if key.state != WrapperState::Retiring {
            self.begin_retirement(event, id).await?;
        }
        // A retiring wrapper key gets no new wraps, so this count is final.
        let dependents = self.env.store.dependents(id, &holders).await?;
        if dependents.left > 0 {
            return Err(in_use(dependents, not_answering));
        }
        let last_used_at = self.view_of(id).await?.last_used_at;
        let Dependents { wraps, keys: held, .. } = dependents;
        let last_used = last_used_at.map_or_else(|| "never".to_owned(), |at: Timestamp| at.to_string());
        event.subject = Some(format!("{id} {}, {wraps} wraps of {held} keys, last used {last_used}", key.identity));
        let key = WrapperKey { state: WrapperState::Retired, ..key };
        let retired = Retired { view: self.view(WrapperKeyUse { key, keys: 0, last_used_at }), wraps_dropped: wraps, keys: held };
        Ok(Completed::changed(permit, retired, Change::Retire(Retirement { wrapper_key: id, holders, wraps })))
    }

    /// The other wrapper keys that stay in use: those that open their canary now, and those that do not.
    async fn holders(&self, keys: &[WrapperKey], leaving: WrapperKeyId) -> (Vec<WrapperKeyId>, Vec<WrapperKeyId>) {
        let (mut answering, mut not_answering) = (Vec::new(), Vec::new());
        let stays = |key: &&WrapperKey| matches!(key.state, WrapperState::Active | WrapperState::Standby | WrapperState::Draining);
        for key in keys.iter().filter(stays).filter(|key| key.id != leaving) {
            let answers = self.probe(key).await.is_ok();
            if answers { answering.push(key.id) } else { not_answering.push(key.id) }
        }
        (answering, not_answering)
    }

    async fn begin_retirement(&self, event: &AuditEvent, id: WrapperKeyId) -> Result<(), VaultError> {
        let event = AuditEvent { subject: Some(format!("{id} gets no new wraps")), ..event.clone() };
        let permit = self.gate.permit_vault(&event)?;
        Ok(self.gate.commit(event, Completed::changed(permit, (), Change::BeginRetirement(id))).await.map(drop)?)
    }
}
