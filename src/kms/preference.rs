//! Which wrapper keys are opened through first, by the patterns of `[wrapper] prefer`.

use crate::domain::{ProviderKind, WrapperKey};

use super::{allowlist::Allowlist, aws_key::AwsKey};

/// The patterns of `[wrapper] prefer`, the most preferred first.
pub(super) struct Preference(Vec<Allowlist>);

impl Preference {
    /// Reads patterns; the error says which one could never match.
    pub(super) fn parse(patterns: &[String]) -> Result<Self, String> {
        let read = |pattern: &String| Allowlist::parse(std::slice::from_ref(pattern)).map_err(|what| what.replace("allowed", "prefer"));
        patterns.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The place of a wrapper key: 0 for what the first pattern matches, the number of patterns for what none matches.
    pub(super) fn place(&self, key: &WrapperKey) -> usize {
        self.0.iter().position(|pattern| matches(pattern, key)).unwrap_or(self.0.len())
    }
}

fn matches(pattern: &Allowlist, key: &WrapperKey) -> bool {
    match key.provider {
        ProviderKind::Local => pattern.local(&key.identity, &key.reference),
        ProviderKind::OpenbaoTransit => pattern.openbao(&key.identity) || pattern.openbao(&key.reference),
        ProviderKind::AwsKms => {
            let Ok(aws) = key.identity.parse::<AwsKey>() else { return false };
            let home = AwsKey::from_arn(&key.reference).map(|(_, region)| region).ok();
            key.regions.iter().chain(&home).any(|region| pattern.aws(&aws, region))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Timestamp, WrapperKeyId, WrapperState};

    fn key(provider: ProviderKind, identity: &str, reference: &str, regions: &[&str]) -> WrapperKey {
        WrapperKey {
            id: WrapperKeyId::from_random([1; 6]),
            provider,
            identity: identity.into(),
            reference: reference.into(),
            regions: regions.iter().map(|region| (*region).into()).collect(),
            state: WrapperState::Active,
            canary: Vec::new(),
            created_at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn the_first_pattern_that_matches_gives_the_place() {
        let patterns = ["arn:aws:kms:eu-west-1:*:key/*", "111122223333", "/etc/keyvault/*.key", "https://bao:8200/transit/keys/canton"];
        let patterns = patterns.map(String::from);
        let preferred = Preference::parse(&patterns).unwrap();
        let (id, uuid) = ("mrk-0123456789abcdef0123456789abcdef", "00000000-0000-0000-0000-000000000000");
        let aws = |account: &str, id: &str, region: &str, regions: &[&str]| {
            key(ProviderKind::AwsKms, &format!("aws:aws:{account}:{id}"), &format!("arn:aws:kms:{region}:{account}:key/{id}"), regions)
        };
        let transit = |url: &str| key(ProviderKind::OpenbaoTransit, "openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:transit:k:1", url, &[]);
        for (key, place) in [
            (aws("111122223333", id, "eu-central-1", &["eu-central-1", "eu-west-1"]), 0),
            (aws("111122223333", uuid, "eu-central-1", &[]), 1),
            (aws("444455556666", uuid, "eu-west-1", &[]), 0),
            (aws("444455556666", uuid, "eu-central-1", &[]), 4),
            (key(ProviderKind::Local, "local:0011223344556677", "/etc/keyvault/wrapper.key", &[]), 2),
            (key(ProviderKind::Local, "local:0011223344556677", "/tmp/wrapper.key", &[]), 4),
            (transit("https://bao:8200/transit/keys/canton"), 3),
            (transit("https://bao:8200/transit/keys/other"), 4),
        ] {
            assert_eq!(preferred.place(&key), place, "{key:?}");
        }
        let wrong = Preference::parse(&["alias/canton".to_owned()]).err().unwrap();
        assert!(wrong.contains("[wrapper] prefer"), "{wrong}");
    }
}
