//! `create`: a new key, sealed before it is stored.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    crypto::{Scheme, SecretBytes, with_wiped_stack},
    domain::{AuditEvent, Class, KeyAttributes, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Principal, Purpose, Usages},
    storage::Change,
};

use super::new_key::{KeyIdentity, KeyToSeal, SealedNewKey, class, scheme_of, usages};
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
        self.limits.creation(&call.principal)?;
        let scheme = scheme_of(new.spec, new.purpose)?;
        let usages = usages(new.purpose, new.usages, new.name.as_ref())?;
        let material = self.generate(&call.principal, scheme).await?;
        let KeyIdentity { id, public_key } = self.identify(new.spec, new.purpose, &material)?;
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
        let to_seal = KeyToSeal { attributes, public_key, name: new.name.clone(), predecessor: None };
        let SealedNewKey { record, active } = self.seal_new_key(event, to_seal, &material).await?;
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link: None };
        Ok(Completed { idempotency: self.gate.idempotency_record(idempotent, &id), ..Completed::changed(permit, record, change) })
    }

    /// Generates key material on a blocking thread: that of an expensive scheme within the limit of the principal, as a use of the key.
    pub(super) async fn generate(&self, principal: &Principal, scheme: &'static dyn Scheme) -> Result<SecretBytes, VaultError> {
        let slot = if scheme.is_expensive() { Some(self.limits.expensive(principal).await?) } else { None };
        let random = Arc::clone(&self.env.random);
        let material = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            with_wiped_stack(|| scheme.generate(random.as_ref()))
        });
        Ok(material.await.map_err(|_| VaultError::Internal("a computation was interrupted"))??)
    }
}
