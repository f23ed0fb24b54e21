//! `rotate`: a linked successor for a long-term key. The old key goes on until it is superseded.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    crypto::{self, on_wiped_stack},
    domain::{AuditEvent, Class, KeyId, KeyName, KeyRecord, Operation, Origin},
    storage::{Change, KeyUpdate},
};

use super::new_key::{NewKeyPlan, does_not_fit};
use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    key_cache::unseal::RowTagRule,
};

impl Vault {
    /// Makes the successor of an active long-term key: same node, purpose, spec and usages; not exportable.
    ///
    /// # Errors
    /// `Permanent`, `HasSuccessor`, `State`, else as [`Vault::create_key`].
    pub async fn rotate(
        self: &Arc<Self>,
        call: &CallContext,
        id: KeyId,
        name: Option<KeyName>,
    ) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let mut event = self.event(call, Operation::RotateKey);
        for _ in 0..ATTEMPTS {
            event = self.event(call, Operation::RotateKey);
            let done = self.try_rotate(&mut event, call, id, name.clone()).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                self.cache.forget(id).await;
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_rotate(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        id: KeyId,
        name: Option<KeyName>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        self.in_service()?;
        let idempotent_call = self.idempotent_call(call, &format!("POST /v1/keys/{id}/rotate"), &name)?;
        if let Some(successor) = self.remembered(idempotent_call.as_ref()).await? {
            event.key = Some(successor);
            return Ok(Completed::read(permit, self.record(successor).await?));
        }
        let old = &stored.record;
        match (old.attributes.class, old.lifecycle.can_sign(), old.successor) {
            (Class::Permanent, ..) => return Err(VaultError::Permanent),
            (_, false, _) => return Err(VaultError::State(old.lifecycle.state())),
            (_, _, Some(successor)) => return Err(VaultError::HasSuccessor(successor)),
            (Class::LongTerm, true, None) => {}
        }
        self.limits.creation(&call.principal)?;
        let unsealed = self.unseal(&stored, RowTagRule::Required, &mut event.kms).await?;
        let scheme = crypto::scheme(old.attributes.spec, old.attributes.purpose)
            .ok_or_else(|| does_not_fit(old.attributes.spec, old.attributes.purpose))?;
        let random = Arc::clone(&self.random);
        let material = tokio::task::spawn_blocking(move || on_wiped_stack(|| scheme.generate(random.as_ref())));
        let material = material.await.map_err(|_| VaultError::Internal("a computation was cut off"))??;
        let plan = NewKeyPlan {
            node: old.attributes.node.clone(),
            purpose: old.attributes.purpose,
            spec: old.attributes.spec,
            usages: old.attributes.usages,
            class: old.attributes.class,
            origin: Origin::Generated,
            exportable: false,
            name: name.or_else(|| rotated_name(old.name.as_ref(), &(self.clock)().to_string())),
            predecessor: Some(id),
        };
        let (record, active) = self.seal_new(event, &plan, &material).await?;
        let mut linked = old.clone();
        linked.successor = Some(record.attributes.id);
        linked.revision = old.revision.saturating_add(1);
        let to = linked.state_change();
        let row_tag = Some(unsealed.ready.row_key.tag(&linked.tagged_bytes()));
        let update = KeyUpdate { key: id, if_revision: old.revision, to, row_tag, lift: None };
        let link_event = AuditEvent { key: Some(id), change: Some(to), subject: Some(record.attributes.id.to_string()), ..event.clone() };
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link: Some((update, Box::new(link_event))) };
        event.subject = Some(id.to_string());
        Ok(Completed { idempotency: self.remember(idempotent_call, &record.attributes.id), ..Completed::changed(permit, record, change) })
    }
}

/// Canton's way: `<name>-rotated-<time>`, from the first name on.
fn rotated_name(name: Option<&KeyName>, now: &str) -> Option<KeyName> {
    let stem = name?.as_str().split("-rotated-").next()?;
    format!("{stem}-rotated-{now}").parse().ok()
}
