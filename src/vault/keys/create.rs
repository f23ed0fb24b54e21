//! `create`: a new key, sealed before it is stored.

use serde::Serialize;

use crate::{
    domain::{AuditEvent, Class, KeyAttributes, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Purpose, Usages},
    storage::Change,
};

use super::new_key::{KeyIdentity, KeyToSeal, NewMaterial, SealedNewKey, class, usages};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// A key to create. Its serialized form is hashed for an idempotent request.
#[derive(Debug, Clone, Serialize)]
pub struct NewKey {
    /// The node that the key belongs to.
    pub node: NodeName,
    /// The purpose.
    pub purpose: Purpose,
    /// The spec.
    pub spec: KeySpec,
    /// The usages of a signing key. `None`: by its name.
    pub usages: Option<Usages>,
    /// The class. `None`: permanent for a namespace key, otherwise long-term.
    pub class: Option<Class>,
    /// The name.
    pub name: Option<KeyName>,
    /// Whether the role `exporter` may export it. Only the role `key-admin` may set this.
    pub exportable: bool,
}

impl Vault {
    /// Creates a key.
    ///
    /// # Errors
    /// `Forbidden`, `UndeclaredNode`, `InvalidAttributes`, `TooMany`, `IdempotencyMismatch`; the errors of the wrapper keys, the store and
    /// the audit log.
    pub async fn create_key(&self, call: &CallContext, new: NewKey) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let operation = if new.exportable { Operation::CreateExportableKey } else { Operation::CreateKey };
        let new = &new;
        self.gate
            .run(self.gate.event(call, operation), |mut event, _| async move {
                let result = self.try_create(&mut event, call, new).await;
                (event, result)
            })
            .await
    }

    async fn try_create(&self, event: &mut AuditEvent, call: &CallContext, new: &NewKey) -> Result<Completed<KeyRecord>, VaultError> {
        let permit = self.gate.permit_node(event, &new.node)?;
        self.gate.in_service()?;
        let idempotent = self.gate.idempotent_call(call, "POST /v1/keys", new)?;
        if let Some(id) = self.gate.earlier_result(idempotent.as_ref()).await? {
            event.key = Some(id);
            event.subject = Some("repeated".into());
            return Ok(Completed::read(permit, self.record(id).await?));
        }
        let usages = usages(new.purpose, new.usages, new.name.as_ref())?;
        let NewMaterial { bytes: material, identity: KeyIdentity { id, public_key } } =
            self.generate(&call.principal, new.spec, new.purpose).await?;
        let attributes = KeyAttributes {
            id,
            node: new.node.clone(),
            purpose: new.purpose,
            spec: new.spec,
            usages,
            class: class(new.class, usages),
            origin: Origin::Generated,
            exportable: new.exportable,
        };
        let to_seal = KeyToSeal { attributes, public_key, name: new.name.clone(), predecessor: None, replaces: None };
        let SealedNewKey { record, active } = self.seal_new_key(event, to_seal, &material).await?;
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link: None, replaces: None };
        Ok(Completed { idempotency: self.gate.idempotency_record(idempotent, &id), ..Completed::changed(permit, record, change) })
    }
}
