//! The attributes of a transit key: whether it is the registered one, and whether it may wrap.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::{KmsRotation, Timestamp};

use crate::kms::Denial;

/// The answer of `GET <mount>/keys/<name>`, with the fields that are used here.
#[derive(Debug, Clone, Default, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as OpenBao has them")]
pub(super) struct KeyInfo {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    pub(super) exportable: bool,
    #[serde(default)]
    pub(super) allow_plaintext_backup: bool,
    #[serde(default)]
    pub(super) soft_deleted: bool,
    #[serde(default)]
    pub(super) deletion_allowed: bool,
    /// The material of a version was imported.
    #[serde(default)]
    pub(super) imported_key: bool,
    /// When each version was made, in seconds since 1970 for a symmetric key. Versions that may not decrypt are missing.
    #[serde(default)]
    keys: BTreeMap<u32, serde_json::Value>,
    #[serde(default)]
    pub(super) min_decryption_version: u32,
    #[serde(default)]
    min_available_version: u32,
    /// Seconds; 0 means never.
    #[serde(default)]
    auto_rotate_period: i64,
}

impl KeyInfo {
    /// The second in which version 1 was made; `None` if `min_decryption_version` hides it.
    pub(super) fn created(&self) -> Option<i64> {
        self.keys.get(&1)?.as_i64()
    }

    /// Whether it can be the key that was made in that second. If version 1 is hidden, the other versions must be younger.
    pub(super) fn may_be_of(&self, created: i64) -> bool {
        match self.created() {
            Some(second) => second == created,
            None => self.keys.values().filter_map(serde_json::Value::as_i64).all(|second| second >= created),
        }
    }

    /// Why nothing may be wrapped under it, if so.
    pub(super) fn refusal(&self) -> Option<Denial> {
        if !self.binds() {
            Some(Denial::WrongKind)
        } else if self.soft_deleted {
            Some(Denial::Disabled)
        } else if self.exportable || self.allow_plaintext_backup {
            Some(Denial::Exportable)
        } else {
            None
        }
    }

    /// Why it does not open what its `version` wrapped, if the ciphertext is not the reason.
    pub(super) fn opens_not(&self, version: u32) -> Option<Denial> {
        if !self.binds() {
            Some(Denial::WrongKind)
        } else if self.soft_deleted {
            Some(Denial::Disabled)
        } else if version < self.min_decryption_version.max(self.min_available_version) {
            Some(Denial::OldVersion)
        } else {
            None
        }
    }

    /// What to create instead of a key that cannot be registered.
    pub(super) fn unfit(&self) -> Option<String> {
        const MAKE: &str = "make one by `bao write -f <mount>/keys/<name> type=aes256-gcm96`";
        if !self.binds() {
            let derived = if self.derived { "derived " } else { "" };
            return Some(format!("a {derived}key of type {} cannot bind a wrap to its context with 256 bits; {MAKE}", self.kind()));
        }
        if self.exportable || self.allow_plaintext_backup {
            return Some(format!(
                "a user with permission to export or back it up has every key, and neither can be turned off again; {MAKE}"
            ));
        }
        if self.created().is_none() {
            return Some("version 1 is hidden by min_decryption_version, so the key cannot be told from others; set it to 1".to_owned());
        }
        None
    }

    /// How its material is rotated: each version after the first is one rotation. OpenBao does not report who made a version.
    pub(super) fn rotation(&self) -> KmsRotation {
        let newest = self.keys.iter().next_back().and_then(|(version, second)| Some((*version, second.as_i64()?)));
        let at = |second: i64| second.checked_mul(1_000_000).map(Timestamp::from_micros);
        let period = (self.auto_rotate_period > 0).then_some(self.auto_rotate_period);
        KmsRotation {
            automatic: period.is_some(),
            period_days: period.and_then(|seconds| u32::try_from(seconds / SECONDS_A_DAY).ok()),
            next_at: period.zip(newest).and_then(|(period, (_, second))| at(second.checked_add(period)?)),
            last_at: newest.filter(|(version, _)| *version > 1).and_then(|(_, second)| at(second)),
            last_kind: None,
            on_demand_since: None,
        }
    }

    /// Whether it is an AEAD of 256 bits that takes associated data: the context.
    pub(super) fn binds(&self) -> bool {
        matches!(self.kind.as_str(), "aes256-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305") && !self.derived
    }

    /// The type as the server reports it, if it has the form of a type name.
    pub(super) fn kind(&self) -> &str {
        let plain = self.kind.len() <= 32 && self.kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain { &self.kind } else { "unknown" }
    }
}

/// The version in `vault:v<version>:<base64>`, if that is the form that OpenBao writes.
///
/// OpenBao reads more forms than it writes: `v0` as `v1`, and base64 with line breaks and unused bits. Here one wrap has one text.
pub(super) fn version_of(wrapped: &[u8]) -> Option<u32> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (version, sealed) = std::str::from_utf8(wrapped).ok()?.strip_prefix("vault:v")?.split_once(':')?;
    let number: u32 = version.parse().ok()?;
    let plausible = number > 0 && number.to_string() == version && (1..=MAX_SEALED).contains(&sealed.len());
    (plausible && STANDARD.decode(sealed).is_ok()).then_some(number)
}

const SECONDS_A_DAY: i64 = 86_400;
/// Characters; a wrap of a data key has 80 to 100.
const MAX_SEALED: usize = 4096;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kms::openbao) fn key_info(change: &str) -> KeyInfo {
        let mut all = serde_json::json!({ "type": "aes256-gcm96", "keys": { "1": 1_795_319_440, "2": 1_795_319_443 }, "latest_version": 2,
            "min_decryption_version": 1, "min_available_version": 0, "exportable": false, "derived": false });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_key_is_identified_by_the_second_of_its_creation() {
        let seen = key_info("{}");
        assert!(seen.may_be_of(1_795_319_440) && !seen.may_be_of(1_795_319_439) && !seen.may_be_of(1_795_319_441));
        let hidden = key_info(r#"{ "keys": { "2": 1795319443 }, "min_decryption_version": 2 }"#);
        assert!(hidden.may_be_of(1_795_319_440) && !hidden.may_be_of(1_795_319_444));
        assert_eq!(hidden.created(), None);
    }

    #[test]
    fn a_key_type_without_associated_data_and_an_exportable_key_are_unfit() {
        for (change, refusal, fit) in [
            ("{}", None, true),
            (r#"{ "type": "chacha20-poly1305" }"#, None, true),
            (r#"{ "type": "xchacha20-poly1305" }"#, None, true),
            (r#"{ "type": "aes128-gcm96" }"#, Some(Denial::WrongKind), false),
            (r#"{ "type": "rsa-4096", "keys": { "1": { "name": "rsa-4096" } } }"#, Some(Denial::WrongKind), false),
            (r#"{ "derived": true }"#, Some(Denial::WrongKind), false),
            (r#"{ "exportable": true }"#, Some(Denial::Exportable), false),
            (r#"{ "allow_plaintext_backup": true }"#, Some(Denial::Exportable), false),
            (r#"{ "soft_deleted": true }"#, Some(Denial::Disabled), true),
            (r#"{ "keys": { "2": 1795319443 } }"#, None, false),
        ] {
            let key_info = key_info(change);
            assert_eq!((key_info.refusal(), key_info.unfit().is_none()), (refusal, fit), "{change}");
        }
    }

    #[test]
    fn an_exposed_key_still_opens_and_an_old_version_does_not() {
        assert_eq!(key_info(r#"{ "exportable": true }"#).opens_not(1), None);
        assert_eq!(key_info(r#"{ "min_decryption_version": 2 }"#).opens_not(1), Some(Denial::OldVersion));
        assert_eq!(key_info(r#"{ "min_available_version": 3 }"#).opens_not(2), Some(Denial::OldVersion));
        assert_eq!(key_info(r#"{ "soft_deleted": true }"#).opens_not(1), Some(Denial::Disabled));
    }

    #[test]
    fn each_further_version_is_a_rotation() {
        let second = |second: i64| Some(Timestamp::from_micros(second * 1_000_000));
        let by_hand = key_info("{}").rotation();
        assert_eq!((by_hand.automatic, by_hand.last_at, by_hand.next_at), (false, second(1_795_319_443), None));
        let yearly = key_info(r#"{ "keys": { "1": 1795319440 }, "auto_rotate_period": 31536000 }"#).rotation();
        assert_eq!((yearly.automatic, yearly.period_days, yearly.last_at), (true, Some(365), None));
        assert_eq!(yearly.next_at, second(1_795_319_440 + 31_536_000));
    }

    #[test]
    fn a_wrap_has_one_text() {
        let sealed = "+MPXoOqL7KFnv/JV8xip2XRFJixQ+no/w/tqJzRcRsEXhUUhTqzDJpmol4g0cupSyMBPNdatzSPYXbE6";
        assert_eq!(version_of(format!("vault:v1:{sealed}").as_bytes()), Some(1));
        assert_eq!(version_of(format!("vault:v12:{sealed}").as_bytes()), Some(12));
        for prefix in ["vault:v0:", "vault:v01:", "vault:v+1:", "vault:v:", "vault:v1", "Vault:v1:", "vault:v4294967296:"] {
            assert_eq!(version_of(format!("{prefix}{sealed}").as_bytes()), None, "{prefix}");
        }
        // A line break, and unused bits.
        assert_eq!(version_of(b"vault:v1:QUJD\nREVG"), None);
        assert_eq!((version_of(b"vault:v1:QQ=="), version_of(b"vault:v1:QR==")), (Some(1), None));
        assert_eq!((version_of(b"vault:v1:"), version_of(b"\xff"), version_of(b"")), (None, None, None));
    }
}
