//! `rename`: another name of a wrapper key, or none. A name is a label for people: no decision of the vault rests on it.

use crate::{
    domain::{AuditEvent, Operation, WrapperKeyId, WrapperKeyName},
    storage::Change,
};

use super::{WrapperKeyView, WrapperKeys};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Gives a wrapper key another name, or removes its name (`None`). The entry has the new name, in the chain of state changes. Several wrapper keys
    /// can have one name. The same name again changes nothing.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Frozen`, or `AuditUnavailable`.
    pub async fn rename_wrapper_key(
        &self,
        call: &CallContext,
        id: WrapperKeyId,
        name: Option<WrapperKeyName>,
    ) -> Result<AuditedResult<WrapperKeyView>, VaultError> {
        let text = name.as_ref().map_or_else(|| "no name".to_owned(), |name| format!("{:?}", name.as_str()));
        let event = AuditEvent { subject: Some(format!("{id} {text}")), ..self.gate.event(call, Operation::RenameWrapperKey) };
        let name = name.as_ref();
        self.gate
            .run(event, |event, _| async move {
                let result = self.wrapper_keys.try_rename(&event, id, name).await;
                (event, result)
            })
            .await
    }
}

impl WrapperKeys {
    async fn try_rename(
        &self,
        event: &AuditEvent,
        id: WrapperKeyId,
        name: Option<&WrapperKeyName>,
    ) -> Result<Completed<WrapperKeyView>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.in_service()?;
        let mut view = self.view_of(id).await?;
        if view.key.name.as_ref() == name {
            return Ok(Completed::read(permit, view));
        }
        view.key.name = name.cloned();
        Ok(Completed::changed(permit, view, Change::RenameWrapperKey { id, to: name.cloned() }))
    }
}
