//! The names of wrapper keys by the entries of a log, for a new chain of state changes: a name is in no column, so the log alone has it.

use std::collections::HashMap;

use crate::{
    audit::{Entry, WrapperKeyChange},
    domain::{WrapperKey, WrapperKeyId, WrapperKeyName},
};

/// The newest name of each wrapper key that has one.
#[derive(Debug, Default)]
pub(super) struct WrapperKeyNames(HashMap<WrapperKeyId, WrapperKeyName>);

impl WrapperKeyNames {
    /// Reads the next entry of the log. A name that is none leaves the name before it, because a chain with it could not be read.
    pub(super) fn look(&mut self, entry: &Entry) {
        for WrapperKeyChange { id, name, .. } in &entry.wrapper_keys {
            match name.as_deref().map(|name| (name, name.parse())) {
                Some((_, Ok(name))) => drop(self.0.insert(*id, name)),
                Some(("", Err(_))) => drop(self.0.remove(id)),
                Some((_, Err(_))) => {
                    tracing::error!(sequence = entry.sequence, "this audit entry has a name of a wrapper key that is not valid");
                }
                None => {}
            }
        }
    }

    /// The change that restates a wrapper key with its name.
    pub(super) fn restate(&self, key: WrapperKey) -> WrapperKeyChange {
        let name = self.0.get(&key.id).map(|name| name.as_str().to_owned());
        WrapperKeyChange { id: key.id, state: key.state, identity: Some(key.identity), name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Source, StatePosition},
        domain::{AuditEvent, Operation, Principal, ProviderKind, Timestamp, WrapperState},
    };

    #[test]
    fn the_newest_valid_name_of_each_wrapper_key_is_restated() {
        let (one, two) = (WrapperKeyId::from_random([1; 6]), WrapperKeyId::from_random([2; 6]));
        let mut names = WrapperKeyNames::default();
        let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
        for (sequence, (id, name)) in
            [(one, Some("first")), (two, Some("spare")), (one, Some("central")), (one, None), (one, Some("two words")), (two, Some(""))]
                .into_iter()
                .enumerate()
        {
            let change = WrapperKeyChange { id, state: WrapperState::Standby, identity: None, name: name.map(str::to_owned) };
            let position = StatePosition { wrapper_keys: vec![change], ..StatePosition::change(2, [0; 32]) };
            let event = AuditEvent::new(Timestamp::from_micros(0), Principal::system(), Operation::RenameWrapperKey, "p".into());
            names.look(&Entry::new(sequence as u64 + 1, &source, &event, position));
        }
        let restated = |id| {
            let key = WrapperKey {
                id,
                name: None,
                provider: ProviderKind::Local,
                identity: "local:00".into(),
                reference: String::new(),
                regions: Vec::new(),
                state: WrapperState::Standby,
                canary: Vec::new(),
                created_at: Timestamp::from_micros(0),
            };
            names.restate(key).name
        };
        assert_eq!((restated(one).as_deref(), restated(two)), (Some("central"), None));
    }
}
