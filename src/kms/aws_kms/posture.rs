//! The posture of a KMS key in one region: its description, rotation, tags, grants and key policy. A permission that the vault lacks is a warning that
//! names the permission.

use aws_sdk_kms::{
    primitives::{DateTime, DateTimeFormat},
    types::{GrantListEntry, GrantOperation, KeyManagerType, KeyMetadata, KeySpec, KeyState, KeyUsageType, OriginType},
};

use super::{
    error::unusable_answer,
    key_arn::AwsKey,
    key_policy::{Subject, assess},
    region_key::{RegionKey, regions_of},
};
use crate::{
    domain::{KmsRotation, PostureLine, PostureSubject, VaultId},
    kms::{Denial, WrapperError},
};

impl RegionKey {
    /// The posture of the key in this region.
    pub(super) async fn assessed(&self, vault: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        let mut lines = match self.metadata().await {
            Ok(metadata) => of_metadata(&metadata, &self.region),
            Err(error) => vec![unread(PostureSubject::Spec, error)?],
        };
        lines.push(
            self.rotates().await.map_or_else(|error| unread(PostureSubject::Rotation, error), |rotation| Ok(of_rotation(&rotation)))?,
        );
        lines.push(self.tags().await.or_else(|error| unread(PostureSubject::Tags, error))?);
        lines.push(self.grants().await.or_else(|error| unread(PostureSubject::Grants, error))?);
        match self.policy().await {
            Ok(policy) => {
                let key = AwsKey::from_arn(&self.target).map_err(|_| unusable_answer(&self.target))?.0;
                lines.extend(assess(&policy, Subject { account: key.account(), vault: &vault.to_string() }));
            }
            Err(error) => lines.push(unread(PostureSubject::Policy, error)?),
        }
        Ok(lines.into_iter().map(|line| line.in_region(&self.region)).collect())
    }

    async fn metadata(&self) -> Result<KeyMetadata, WrapperError> {
        let request = self.client.describe_key().key_id(&self.target);
        let answer = self.credentials.send(self.action("DescribeKey"), &self.target, "kms:DescribeKey", || request.clone().send()).await?;
        answer.key_metadata.ok_or_else(|| unusable_answer(&self.target))
    }

    async fn policy(&self) -> Result<String, WrapperError> {
        let request = self.client.get_key_policy().key_id(&self.target).policy_name("default");
        let answer =
            self.credentials.send(self.action("GetKeyPolicy"), &self.target, "kms:GetKeyPolicy", || request.clone().send()).await?;
        answer.policy.ok_or_else(|| unusable_answer(&self.target))
    }

    async fn tags(&self) -> Result<PostureLine, WrapperError> {
        let request = self.client.list_resource_tags().key_id(&self.target);
        let answer =
            self.credentials.send(self.action("ListResourceTags"), &self.target, "kms:ListResourceTags", || request.clone().send()).await?;
        let tags: Vec<String> = answer.tags().iter().map(|tag| format!("{}={}", tag.tag_key(), tag.tag_value())).collect();
        let detail = if tags.is_empty() { "the key has no tags".to_owned() } else { format!("the key has the tags {}", tags.join(", ")) };
        Ok(PostureLine::ok(PostureSubject::Tags, detail))
    }

    /// The first page is enough to know that there are grants.
    async fn grants(&self) -> Result<PostureLine, WrapperError> {
        let request = self.client.list_grants().key_id(&self.target);
        let answer = self.credentials.send(self.action("ListGrants"), &self.target, "kms:ListGrants", || request.clone().send()).await?;
        Ok(of_grants(answer.grants(), answer.truncated()))
    }
}

/// The line about something that could not be read.
///
/// # Errors
/// An outage, after which the guard tries again.
fn unread(subject: PostureSubject, error: WrapperError) -> Result<PostureLine, WrapperError> {
    match error {
        WrapperError::Unavailable { .. } => Err(error),
        WrapperError::Denied { denial: Denial::AccessDenied, permission: Some(permission), .. } => Ok(PostureLine::warning(
            subject,
            format!("not assessed: the vault lacks the permission {permission}"),
            format!("Permit {permission} to the role of the vault, as in deploy/aws/wrapper-key-policy.json."),
        )),
        error => Ok(PostureLine::warning(subject, format!("not assessed: {error}"), error.reason().remedy())),
    }
}

fn of_metadata(metadata: &KeyMetadata, region: &str) -> Vec<PostureLine> {
    vec![spec(metadata), origin(metadata), state(metadata), deletion(metadata), regions(metadata, region)]
}

fn spec(metadata: &KeyMetadata) -> PostureLine {
    let word = |word: Option<&str>| word.unwrap_or("unknown").to_owned();
    let (spec, usage) = (metadata.key_spec().map(KeySpec::as_str), metadata.key_usage().map(KeyUsageType::as_str));
    let detail = format!("{}, for {}", word(spec), word(usage));
    if metadata.key_spec() == Some(&KeySpec::SymmetricDefault) && metadata.key_usage() == Some(&KeyUsageType::EncryptDecrypt) {
        PostureLine::ok(PostureSubject::Spec, detail)
    } else {
        PostureLine::fail(PostureSubject::Spec, detail, "Rotate to a key of the spec SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT.")
    }
}

fn origin(metadata: &KeyMetadata) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::Origin;
    if metadata.key_manager() == Some(&KeyManagerType::Aws) {
        let remedy = "Rotate to a customer managed key, whose policy is yours.";
        return PostureLine::fail(SUBJECT, "AWS manages the key, so that its policy cannot be restricted", remedy);
    }
    match metadata.origin() {
        Some(OriginType::AwsKms) => PostureLine::ok(SUBJECT, "AWS KMS made the key material, which never leaves it"),
        Some(OriginType::AwsCloudhsm) => PostureLine::ok(SUBJECT, "the key material is in a CloudHSM cluster"),
        Some(OriginType::External) => PostureLine::warning(
            SUBJECT,
            match metadata.valid_to() {
                Some(at) => format!("the key material was imported and expires at {}: copies exist outside of AWS KMS", date(at)),
                None => "the key material was imported: copies exist outside of AWS KMS".to_owned(),
            },
            "Rotate to a key whose material AWS KMS made, or keep the copies of the material as safe as the key. Import it again before it expires.",
        ),
        Some(OriginType::ExternalKeyStore) => PostureLine::warning(
            SUBJECT,
            "the key is in an external key store: AWS KMS answers only while that store does",
            "Make sure that the external key manager is as available and as safe as AWS KMS.",
        ),
        other => {
            let detail = format!("the origin {} is not known here", other.map_or("(none)", OriginType::as_str));
            PostureLine::warning(SUBJECT, detail, "Find out where the key material was made and is kept.")
        }
    }
}

fn state(metadata: &KeyMetadata) -> PostureLine {
    match metadata.key_state() {
        Some(KeyState::Enabled) => PostureLine::ok(PostureSubject::State, "the key is enabled"),
        other => PostureLine::fail(
            PostureSubject::State,
            format!("the key is not enabled: {}", other.map_or("unknown", KeyState::as_str)),
            "Somebody may have disabled it on purpose: ask the KMS administrators. Then enable it in the KMS.",
        ),
    }
}

fn deletion(metadata: &KeyMetadata) -> PostureLine {
    let pending = matches!(metadata.key_state(), Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion));
    if pending || metadata.deletion_date().is_some() {
        let at = metadata.deletion_date().map_or_else(|| "a date that AWS does not say".to_owned(), date);
        let remedy =
            "Cancel the deletion before it is due (aws kms cancel-key-deletion), unless no key and no backup needs the wrapper key.";
        return PostureLine::fail(PostureSubject::Deletion, format!("the key will be deleted at {at}"), remedy);
    }
    PostureLine::ok(PostureSubject::Deletion, "no deletion is scheduled")
}

fn regions(metadata: &KeyMetadata, region: &str) -> PostureLine {
    let detail = if metadata.multi_region() == Some(true) {
        format!("a multi-Region key, in {}", regions_of(metadata, region.to_owned()).join(", "))
    } else {
        format!("a key of one region, {region}: an outage of it stops the opening of keys")
    };
    PostureLine::ok(PostureSubject::Regions, detail)
}

fn of_rotation(rotation: &KmsRotation) -> PostureLine {
    if !rotation.automatic {
        let remedy = "Enable it (aws kms enable-key-rotation). Existing wraps stay under the older material until their key is re-sealed.";
        return PostureLine::warning(PostureSubject::Rotation, "the key material is not rotated automatically", remedy);
    }
    let every = rotation.period_days.map_or_else(String::new, |days| format!(" every {days} days"));
    let next = rotation.next_at.map_or_else(String::new, |at| format!(", next at {at}"));
    PostureLine::ok(PostureSubject::Rotation, format!("the key material is rotated automatically{every}{next}"))
}

fn of_grants(grants: &[GrantListEntry], more: bool) -> PostureLine {
    let decrypting = |grant: &&GrantListEntry| {
        let opens = [GrantOperation::Decrypt, GrantOperation::ReEncryptFrom, GrantOperation::CreateGrant];
        grant.operations().iter().any(|operation| opens.contains(operation))
    };
    let opening: Vec<&GrantListEntry> = grants.iter().filter(decrypting).collect();
    if opening.is_empty() && !more {
        return PostureLine::ok(PostureSubject::Grants, format!("{} grants, none of which permits Decrypt", grants.len()));
    }
    let named = opening.iter().take(MAX_NAMES).map(|grant| grant.grantee_principal().unwrap_or("unknown")).collect::<Vec<_>>().join(", ");
    let and_more = if more || opening.len() > MAX_NAMES { " and more" } else { "" };
    PostureLine::warning(
        PostureSubject::Grants,
        format!("grants permit these to decrypt, without the key policy: {named}{and_more}"),
        "Revoke the grants (aws kms list-grants, revoke-grant). The vault needs none.",
    )
}

fn date(at: &DateTime) -> String {
    at.fmt(DateTimeFormat::DateTime).unwrap_or_else(|_| at.secs().to_string())
}

/// Names in one line.
const MAX_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use aws_sdk_kms::types::ExpirationModelType;

    use super::*;
    use crate::domain::PostureStatus::{Fail, Ok as Good, Warning};

    fn metadata(
        change: impl FnOnce(aws_sdk_kms::types::builders::KeyMetadataBuilder) -> aws_sdk_kms::types::builders::KeyMetadataBuilder,
    ) -> KeyMetadata {
        let good = KeyMetadata::builder().key_id("k").key_spec(KeySpec::SymmetricDefault).key_usage(KeyUsageType::EncryptDecrypt);
        let good = good.origin(OriginType::AwsKms).key_manager(KeyManagerType::Customer).key_state(KeyState::Enabled).multi_region(false);
        change(good).build().unwrap()
    }

    #[test]
    fn each_fact_of_a_key_is_assessed() {
        let at = DateTime::from_secs(1_800_000_000);
        for (found, subject, status, says) in [
            (metadata(|key| key), PostureSubject::Spec, Good, "SYMMETRIC_DEFAULT"),
            (metadata(|key| key.key_spec(KeySpec::Rsa2048)), PostureSubject::Spec, Fail, "RSA_2048"),
            (metadata(|key| key), PostureSubject::Origin, Good, "never leaves"),
            (metadata(|key| key.key_manager(KeyManagerType::Aws)), PostureSubject::Origin, Fail, "AWS manages"),
            (metadata(|key| key.origin(OriginType::External)), PostureSubject::Origin, Warning, "imported"),
            (
                metadata(|key| key.origin(OriginType::External).expiration_model(ExpirationModelType::KeyMaterialExpires).valid_to(at)),
                PostureSubject::Origin,
                Warning,
                "expires at 2027-01-15T08:00:00Z",
            ),
            (metadata(|key| key.origin(OriginType::ExternalKeyStore)), PostureSubject::Origin, Warning, "external key store"),
            (metadata(|key| key), PostureSubject::State, Good, "enabled"),
            (metadata(|key| key.key_state(KeyState::Disabled)), PostureSubject::State, Fail, "Disabled"),
            (metadata(|key| key), PostureSubject::Deletion, Good, "no deletion"),
            (
                metadata(|key| key.key_state(KeyState::PendingDeletion).deletion_date(at)),
                PostureSubject::Deletion,
                Fail,
                "deleted at 2027-01-15T08:00:00Z",
            ),
            (metadata(|key| key), PostureSubject::Regions, Good, "one region, eu-west-1"),
            (metadata(|key| key.multi_region(true)), PostureSubject::Regions, Good, "multi-Region key, in eu-west-1"),
        ] {
            let lines = of_metadata(&found, "eu-west-1");
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            assert!(line.status == status && line.detail.contains(says), "{line:?}");
            assert_eq!(line.remedy.is_none(), status == Good, "{line:?}");
        }
    }

    #[test]
    fn a_grant_that_opens_wraps_is_a_warning() {
        let grant = |operation| GrantListEntry::builder().grantee_principal("arn:aws:iam::1:role/x").operations(operation).build();
        assert_eq!(of_grants(&[], false).status, Good);
        assert_eq!(of_grants(&[grant(GrantOperation::Encrypt)], false).status, Good);
        assert_eq!(of_grants(&[grant(GrantOperation::Encrypt)], true).status, Warning);
        for operation in [GrantOperation::Decrypt, GrantOperation::ReEncryptFrom, GrantOperation::CreateGrant] {
            let line = of_grants(&[grant(operation)], false);
            assert!(line.status == Warning && line.detail.contains("role/x"), "{line:?}");
        }
    }
}
