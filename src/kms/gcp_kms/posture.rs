//! The posture of a key of Cloud KMS, from its attributes. The IAM policy is not read: roles are inherited from folders and organizations, so that it
//! would not be the whole.

use super::{
    key_info::{KeyInfo, days},
    key_reference::GcpKey,
};
use crate::domain::{PostureLine, PostureSubject};

impl KeyInfo {
    /// The posture of this key.
    pub(super) fn posture(&self, key: &GcpKey) -> Vec<PostureLine> {
        vec![self.spec(), self.origin(), self.state(), self.deletion(), export(), self.material(key), policy(key)]
    }

    fn spec(&self) -> PostureLine {
        if self.binds() {
            return PostureLine::ok(PostureSubject::Spec, "a symmetric key for encryption, which binds a wrap to its context");
        }
        PostureLine::fail(
            PostureSubject::Spec,
            "the purpose or the algorithm of the key does not bind a wrap to its context",
            "Rotate to a key of the purpose ENCRYPT_DECRYPT with the algorithm GOOGLE_SYMMETRIC_ENCRYPTION.",
        )
    }

    fn origin(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Origin;
        if self.import_only || self.primary.as_ref().is_some_and(|primary| primary.import_time.is_some()) {
            let remedy = "Rotate to a key that Cloud KMS made, or keep the copies of the material as safe as the key.";
            return PostureLine::warning(SUBJECT, "the key material was imported: copies exist outside of Cloud KMS", remedy);
        }
        match self.primary.as_ref().map_or("", |primary| primary.protection_level.as_str()) {
            "HSM" | "HSM_SINGLE_TENANT" => PostureLine::ok(SUBJECT, "Cloud KMS made the key material in an HSM"),
            "SOFTWARE" => PostureLine::warning(
                SUBJECT,
                "the protection level is SOFTWARE: the key material is in the memory of servers of Google, not in an HSM",
                "Rotate to a key of the protection level HSM, if your rules demand one.",
            ),
            "EXTERNAL" | "EXTERNAL_VPC" => PostureLine::warning(
                SUBJECT,
                "the key is in an external key manager: Cloud KMS answers only while that one does",
                "Make sure that the external key manager is as available and as safe as Cloud KMS.",
            ),
            _ => {
                PostureLine::warning(SUBJECT, "the protection level is not known", "Find out where the key material was made and is kept.")
            }
        }
    }

    fn state(&self) -> PostureLine {
        const REMEDY: &str =
            "Somebody may have changed it on purpose: ask the KMS administrators. Then enable a version and make it the primary one.";
        match &self.primary {
            Some(primary) if primary.state == "ENABLED" => PostureLine::ok(PostureSubject::State, "the primary version is enabled"),
            Some(primary) => {
                let plain = primary.state.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                let state = if plain { primary.state.as_str() } else { "unknown" };
                PostureLine::fail(PostureSubject::State, format!("the primary version is not enabled: {state}"), REMEDY)
            }
            None => PostureLine::fail(PostureSubject::State, "the key has no primary version", REMEDY),
        }
    }

    fn deletion(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Deletion;
        match self.destroy_scheduled_duration.as_deref().and_then(days) {
            Some(days) if days >= MIN_DAYS => {
                PostureLine::ok(SUBJECT, format!("a version that is to be destroyed can be restored for {days} days"))
            }
            Some(days) => PostureLine::warning(
                SUBJECT,
                format!("a version that is to be destroyed can be restored for {days} days only"),
                "The duration cannot be changed. Create a key with --destroy-scheduled-duration=30d and rotate to it.",
            ),
            None => PostureLine::warning(
                SUBJECT,
                "Cloud KMS does not report how long a version that is to be destroyed can be restored",
                "Look at the key with `gcloud kms keys describe`.",
            ),
        }
    }

    fn material(&self, key: &GcpKey) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Rotation;
        match self.rotation(key) {
            rotation if !rotation.automatic => PostureLine::warning(
                SUBJECT,
                "the key material is not rotated automatically",
                "Set a rotation period. Existing wraps stay under the older version until their key is re-sealed; do not destroy that version.",
            ),
            rotation => {
                let period = rotation.period_days.map_or_else(String::new, |days| format!(" every {days} days"));
                PostureLine::ok(SUBJECT, format!("the key material is rotated automatically{period}"))
            }
        }
    }
}

fn export() -> PostureLine {
    PostureLine::ok(PostureSubject::Export, "Cloud KMS exports no key material of symmetric keys")
}

fn policy(key: &GcpKey) -> PostureLine {
    PostureLine::warning(
        PostureSubject::Policy,
        "not assessed: roles are inherited from the project, its folders and the organization, and IAM cannot demand an encryption context",
        format!(
            "Check with `gcloud asset analyze-iam-policy` that only the service account of the vault has cloudkms.cryptoKeyVersions.useToDecrypt on {} \
             (deploy/gcp).",
            key.reference()
        ),
    )
}

/// Days in which somebody notices the destruction. The default of Cloud KMS is 30.
const MIN_DAYS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::{
        super::key_info::tests::{key, key_info},
        *,
    };
    use crate::domain::PostureStatus::{Fail, Ok as Good, Warning};

    #[test]
    fn each_attribute_of_a_key_is_assessed() {
        for (change, primary, subject, status, says) in [
            ("{}", "{}", PostureSubject::Spec, Good, "binds"),
            (r#"{ "purpose": "MAC" }"#, "{}", PostureSubject::Spec, Fail, "purpose"),
            ("{}", "{}", PostureSubject::Origin, Good, "HSM"),
            ("{}", r#"{ "protectionLevel": "SOFTWARE" }"#, PostureSubject::Origin, Warning, "SOFTWARE"),
            ("{}", r#"{ "protectionLevel": "EXTERNAL" }"#, PostureSubject::Origin, Warning, "external"),
            ("{}", r#"{ "importTime": "2026-01-01T00:00:00Z" }"#, PostureSubject::Origin, Warning, "imported"),
            ("{}", "{}", PostureSubject::State, Good, "enabled"),
            ("{}", r#"{ "state": "DESTROY_SCHEDULED" }"#, PostureSubject::State, Fail, "DESTROY_SCHEDULED"),
            (r#"{ "primary": null }"#, "{}", PostureSubject::State, Fail, "no primary"),
            ("{}", "{}", PostureSubject::Deletion, Good, "30 days"),
            (r#"{ "destroyScheduledDuration": "86400s" }"#, "{}", PostureSubject::Deletion, Warning, "1 days only"),
            ("{}", "{}", PostureSubject::Export, Good, "exports no"),
            ("{}", "{}", PostureSubject::Rotation, Good, "every 90 days"),
            (r#"{ "nextRotationTime": null }"#, "{}", PostureSubject::Rotation, Warning, "not rotated"),
            ("{}", "{}", PostureSubject::Policy, Warning, "not assessed"),
        ] {
            let lines = key_info(change, primary).posture(&key());
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            assert!(line.status == status && line.detail.contains(says), "{change} {primary}: {line:?}");
            assert_eq!(line.remedy.is_none(), status == Good, "{line:?}");
        }
    }
}
