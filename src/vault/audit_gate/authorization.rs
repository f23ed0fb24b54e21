//! The one door: facts in, permit or refusal out. Every verb comes through here before it touches a key.

use crate::{
    domain::{AuditEvent, Denied, KeyId, NodeName, Operation, Permit, Target},
    storage::{StoreError, StoredKey},
};

use crate::vault::{Vault, VaultError, error::denied};

impl Vault {
    /// Decides about a key that the store knows, or does not know: both answer alike where the caller may not see it.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, or that the store cannot be read.
    pub(in crate::vault) async fn permit_key(&self, event: &mut AuditEvent, id: KeyId) -> Result<(Permit, StoredKey), VaultError> {
        event.key = Some(id);
        let stored = match self.store.key(id).await {
            Err(StoreError::Corrupt { table: "keys" | "wraps", what }) => return Err(self.unreadable(event, id, &what).await),
            stored => stored?,
        };
        let permit = self.permit_on_key(event, id, stored.as_ref().map(|stored| &stored.record.attributes.node))?;
        let stored = stored.ok_or(VaultError::KeyNotFound(id))?;
        Ok((permit, stored))
    }

    /// Decides about a key whose node is known (`None`: there is no such key).
    pub(in crate::vault) fn permit_on_key(&self, event: &mut AuditEvent, id: KeyId, node: Option<&NodeName>) -> Result<Permit, VaultError> {
        event.key = Some(id);
        // Refusals, too: whoever audits the node sees who tried to reach its key.
        event.node = node.cloned();
        let target = node.map_or(Target::UnknownKey(id), |node| Target::Key(id, node));
        self.permit(event, target).map_err(|refused| denied(refused, Some(id), node))
    }

    /// Decides about a node, for a key that is to be made.
    pub(in crate::vault) fn permit_on_node(&self, event: &mut AuditEvent, node: &NodeName) -> Result<Permit, VaultError> {
        event.node = Some(node.clone());
        self.permit(event, Target::Node(node)).map_err(|refused| denied(refused, None, Some(node)))
    }

    /// Decides about a list: the permit says which nodes it reaches.
    pub(in crate::vault) fn permit_inventory(&self, event: &AuditEvent) -> Result<Permit, VaultError> {
        self.permit(event, Target::Inventory).map_err(|refused| denied(refused, None, None))
    }

    /// Decides about the vault as a whole.
    pub(in crate::vault) fn permit_vault(&self, event: &AuditEvent) -> Result<Permit, VaultError> {
        self.permit(event, Target::Vault).map_err(|refused| denied(refused, None, None))
    }

    fn permit(&self, event: &AuditEvent, target: Target<'_>) -> Result<Permit, Denied> {
        self.policy().permit(&event.principal, event.operation, target)
    }

    /// Refuses what uses keys while the vault is frozen or stops.
    pub(in crate::vault) fn in_service(&self) -> Result<(), VaultError> {
        if self.health.stopping() {
            return Err(VaultError::ShuttingDown);
        }
        if self.frozen() { Err(VaultError::Frozen) } else { Ok(()) }
    }

    /// Whether `operation` opens a key: what a freeze refuses.
    pub(in crate::vault) const fn opens_keys(operation: Operation) -> bool {
        matches!(operation, Operation::Sign | Operation::Decrypt | Operation::Encrypt | Operation::ExportKey)
    }
}
