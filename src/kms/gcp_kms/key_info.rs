//! The attributes of a key and of a key version: whether they may wrap and unwrap.

use serde::Deserialize;

use super::key_reference::GcpKey;
use crate::{
    domain::{KmsRotation, Timestamp},
    kms::Denial,
};

/// A `CryptoKey`, with the fields that are used here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KeyInfo {
    pub(super) name: String,
    pub(super) purpose: String,
    /// Absent if the key has no primary version.
    pub(super) primary: Option<VersionInfo>,
    pub(super) import_only: bool,
    pub(super) next_rotation_time: Option<String>,
    /// Such as `7776000s`.
    pub(super) rotation_period: Option<String>,
    pub(super) destroy_scheduled_duration: Option<String>,
}

/// A `CryptoKeyVersion`, with the fields that are used here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VersionInfo {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) protection_level: String,
    pub(super) algorithm: String,
    pub(super) create_time: Option<String>,
    /// Of imported material.
    pub(super) import_time: Option<String>,
}

impl VersionInfo {
    /// Why its state does not allow its use, if so. `primary` if new wraps are made with it. The state of another version says nothing of the
    /// key, whose other wraps open.
    pub(super) fn refusal(&self, primary: bool) -> Option<Denial> {
        match self.state.as_str() {
            "ENABLED" => None,
            _ if !primary => Some(Denial::OldVersion),
            "DISABLED" => Some(Denial::Disabled),
            _ => Some(Denial::InvalidState),
        }
    }
}

impl KeyInfo {
    /// Why nothing may be wrapped under it, if so.
    pub(super) fn refusal(&self) -> Option<Denial> {
        if !self.binds() {
            return Some(Denial::WrongKind);
        }
        match &self.primary {
            Some(primary) => primary.refusal(true),
            None => Some(Denial::InvalidState),
        }
    }

    /// The number of the primary version.
    pub(super) fn primary_version(&self, key: &GcpKey) -> Option<u64> {
        key.version_in(&self.primary.as_ref()?.name)
    }

    /// What to register instead of a key that cannot be.
    pub(super) fn unfit(&self, key: &GcpKey) -> Option<String> {
        if self.name != key.reference() {
            return Some("Cloud KMS calls this key by another name; use the name that `gcloud kms keys describe` shows".to_owned());
        }
        let purpose = if self.purpose.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') { self.purpose.as_str() } else { "unknown" };
        (!self.binds()).then(|| {
            format!(
                "a key of the purpose {purpose} cannot bind a wrap to its context; make one by `gcloud kms keys create KEY --purpose encryption \
                 --protection-level hsm`"
            )
        })
    }

    /// Whether it is an AEAD that takes associated data: the context.
    pub(super) fn binds(&self) -> bool {
        let algorithm = self.primary.as_ref().map(|primary| primary.algorithm.as_str());
        self.purpose == "ENCRYPT_DECRYPT"
            && algorithm.is_none_or(|algorithm| matches!(algorithm, "GOOGLE_SYMMETRIC_ENCRYPTION" | "EXTERNAL_SYMMETRIC_ENCRYPTION"))
    }

    /// How its material is rotated. Cloud KMS does not report who made a version.
    pub(super) fn rotation(&self, key: &GcpKey) -> KmsRotation {
        let newest = self.primary.as_ref().filter(|_| self.primary_version(key).is_some_and(|version| version > 1));
        KmsRotation {
            automatic: self.next_rotation_time.is_some(),
            period_days: self.rotation_period.as_deref().and_then(days),
            next_at: self.next_rotation_time.as_deref().and_then(Timestamp::parse),
            last_at: newest.and_then(|version| Timestamp::parse(version.create_time.as_deref()?)),
            last_kind: None,
            on_demand_since: None,
        }
    }
}

/// Whole days in a duration such as `7776000s`.
pub(super) fn days(duration: &str) -> Option<u32> {
    let seconds: u64 = duration.strip_suffix('s')?.split('.').next()?.parse().ok()?;
    u32::try_from(seconds / 86_400).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NAME: &str = "projects/canton-prod/locations/global/keyRings/canton/cryptoKeys/vault";

    pub(in crate::kms::gcp_kms) fn key() -> GcpKey {
        GcpKey::from_reference(NAME).unwrap()
    }

    /// A key as Cloud KMS shows it, with changes.
    pub(in crate::kms::gcp_kms) fn key_info(change: &str, primary: &str) -> KeyInfo {
        let mut info = serde_json::json!({
            "name": NAME, "purpose": "ENCRYPT_DECRYPT", "createTime": "2026-01-01T00:00:00Z", "nextRotationTime": "2026-12-01T00:00:00Z",
            "rotationPeriod": "7776000s", "destroyScheduledDuration": "2592000s",
            "primary": {
                "name": format!("{NAME}/cryptoKeyVersions/2"), "state": "ENABLED", "protectionLevel": "HSM",
                "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "createTime": "2026-09-01T00:00:00.5Z"
            }
        });
        let map = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap();
        info["primary"].as_object_mut().unwrap().extend(map(primary));
        info.as_object_mut().unwrap().extend(map(change));
        serde_json::from_value(info).unwrap()
    }

    #[test]
    fn a_key_wraps_with_an_enabled_primary_version() {
        for (change, primary, expected) in [
            ("{}", "{}", None),
            ("{}", r#"{ "state": "DISABLED" }"#, Some(Denial::Disabled)),
            ("{}", r#"{ "state": "DESTROY_SCHEDULED" }"#, Some(Denial::InvalidState)),
            ("{}", r#"{ "state": "DESTROYED" }"#, Some(Denial::InvalidState)),
            ("{}", r#"{ "algorithm": "AES_256_GCM" }"#, Some(Denial::WrongKind)),
            (r#"{ "primary": null }"#, "{}", Some(Denial::InvalidState)),
            (r#"{ "purpose": "ASYMMETRIC_DECRYPT", "primary": null }"#, "{}", Some(Denial::WrongKind)),
        ] {
            assert_eq!(key_info(change, primary).refusal(), expected, "{change} {primary}");
        }
        let disabled = VersionInfo { state: "DISABLED".into(), ..VersionInfo::default() };
        assert_eq!(disabled.refusal(false), Some(Denial::OldVersion));
        assert!(key_info("{}", "{}").unfit(&key()).is_none());
        assert!(key_info(r#"{ "name": "projects/1" }"#, "{}").unfit(&key()).unwrap().contains("another name"));
        assert!(key_info(r#"{ "purpose": "MAC" }"#, "{}").unfit(&key()).unwrap().contains("purpose MAC"));
    }

    #[test]
    fn rotation_is_reported_in_days() {
        let rotation = key_info("{}", "{}").rotation(&key());
        assert_eq!((rotation.automatic, rotation.period_days), (true, Some(90)));
        assert_eq!(
            (rotation.next_at, rotation.last_at.map(Timestamp::seconds)),
            (Timestamp::parse("2026-12-01T00:00:00Z"), Some(1_788_220_800))
        );
        let none = key_info(r#"{ "nextRotationTime": null, "rotationPeriod": null }"#, "{}").rotation(&key());
        assert_eq!((none.automatic, none.period_days, none.next_at), (false, None, None));
    }
}
