//! The order in which the wraps of a key are tried, and whether the next one is tried after an error.

use crate::{
    domain::{KeyRecord, Wrap, WrapperKey, WrapperState},
    kms::WrapperError,
};

use super::WrapperKeys;

impl WrapperKeys {
    /// The usable wraps of a record in the order to try: quarantined ones last or not at all, failing wrapper keys after working ones, then
    /// by the configured preference, then active, standby and the others.
    pub(super) fn ordered_wraps<'a>(
        &self,
        keys: &'a [WrapperKey],
        record: &'a KeyRecord,
        quarantined_too: bool,
    ) -> Vec<(&'a WrapperKey, &'a Wrap)> {
        let mut wraps = usable_wraps(keys, record, quarantined_too);
        wraps.sort_by_cached_key(|(key, wrap)| {
            // A wrapper key that denies keeps its place: moving it back would circumvent the denial.
            let failing = self.health.fault(key.id).is_some_and(|fault| self.failover_allowed(&fault));
            (wrap.quarantined, failing, self.providers.preference(key), key.state)
        });
        wraps
    }

    /// Whether the next wrap may be tried after this error. A denial does not allow it unless `failover_on_denied` is set: somebody may
    /// have disabled the wrapper key on purpose, and another wrap of the same key must not circumvent that.
    pub(super) fn failover_allowed(&self, error: &WrapperError) -> bool {
        !matches!(error, WrapperError::Denied { .. }) || self.providers.config().failover_on_denied
    }
}

fn usable_wraps<'a>(keys: &'a [WrapperKey], record: &'a KeyRecord, quarantined_too: bool) -> Vec<(&'a WrapperKey, &'a Wrap)> {
    record
        .wraps
        .iter()
        .filter(|wrap| (quarantined_too || !wrap.quarantined) && wrap.generation == record.generation)
        .filter_map(|wrap| keys.iter().find(|key| key.id == wrap.wrapper_key).map(|key| (key, wrap)))
        .filter(|(key, _)| key.state != WrapperState::Retired)
        .collect()
}
