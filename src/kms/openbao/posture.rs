//! The posture of a transit key, from its attributes. The policies of OpenBao are not readable with the token of the vault.

use super::{key_info::KeyInfo, key_reference::KeyPath};
use crate::domain::{PostureLine, PostureSubject};

impl KeyInfo {
    /// The posture of the key at this path.
    pub(super) fn posture(&self, path: &KeyPath) -> Vec<PostureLine> {
        vec![self.spec(), self.origin(), self.state(), self.deletion(), self.export(), self.material(), policy(path)]
    }

    fn spec(&self) -> PostureLine {
        if self.binds() {
            PostureLine::ok(PostureSubject::Spec, format!("{}, which binds a wrap to its context", self.kind()))
        } else {
            let remedy = "Rotate to a key of the type aes256-gcm96 that is not derived.";
            PostureLine::fail(
                PostureSubject::Spec,
                format!("{}, which cannot bind a wrap to its context with 256 bits", self.kind()),
                remedy,
            )
        }
    }

    fn origin(&self) -> PostureLine {
        if self.imported_key {
            let remedy = "Rotate to a key that OpenBao made, or keep the copies of the material as safe as the key.";
            return PostureLine::warning(PostureSubject::Origin, "the key material was imported: copies exist outside of OpenBao", remedy);
        }
        PostureLine::ok(PostureSubject::Origin, "OpenBao made the key material")
    }

    fn state(&self) -> PostureLine {
        if self.soft_deleted {
            let remedy =
                "Somebody may have deleted it on purpose: ask the administrators. Then restore it (keys/<name>/soft-delete-restore).";
            return PostureLine::fail(PostureSubject::State, "the key is soft-deleted", remedy);
        }
        PostureLine::ok(PostureSubject::State, "the key can be used")
    }

    fn deletion(&self) -> PostureLine {
        if self.deletion_allowed {
            let remedy = "Set deletion_allowed=false in keys/<name>/config, and permit nobody to change it.";
            return PostureLine::warning(PostureSubject::Deletion, "deletion_allowed is set: one call deletes the key for ever", remedy);
        }
        PostureLine::ok(PostureSubject::Deletion, "the key cannot be deleted before its configuration is changed")
    }

    fn export(&self) -> PostureLine {
        if self.exportable || self.allow_plaintext_backup {
            let which = if self.exportable { "exportable" } else { "allow_plaintext_backup" };
            let remedy = "Create a key without exportable and allow_plaintext_backup, and rotate to it. Neither can be turned off again.";
            return PostureLine::fail(
                PostureSubject::Export,
                format!("{which} is set: a user with permission reads the key material"),
                remedy,
            );
        }
        PostureLine::ok(PostureSubject::Export, "the key material can neither be exported nor be backed up in plaintext")
    }

    fn material(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Rotation;
        if self.min_decryption_version > 1 {
            let detail = format!("versions before {} may not decrypt: wraps of them do not open", self.min_decryption_version);
            let remedy = "Set min_decryption_version to 1 until every key was re-sealed (keys reseal-job start).";
            return PostureLine::warning(SUBJECT, detail, remedy);
        }
        match self.rotation().period_days {
            Some(days) => PostureLine::ok(SUBJECT, format!("the key material is rotated automatically every {days} days")),
            None => PostureLine::warning(
                SUBJECT,
                "the key material is not rotated automatically",
                "Set auto_rotate_period in keys/<name>/config. Existing wraps stay under the older version until their key is re-sealed.",
            ),
        }
    }
}

fn policy(path: &KeyPath) -> PostureLine {
    PostureLine::warning(
        PostureSubject::Policy,
        "not assessed: the token of the vault cannot read policies, and a policy of OpenBao cannot demand an encryption context",
        format!(
            "Check that only the policy of the vault permits update on {mount}/encrypt/{name} and {mount}/decrypt/{name}, and that nobody may change \
             {path}/config (deploy/openbao).",
            mount = path.mount,
            name = path.name
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::key_info::tests::key_info, *};
    use crate::domain::PostureStatus::{Fail, Ok as Good, Warning};

    #[test]
    fn each_attribute_of_a_transit_key_is_assessed() {
        let path = "team/transit/keys/canton".parse().unwrap();
        for (change, subject, status, says) in [
            ("{}", PostureSubject::Spec, Good, "aes256-gcm96"),
            (r#"{ "type": "aes128-gcm96" }"#, PostureSubject::Spec, Fail, "256 bits"),
            ("{}", PostureSubject::Origin, Good, "OpenBao made"),
            (r#"{ "imported_key": true }"#, PostureSubject::Origin, Warning, "imported"),
            ("{}", PostureSubject::State, Good, "can be used"),
            (r#"{ "soft_deleted": true }"#, PostureSubject::State, Fail, "soft-deleted"),
            ("{}", PostureSubject::Deletion, Good, "cannot be deleted"),
            (r#"{ "deletion_allowed": true }"#, PostureSubject::Deletion, Warning, "deletes the key"),
            ("{}", PostureSubject::Export, Good, "neither"),
            (r#"{ "exportable": true }"#, PostureSubject::Export, Fail, "exportable is set"),
            (r#"{ "allow_plaintext_backup": true }"#, PostureSubject::Export, Fail, "allow_plaintext_backup is set"),
            ("{}", PostureSubject::Rotation, Warning, "not rotated"),
            (r#"{ "auto_rotate_period": 31536000 }"#, PostureSubject::Rotation, Good, "every 365 days"),
            (r#"{ "min_decryption_version": 2 }"#, PostureSubject::Rotation, Warning, "before 2"),
            ("{}", PostureSubject::Policy, Warning, "not assessed"),
        ] {
            let lines = key_info(change).posture(&path);
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            assert!(line.status == status && line.detail.contains(says), "{change}: {line:?}");
            assert_eq!(line.remedy.is_none(), status == Good, "{line:?}");
        }
    }
}
