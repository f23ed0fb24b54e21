//! Through which wraps a key is opened, one after the other, and when the next one has its turn.

use crate::{
    domain::{KeyRecord, Wrap, WrapperKey, WrapperState},
    kms::WrapperError,
};

use crate::vault::Vault;

impl Vault {
    /// The wraps that may open a record, in the order to try: quarantined ones last or never, wrapper keys that fail after those that
    /// work, then as the configuration prefers, then the active one, standby, the rest.
    pub(in crate::vault) fn ordered_wraps<'a>(
        &self,
        keys: &'a [WrapperKey],
        record: &'a KeyRecord,
        quarantined_too: bool,
    ) -> Vec<(&'a WrapperKey, &'a Wrap)> {
        let mut live = live(keys, record, quarantined_too);
        live.sort_by_cached_key(|(key, wrap)| {
            // One that refuses keeps its place: to pass it over would be to go round it.
            let fails = self.health.wrapper_fault(key.id).is_some_and(|fault| self.failover_allowed(&fault));
            (wrap.quarantined, fails, self.providers.preference(key), key.state)
        });
        live
    }

    /// Whether the next wrap is tried after this error. Not after a denial: somebody may have disabled the wrapper key on purpose, and
    /// another wrap of the same key must not undo that, unless the configuration says so.
    pub(in crate::vault) fn failover_allowed(&self, error: &WrapperError) -> bool {
        !matches!(error, WrapperError::Denied { .. }) || self.providers.config().failover_on_denied
    }
}

fn live<'a>(keys: &'a [WrapperKey], record: &'a KeyRecord, quarantined_too: bool) -> Vec<(&'a WrapperKey, &'a Wrap)> {
    record
        .wraps
        .iter()
        .filter(|wrap| (quarantined_too || !wrap.quarantined) && wrap.generation == record.generation)
        .filter_map(|wrap| keys.iter().find(|key| key.id == wrap.wrapper_key).map(|key| (key, wrap)))
        .filter(|(key, _)| key.state != WrapperState::Retired)
        .collect()
}
