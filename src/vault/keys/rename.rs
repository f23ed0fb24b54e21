//! `rename`: another name of a key, or none. A name is a label: it is not bound to the sealed key, and no decision of the vault rests on it.

use crate::{
    domain::{AuditEvent, KeyId, KeyName, KeyRecord, KeyState, Operation},
    storage::Change,
};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Gives a key another name, or removes its name (`None`). The entry has the old and the new name. As at a creation, several keys can have
    /// one name. The usages of the key stay, also those that followed from its first name. The same name again changes nothing.
    ///
    /// # Errors
    /// `State(Destroyed)`, otherwise as [`Vault::enable`].
    pub async fn rename_key(&self, call: &CallContext, id: KeyId, name: Option<KeyName>) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let name = name.as_ref();
        self.gate
            .run(self.gate.event(call, Operation::RenameKey), |mut event, _| async move {
                let result = self.try_rename(&mut event, id, name).await;
                (event, result)
            })
            .await
    }

    async fn try_rename(&self, event: &mut AuditEvent, id: KeyId, name: Option<&KeyName>) -> Result<Completed<KeyRecord>, VaultError> {
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.gate.in_service()?;
        self.key_cache.check_row(&stored).await?;
        if stored.record.lifecycle.is_destroyed() {
            return Err(VaultError::State(KeyState::Destroyed));
        }
        let mut record = stored.record;
        event.subject = Some(format!("{} instead of {}", quoted(name), quoted(record.name.as_ref())));
        let from = std::mem::replace(&mut record.name, name.cloned());
        if from == record.name {
            return Ok(Completed::read(permit, record));
        }
        let change = Change::Rename { key: id, from, to: record.name.clone() };
        Ok(Completed::changed(permit, record, change))
    }
}

/// A name in quotes, so that no name can be taken for other words of the entry.
fn quoted(name: Option<&KeyName>) -> String {
    name.map_or_else(|| "no name".to_owned(), |name| format!("{:?}", name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_look_like_other_words_of_the_entry() {
        let name: KeyName = r#"a" instead of "b"#.parse().unwrap();
        assert_eq!((quoted(Some(&name)), quoted(None)), (r#""a\" instead of \"b""#.to_owned(), "no name".to_owned()));
    }
}
