//! `create`: a new key, born sealed.

use std::{ops::ControlFlow, sync::Arc};

use serde::Serialize;

use crate::{
    crypto::{self, on_wiped_stack},
    domain::{AuditEvent, Class, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Purpose, Usages},
};

use super::new_key::{self, NewKeyPlan, class, does_not_fit, usages};
use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
};

/// What to create.
#[derive(Debug, Clone, Serialize)]
pub struct NewKey {
    /// For which node.
    pub node: NodeName,
    /// For what.
    pub purpose: Purpose,
    /// Of which spec.
    pub spec: KeySpec,
    /// Usages, for signing keys; by the name if not stated.
    pub usages: Option<Usages>,
    /// Class; permanent for a namespace key if not stated.
    pub class: Option<Class>,
    /// A label.
    pub name: Option<KeyName>,
    /// Whether an exporter may take it out; only a key-admin may say so.
    pub exportable: bool,
}

impl Vault {
    /// Creates a key.
    ///
    /// # Errors
    /// `VaultError`: the gate, facts that do not fit, the wrapper key, or the log.
    pub async fn create_key(self: &Arc<Self>, call: &CallContext, new: NewKey) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let operation = if new.exportable { Operation::CreateExportableKey } else { Operation::CreateKey };
        let mut event = self.event(call, operation);
        for _ in 0..ATTEMPTS {
            event = self.event(call, operation);
            let done = self.try_create(&mut event, call, &new).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_create(&self, event: &mut AuditEvent, call: &CallContext, new: &NewKey) -> Result<Completed<KeyRecord>, VaultError> {
        let permit = self.permit_on_node(event, &new.node)?;
        self.in_service()?;
        let idempotent_call = self.idempotent_call(call, "POST /v1/keys", new)?;
        if let Some(id) = self.remembered(idempotent_call.as_ref()).await? {
            event.key = Some(id);
            event.subject = Some("repeated".into());
            return Ok(Completed::read(permit, self.record(id).await?));
        }
        self.limits.creation(&call.principal)?;
        let scheme = crypto::scheme(new.spec, new.purpose).ok_or_else(|| does_not_fit(new.spec, new.purpose))?;
        let usages = usages(new.purpose, new.usages, new.name.as_ref())?;
        let plan = NewKeyPlan {
            node: new.node.clone(),
            purpose: new.purpose,
            spec: new.spec,
            usages,
            class: class(new.class, usages),
            origin: Origin::Generated,
            exportable: new.exportable,
            name: new.name.clone(),
            predecessor: None,
        };
        let random = Arc::clone(&self.random);
        let material = tokio::task::spawn_blocking(move || on_wiped_stack(|| scheme.generate(random.as_ref())));
        let material = material.await.map_err(|_| VaultError::Internal("a computation was cut off"))??;
        let (record, active) = self.seal_new(event, &plan, &material).await?;
        let change = new_key::insert(&record, active);
        Ok(Completed { idempotency: self.remember(idempotent_call, &record.attributes.id), ..Completed::changed(permit, record, change) })
    }
}
