//! The wrapper keys of the vault, and whether a call concerns one of them.

use std::collections::BTreeSet;

/// The text names no wrapper key of a KMS with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither the identity nor the ARN of a wrapper key: write aws:PARTITION:ACCOUNT:KEY, the ARN, or openbao:CLUSTER:MOUNT:NAME:SECOND"
)]
pub struct NotAWrapperKey(String);

/// Wrapper keys of a vault in KMS that have a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrapperKeySet {
    /// Account and id of keys of AWS, which are the same in each region.
    aws: BTreeSet<(String, String)>,
    /// Mount (with its namespaces) and name of keys of OpenBao.
    openbao: BTreeSet<(String, String)>,
    /// Whether there are keys in a KMS whose log is not read here, although its calls have ids.
    unread: bool,
}

impl WrapperKeySet {
    /// Adds a wrapper key by its identity, as entries and `wrapper list` have it, or by an ARN. A key of a provider whose
    /// log is not read here is skipped.
    ///
    /// # Errors
    /// [`NotAWrapperKey`].
    pub fn add(&mut self, text: &str) -> Result<(), NotAWrapperKey> {
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["aws", _, account, id] => self.aws.insert(((*account).to_owned(), (*id).to_owned())),
            ["arn", _, "kms", _, account, resource] if resource.starts_with("key/") => {
                self.aws.insert(((*account).to_owned(), resource.trim_start_matches("key/").to_owned()))
            }
            ["openbao", _, mount, name, _] => self.openbao.insert(((*mount).to_owned(), (*name).to_owned())),
            ["local" | "pkcs11", ..] => false,
            ["gcp" | "azure", ..] => {
                self.unread = true;
                false
            }
            _ => return Err(NotAWrapperKey(text.to_owned())),
        };
        Ok(())
    }

    /// Whether there are keys of AWS.
    pub fn has_aws(&self) -> bool {
        !self.aws.is_empty()
    }

    /// Whether there are keys of OpenBao.
    pub fn has_openbao(&self) -> bool {
        !self.openbao.is_empty()
    }

    /// Whether there are keys of Google or Azure, whose logs are not read here.
    pub fn has_unread(&self) -> bool {
        self.unread
    }

    /// The number of wrapper keys.
    pub fn len(&self) -> usize {
        self.aws.len() + self.openbao.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an ARN or a key id of AWS is one of them.
    pub(super) fn is_aws(&self, key: &str) -> bool {
        match key.split(':').collect::<Vec<_>>().as_slice() {
            [id] => self.aws.iter().any(|(_, known)| known == id),
            ["arn", _, "kms", _, account, resource] => resource
                .strip_prefix("key/")
                .is_some_and(|id| self.aws.iter().any(|(known_account, known)| known_account == account && known == id)),
            _ => false,
        }
    }

    /// Whether a path of OpenBao concerns one of them: its name as `<mount>/keys/<name>`, and the operation.
    pub(super) fn openbao_key<'a>(&self, path: &'a str) -> Option<(String, &'a str)> {
        self.openbao.iter().find_map(|(mount, name)| {
            let (operation, rest) = path.strip_prefix(mount.as_str())?.strip_prefix('/')?.split_once('/')?;
            // `export/encryption-key/<name>`, `datakey/plaintext/<name>`; `keys/<name>/rotate`.
            rest.split('/').any(|part| part == name).then(|| (format!("{mount}/keys/{name}"), operation))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_aws_is_the_same_in_each_region_and_another_in_each_account() {
        let mut set = WrapperKeySet::default();
        set.add("aws:aws:111122223333:mrk-1").unwrap();
        set.add("arn:aws:kms:eu-west-1:111122223333:key/abc").unwrap();
        set.add("local:0011223344556677").unwrap();
        for (key, is) in [
            ("arn:aws:kms:us-east-1:111122223333:key/mrk-1", true),
            ("arn:aws:kms:us-east-1:444455556666:key/mrk-1", false),
            ("abc", true),
            ("arn:aws:kms:us-east-1:111122223333:alias/abc", false),
            ("alias/abc", false),
            ("", false),
        ] {
            assert_eq!(set.is_aws(key), is, "{key}");
        }
        set.add("pkcs11:e8c1b3ed4d133978:01").unwrap();
        assert_eq!((set.len(), set.has_aws(), set.has_openbao(), set.has_unread()), (2, true, false, false));
        set.add("gcp:canton-prod:global:canton:vault").unwrap();
        assert_eq!((set.len(), set.has_unread()), (2, true));
        assert!(set.add("alias/abc").is_err() && set.add("").is_err());
    }

    #[test]
    fn a_path_of_openbao_names_mount_operation_and_key() {
        let mut set = WrapperKeySet::default();
        set.add("openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:team/transit:canton:1795319440").unwrap();
        let key = |path| set.openbao_key(path).map(|(_, operation)| operation);
        assert_eq!(key("team/transit/decrypt/canton"), Some("decrypt"));
        assert_eq!(key("team/transit/keys/canton/rotate"), Some("keys"));
        assert_eq!(key("team/transit/export/encryption-key/canton"), Some("export"));
        assert_eq!(key("team/transit/export/encryption-key/canton/1"), Some("export"));
        for other in ["team/transit/decrypt/canton2", "transit/decrypt/canton", "team/transit/keys", "auth/token/renew-self", ""] {
            assert_eq!(key(other), None, "{other}");
        }
    }
}
