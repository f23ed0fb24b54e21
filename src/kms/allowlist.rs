//! Which wrapper keys the configuration allows. A pure decision, denied unless a pattern matches.

use super::aws_kms::key_arn::{AwsKey, is_account};

/// The patterns of `[wrapper] allowed`.
#[derive(Debug, Clone)]
pub(super) struct Allowlist(Vec<Pattern>);

#[derive(Debug, Clone)]
enum Pattern {
    /// Every key of an AWS account.
    Account(String),
    /// An identity, an ARN, a URL or a path, with `*` for any run of characters within one part.
    Text(String),
}

impl Allowlist {
    /// Parses patterns. The error names the pattern that can never match.
    pub(super) fn parse(patterns: &[String]) -> Result<Self, String> {
        patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a key of AWS may be used in `region`: by account, identity, or ARN in that region.
    pub(super) fn aws(&self, key: &AwsKey, region: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Account(account) => account == key.account(),
            Pattern::Text(text) => matches(text, &key.to_string()) || matches(text, &key.arn(region)),
        })
    }

    /// Whether any key in the file at `path` may be used.
    pub(super) fn local_path(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if matches(text, path)))
    }

    /// Whether some file keys are allowed at any path.
    pub(super) fn names_local_identities(&self) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if text.starts_with("local:")))
    }

    /// Whether the key with `identity` in the file at `path` may be used: by identity or path.
    pub(super) fn local(&self, identity: &str, path: &str) -> bool {
        self.local_path(path) || self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if matches(text, identity)))
    }

    /// Whether a transit key may be used: by this URL on a server, or by its identity.
    pub(super) fn openbao(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if matches(text, name)))
    }

    /// Whether some transit keys are allowed by identity.
    pub(super) fn names_openbao_identities(&self) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if text.starts_with("openbao:")))
    }

    /// Whether a key in a PKCS#11 token may be used: by its identity.
    pub(super) fn pkcs11(&self, identity: &str) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if matches(text, identity)))
    }

    /// Whether some keys in PKCS#11 tokens are allowed.
    pub(super) fn names_pkcs11_identities(&self) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if text.starts_with("pkcs11:")))
    }

    /// Whether the key with `identity` may be used, of a provider whose keys are allowed by identity only.
    pub(super) fn identity(&self, identity: &str) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Text(text) if matches(text, identity)))
    }

    /// Whether a pattern could match a key whose id is not known yet.
    pub(super) fn a_new_aws_key(&self) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Account(_) => true,
            Pattern::Text(text) => (text.starts_with("arn:") || text.starts_with("aws:")) && text.ends_with('*'),
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if is_account(text) {
            return Ok(Self::Account(text.to_owned()));
        }
        let parts = text.split(':').count();
        let good = match text.split_once(':') {
            Some(("arn", _)) => parts == 6,
            Some(("aws", _)) => parts == 4,
            Some(("local", _)) => parts == 2,
            Some(("openbao" | "gcp", _)) => parts == 5,
            // Not the PKCS#11 URI, which has 2: it names a key by labels.
            Some(("pkcs11" | "azure", _)) => parts == 3,
            // https://host:port/<mount>/keys/<name>
            Some(("https" | "http", rest)) => rest
                .strip_prefix("//")
                .and_then(|rest| rest.rsplit_once('/')?.0.strip_suffix("/keys"))
                .is_some_and(|rest| rest.contains('/')),
            _ => text.starts_with('/') && !text.split('/').any(|part| part == ".."),
        };
        if good {
            Ok(Self::Text(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} under [wrapper] allowed can match nothing: it is neither an account id, a key ARN (arn:…, 6 parts), \
                 the URL of a transit key (https://host:port/<mount>/keys/<name>), an identity (aws:…, 4 parts; openbao:…, 5 parts; pkcs11:…, 3 parts; gcp:…, 5 parts; \
                 azure:…, 3 parts; local:…), \
                 nor an absolute path"
            ))
        }
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any number of characters except `:` and `/`.
fn matches(pattern: &str, text: &str) -> bool {
    let is_separator = |c: char| c == ':' || c == '/';
    let separators = |text: &str| text.chars().filter(|c| is_separator(*c)).collect::<String>();
    separators(pattern) == separators(text)
        && pattern.split(is_separator).zip(text.split(is_separator)).all(|(pattern, part)| part_matches(pattern, part))
}

/// Whether a part without separators matches: greedy from the left, with the first and last piece anchored.
fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == part };
    let Some(mut part) = part.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, after)) = part.split_once(piece) else { return false };
        part = after;
    }
    part.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MRK: &str = "aws:aws:111122223333:mrk-0123456789abcdef0123456789abcdef";

    fn allowed(pattern: &str) -> Allowlist {
        Allowlist::parse(&[pattern.to_owned()]).unwrap()
    }

    #[test]
    fn an_aws_key_is_allowed_by_account_arn_or_identity() {
        let key: AwsKey = MRK.parse().unwrap();
        for (pattern, expected) in [
            ("111122223333", true),
            ("111122223334", false),
            ("arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef", true),
            ("arn:aws:kms:eu-west-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef", false),
            ("arn:aws:kms:*:111122223333:key/*", true),
            ("arn:aws:kms:eu-*:*:key/mrk-*", true),
            ("arn:aws:kms:eu-*:*:key/mrk-*9", false),
            ("arn:aws-cn:kms:*:111122223333:key/*", false),
            ("arn:aws:kms:*:444455556666:key/*", false),
            ("arn:aws:kms:*:*:*", false), // `*` does not cross the `/` of key/…
            ("aws:aws:*:*", true),
            ("aws:aws-us-gov:*:*", false),
            (MRK, true),
            ("/aws:aws:111122223333", false),
        ] {
            assert_eq!(allowed(pattern).aws(&key, "eu-central-1"), expected, "{pattern}");
        }
    }

    #[test]
    fn a_file_is_allowed_by_path_or_identity() {
        for (pattern, expected) in [
            ("/etc/keyvault/wrapper.key", true),
            ("/etc/keyvault/*.key", true),
            ("/etc/*/wrapper.key", true),
            ("/etc/*", false),
            ("/etc/keyvault/*.pem", false),
            ("local:0011223344556677", true),
            ("local:*", true),
            ("local:ff*", false),
            ("111122223333", false),
        ] {
            assert_eq!(allowed(pattern).local("local:0011223344556677", "/etc/keyvault/wrapper.key"), expected, "{pattern}");
        }
    }

    #[test]
    fn a_transit_key_is_allowed_by_url_or_identity() {
        let identity = "openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:team/transit:canton:1795319440";
        for (pattern, by_url, by_identity) in [
            ("https://bao:8200/team/transit/keys/canton", true, false),
            ("https://bao:8200/team/transit/keys/*", true, false),
            ("https://*:8200/*/transit/keys/canton", true, false),
            ("https://bao:8200/*/keys/canton", false, false), // `*` does not cross the `/` of team/transit
            ("http://bao:8200/team/transit/keys/canton", false, false),
            ("https://bao/team/transit/keys/canton", false, false),
            (identity, false, true),
            ("openbao:*:team/transit:*:*", false, true),
            ("openbao:*:transit:*:*", false, false),
            ("openbao:*:*/*:canton:1795319441", false, false),
        ] {
            let allowed = allowed(pattern);
            let found = (allowed.openbao("https://bao:8200/team/transit/keys/canton"), allowed.openbao(identity));
            assert_eq!(found, (by_url, by_identity), "{pattern}");
        }
    }

    #[test]
    fn a_key_in_a_token_is_allowed_by_identity() {
        for (pattern, expected) in [
            ("pkcs11:e8c1b3ed4d133978:01ab", true),
            ("pkcs11:e8c1b3ed4d133978:*", true),
            ("pkcs11:*:01ab", true),
            ("pkcs11:e8c1b3ed4d133978:01a", false),
            ("pkcs11:e8c1b3ed4d133979:*", false),
            ("local:*", false),
        ] {
            assert_eq!(allowed(pattern).pkcs11("pkcs11:e8c1b3ed4d133978:01ab"), expected, "{pattern}");
        }
    }

    #[test]
    fn a_key_in_a_cloud_is_allowed_by_identity() {
        for (pattern, expected) in [
            ("gcp:canton-prod:europe-west3:canton:vault-1", true),
            ("gcp:canton-prod:*:*:*", true),
            ("gcp:canton-*:europe-west3:canton:vault-*", true),
            ("gcp:canton-test:*:*:*", false),
            ("gcp:canton-prod:europe-west3:canton:vault", false),
            ("azure:*:*", false),
        ] {
            assert_eq!(allowed(pattern).identity("gcp:canton-prod:europe-west3:canton:vault-1"), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused_and_no_pattern_allows_nothing() {
        for pattern in [
            "",
            "*",
            "alias/canton",
            "relative/path",
            "/a/../b",
            "arn:aws:kms:*",
            "1111",
            "https://kms.example",
            "https://bao/keys/x",
            "https:/bao/transit/keys/x",
            "openbao:*:*:*",
            "pkcs11:token=canton;id=%01",
            "gcp:canton-prod:global:canton",
            "projects/canton-prod/locations/global/keyRings/canton/cryptoKeys/vault",
            "azure:canton.vault.azure.net",
        ] {
            assert!(Allowlist::parse(&[pattern.to_owned()]).is_err(), "{pattern}");
        }
        assert!(!Allowlist::parse(&[]).unwrap().aws(&MRK.parse().unwrap(), "eu-central-1"));
    }

    #[test]
    fn stars_match_within_a_part() {
        for (pattern, text, expected) in [
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false), // the ends may not overlap
            ("*", "", true),
            ("**", "x", true),
            ("a*", "b", false),
        ] {
            assert_eq!(part_matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
