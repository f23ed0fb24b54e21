//! The identity of an AWS KMS key: partition, account and key id, without the region. Never an alias.

use std::{fmt, str::FromStr};

/// A KMS key, without its region. Shown and stored as `aws:<partition>:<account>:<key id>`.
///
/// Replicas of a multi-Region key share it, so that a wrap made in one region opens in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct AwsKey {
    partition: String,
    account: String,
    key_id: String,
}

/// The text does not have the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kms) struct NotAKeyArn;

impl AwsKey {
    /// Reads a key ARN, `arn:<partition>:kms:<region>:<account>:key/<key id>`, into the key and its region.
    pub(in crate::kms) fn from_arn(arn: &str) -> Result<(Self, String), NotAKeyArn> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", partition, "kms", region, account, resource] = parts.as_slice() else { return Err(NotAKeyArn) };
        let key_id = resource.strip_prefix("key/").ok_or(NotAKeyArn)?;
        if !is_region(region) {
            return Err(NotAKeyArn);
        }
        Ok((Self::checked(partition, account, key_id)?, (*region).to_owned()))
    }

    /// Its ARN in `region`.
    pub(in crate::kms) fn arn(&self, region: &str) -> String {
        format!("arn:{}:kms:{region}:{}:key/{}", self.partition, self.account, self.key_id)
    }

    /// The part of AWS that it is in: `aws`, `aws-cn`, …
    pub(in crate::kms) fn partition(&self) -> &str {
        &self.partition
    }

    /// The account that owns it, 12 digits.
    pub(in crate::kms) fn account(&self) -> &str {
        &self.account
    }

    /// Whether it may have replicas in other regions: AWS says so by the prefix of the id.
    pub(in crate::kms) fn is_multi_region(&self) -> bool {
        self.key_id.starts_with("mrk-")
    }

    fn checked(partition: &str, account: &str, key_id: &str) -> Result<Self, NotAKeyArn> {
        let good = is_word(partition) && is_account(account) && is_key_id(key_id);
        if !good {
            return Err(NotAKeyArn);
        }
        Ok(Self { partition: partition.to_owned(), account: account.to_owned(), key_id: key_id.to_owned() })
    }
}

impl fmt::Display for AwsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws:{}:{}:{}", self.partition, self.account, self.key_id)
    }
}

impl FromStr for AwsKey {
    type Err = NotAKeyArn;

    fn from_str(identity: &str) -> Result<Self, NotAKeyArn> {
        let parts: Vec<&str> = identity.split(':').collect();
        let ["aws", partition, account, key_id] = parts.as_slice() else { return Err(NotAKeyArn) };
        Self::checked(partition, account, key_id)
    }
}

/// Whether the text is a region name. It becomes part of a host name, so only `[a-z0-9-]` is valid.
pub(in crate::kms) fn is_region(text: &str) -> bool {
    is_word(text) && text.contains('-')
}

/// Whether it is an account id.
pub(in crate::kms) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether it is a bare key id: a UUID, or `mrk-` and 32 hex digits.
pub(in crate::kms) fn is_key_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef";

    #[test]
    fn an_arn_gives_the_key_and_its_region_and_back() {
        let (key, region) = AwsKey::from_arn(ARN).unwrap();
        assert_eq!(key.to_string(), "aws:aws:111122223333:mrk-0123456789abcdef0123456789abcdef");
        assert_eq!((key.arn(&region).as_str(), key.is_multi_region()), (ARN, true));
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn nothing_else_is_a_key() {
        for text in [
            "arn:aws:kms:eu-central-1:111122223333:alias/canton",
            "arn:aws:kms:evil.example/:111122223333:key/mrk-0123456789abcdef0123456789abcdef",
            "arn:aws:kms:eu-central-1:11112222333:key/mrk-0123456789abcdef0123456789abcdef",
            "arn:aws:s3:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef",
            "arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef:x",
            "arn:aws:kms:eu-central-1:111122223333:key/short",
            "",
        ] {
            assert_eq!(AwsKey::from_arn(text), Err(NotAKeyArn), "{text}");
        }
    }
}
