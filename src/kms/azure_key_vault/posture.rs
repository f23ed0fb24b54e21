//! The posture of a key in Azure, from its attributes. Role assignments and access policies are not readable with the permissions of the vault.

use super::{
    key_info::{Algorithm, KeyInfo},
    key_reference::AzureKey,
};
use crate::domain::{PostureLine, PostureSubject, Timestamp};

impl KeyInfo {
    /// The posture of this key.
    pub(super) fn posture(&self, key: &AzureKey) -> Vec<PostureLine> {
        vec![self.spec(), self.origin(), self.state(), self.deletion(), self.export(), self.expiry(), policy(key)]
    }

    fn spec(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Spec;
        match self.algorithm() {
            Some(Algorithm::Gcm) => PostureLine::ok(SUBJECT, "oct-HSM: AES-256-GCM, which binds a wrap to its context"),
            Some(Algorithm::RsaOaep) => PostureLine::warning(
                SUBJECT,
                format!(
                    "{}: RSA-OAEP-256 over the data key and a digest of its context, which does not prove that the vault made the wrap",
                    self.kind()
                ),
                "Rotate to a symmetric key (oct-HSM) of a Managed HSM, or keep writers away from the database (SECURITY.md).",
            ),
            None => PostureLine::fail(
                SUBJECT,
                format!("{}: the kind or the key_ops of the key permit no wrapping", self.kind()),
                "Rotate to an RSA-HSM key with the key_ops wrapKey and unwrapKey, or an oct-HSM key with encrypt and decrypt.",
            ),
        }
    }

    fn origin(&self) -> PostureLine {
        if self.key.kty.ends_with("-HSM") {
            return PostureLine::ok(PostureSubject::Origin, "the key material is in an HSM. Azure does not report whether it was imported");
        }
        PostureLine::warning(
            PostureSubject::Origin,
            "the key is protected by software: its material is in the memory of servers of Azure, not in an HSM",
            "Rotate to a key of the kind RSA-HSM or oct-HSM, if your rules demand an HSM.",
        )
    }

    fn state(&self) -> PostureLine {
        if self.attributes.enabled {
            return PostureLine::ok(PostureSubject::State, "the current version is enabled");
        }
        let remedy = "Somebody may have disabled it on purpose: ask the administrators of the vault in Azure. Then enable it.";
        PostureLine::fail(PostureSubject::State, "the current version is disabled", remedy)
    }

    fn deletion(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Deletion;
        let days = self.attributes.recoverable_days;
        // `Recoverable+Purgeable` and `Purgeable` permit a purge before the days are over.
        if self.attributes.recovery_level.contains("Recoverable") && !self.attributes.recovery_level.contains("Purgeable") {
            return PostureLine::ok(SUBJECT, format!("a deleted key can be recovered for {days} days and cannot be purged before"));
        }
        PostureLine::warning(
            SUBJECT,
            "a deleted key can be purged at once by a user with the permission",
            "Enable purge protection of the vault in Azure (az keyvault update --enable-purge-protection true).",
        )
    }

    fn export(&self) -> PostureLine {
        if self.attributes.exportable {
            let remedy = "Create a key that is not exportable, and rotate to it.";
            return PostureLine::fail(PostureSubject::Export, "the key is exportable: a release policy lets it leave Azure", remedy);
        }
        PostureLine::ok(PostureSubject::Export, "the key cannot be exported. A backup of it can be restored only within Azure")
    }

    fn expiry(&self) -> PostureLine {
        match self.attributes.exp {
            None => PostureLine::ok(PostureSubject::Rotation, "the current version does not expire"),
            Some(at) => PostureLine::warning(
                PostureSubject::Rotation,
                format!(
                    "the current version expires at {}: Azure then wraps nothing new with it",
                    Timestamp::from_micros(at.saturating_mul(1_000_000))
                ),
                "Set a rotation policy, or rotate the key before. Existing wraps stay under the older version, which must stay enabled.",
            ),
        }
    }
}

fn policy(key: &AzureKey) -> PostureLine {
    PostureLine::warning(
        PostureSubject::Policy,
        "not assessed: role assignments and access policies are not readable here, and Azure cannot demand an encryption context",
        format!(
            "Check that only the identity of the vault may unwrap and decrypt with {} (deploy/azure), also by roles of the resource group and the \
             subscription.",
            key.reference()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::key_info::tests::{key, key_info},
        *,
    };
    use crate::domain::PostureStatus::{Fail, Ok as Good, Warning};

    #[test]
    fn each_attribute_of_a_key_is_assessed() {
        for (change, attributes, subject, status, says) in [
            ("{}", "{}", PostureSubject::Spec, Warning, "RSA-OAEP-256"),
            (r#"{ "kty": "oct-HSM", "key_ops": ["encrypt", "decrypt"] }"#, "{}", PostureSubject::Spec, Good, "AES-256-GCM"),
            (r#"{ "kty": "EC" }"#, "{}", PostureSubject::Spec, Fail, "permit no wrapping"),
            ("{}", "{}", PostureSubject::Origin, Good, "in an HSM"),
            (r#"{ "kty": "RSA" }"#, "{}", PostureSubject::Origin, Warning, "software"),
            ("{}", "{}", PostureSubject::State, Good, "enabled"),
            ("{}", r#"{ "enabled": false }"#, PostureSubject::State, Fail, "disabled"),
            ("{}", "{}", PostureSubject::Deletion, Good, "90 days"),
            ("{}", r#"{ "recoveryLevel": "Recoverable+Purgeable" }"#, PostureSubject::Deletion, Warning, "purged"),
            ("{}", "{}", PostureSubject::Export, Good, "cannot be exported"),
            ("{}", r#"{ "exportable": true }"#, PostureSubject::Export, Fail, "exportable"),
            ("{}", "{}", PostureSubject::Rotation, Good, "does not expire"),
            ("{}", r#"{ "exp": 1800000000 }"#, PostureSubject::Rotation, Warning, "2027-01-15"),
            ("{}", "{}", PostureSubject::Policy, Warning, "not assessed"),
        ] {
            let lines = key_info(change, attributes).posture(&key());
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            assert!(line.status == status && line.detail.contains(says), "{change} {attributes}: {line:?}");
            assert_eq!(line.remedy.is_none(), status == Good, "{line:?}");
        }
    }
}
