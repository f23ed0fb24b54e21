//! `rotate`: a linked successor of a long-term key. The old key stays active until it is superseded.

use crate::{
    domain::{AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, Operation, Origin},
    storage::{Change, KeyUpdate},
};

use super::new_key::{KeyIdentity, KeyToSeal, NewMaterial, SealedNewKey};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, key_cache::RowTagRule};

impl Vault {
    /// Creates the successor of an active long-term key, with the same node, purpose, spec and usages. The successor is not exportable.
    ///
    /// # Errors
    /// `Permanent`, `HasSuccessor`, `State`, otherwise as [`Vault::create_key`].
    pub async fn rotate(&self, call: &CallContext, id: KeyId, name: Option<KeyName>) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let name = name.as_ref();
        let rotated = self
            .gate
            .run(self.gate.event(call, Operation::RotateKey), |mut event, _| async move {
                let result = self.try_rotate(&mut event, call, id, name).await;
                (event, result)
            })
            .await?;
        self.key_cache.evict(id).await;
        Ok(rotated)
    }

    async fn try_rotate(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        id: KeyId,
        name: Option<&KeyName>,
    ) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.gate.in_service()?;
        let idempotent = self.gate.idempotent_call(call, &format!("POST /v1/keys/{id}/rotate"), &name)?;
        if let Some(successor) = self.gate.earlier_result(idempotent.as_ref()).await? {
            event.key = Some(successor);
            return Ok(Completed::read(permit, self.record(successor).await?));
        }
        let old = &stored.record;
        match (old.attributes.class, old.lifecycle.can_sign(), old.successor) {
            (_, false, _) => return Err(VaultError::State(old.lifecycle.state())),
            (Class::Permanent, ..) => return Err(VaultError::Permanent("rotated")),
            (_, _, Some(successor)) => return Err(VaultError::HasSuccessor(successor)),
            (Class::LongTerm, true, None) => {}
        }
        let unsealed = self.key_cache.unseal(&stored, RowTagRule::Required, &mut event.kms).await?;
        let (spec, purpose) = (old.attributes.spec, old.attributes.purpose);
        let NewMaterial { bytes: material, identity: KeyIdentity { id: successor, public_key } } =
            self.generate(&call.principal, spec, purpose).await?;
        let attributes = KeyAttributes { id: successor, origin: Origin::Generated, exportable: false, ..old.attributes.clone() };
        let name = name.cloned().or_else(|| rotated_name(old.name.as_ref(), &self.env.now().to_string()));
        let to_seal = KeyToSeal { attributes, public_key, name, predecessor: Some(id), replaces: None };
        let SealedNewKey { record, active } = self.seal_new_key(event, to_seal, &material).await?;

        let mut linked = old.clone();
        linked.successor = Some(successor);
        linked.revision = old.revision.saturating_add(1);
        let to = linked.state_change();
        let row_tag = Some(unsealed.open_key.row_key.tag(&linked.tagged_bytes()));
        let update = KeyUpdate { key: id, if_revision: old.revision, to, row_tag, reinstate_wrap: None };
        let link_event = AuditEvent { key: Some(id), change: Some(to), subject: Some(successor.to_string()), ..event.clone() };
        let link = Some((update, Box::new(link_event)));
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link, replaces: None };
        event.subject = Some(id.to_string());
        Ok(Completed { idempotency: self.gate.idempotency_record(idempotent, &successor), ..Completed::changed(permit, record, change) })
    }
}

/// The name of a successor, as Canton forms it: `<name>-rotated-<time>`, from the first name of the chain.
fn rotated_name(name: Option<&KeyName>, now: &str) -> Option<KeyName> {
    let stem = name?.as_str().split("-rotated-").next()?;
    format!("{stem}-rotated-{now}").parse().ok()
}
