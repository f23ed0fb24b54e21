//! The statements of a key policy, with what an assessment needs of them: principals, actions, conditions.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A key policy.
#[derive(Debug, Deserialize)]
pub(super) struct Policy {
    #[serde(rename = "Statement")]
    pub(super) statements: OneOrMany<Statement>,
}

/// One statement.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Statement {
    #[serde(default)]
    sid: Option<String>,
    pub(super) effect: Effect,
    #[serde(default)]
    principal: Option<PrincipalElement>,
    #[serde(default)]
    not_principal: Option<PrincipalElement>,
    #[serde(default)]
    action: Option<OneOrMany<String>>,
    #[serde(default)]
    not_action: Option<OneOrMany<String>>,
    /// By operator, then by key.
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMany<ConditionValue>>>,
}

/// Whether a statement permits or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// A value, or a list of values.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// `"*"`, or principals by type.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PrincipalElement {
    Text(String),
    ByType(BTreeMap<String, OneOrMany<String>>),
}

/// A condition value: JSON permits more than texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ConditionValue {
    Text(String),
    Flag(bool),
    Number(serde_json::Number),
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principals {
    /// Everybody.
    Everybody,
    /// Everybody but these.
    AllBut(Vec<String>),
    /// These: ARNs, account ids, services.
    These(Vec<String>),
}

/// One condition of a statement. All of them must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// The operator in lower case: `stringequals`.
    pub(super) operator: String,
    /// The key in lower case: `kms:encryptioncontext:vault`.
    pub(super) key: String,
    /// One of them must match.
    pub(super) values: Vec<String>,
}

impl<T> OneOrMany<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Statement {
    /// How a line names it: its `Sid`, or its place from 1.
    pub(super) fn name(&self, place: usize) -> String {
        self.sid.as_ref().filter(|sid| !sid.is_empty()).map_or_else(|| format!("number {place}"), Clone::clone)
    }

    /// Whom it is about.
    pub(super) fn principals(&self) -> Principals {
        match (&self.principal, &self.not_principal) {
            (_, Some(element)) => Principals::AllBut(element.names()),
            (Some(element), None) if element.names().iter().any(|name| name == "*") => Principals::Everybody,
            (Some(element), None) => Principals::These(element.names()),
            // A key policy without a principal is refused by KMS.
            (None, None) => Principals::These(Vec::new()),
        }
    }

    /// Whether it covers an action of KMS, such as `kms:Decrypt`.
    pub(super) fn covers(&self, action: &str) -> bool {
        let one_of = |patterns: &OneOrMany<String>| patterns.as_slice().iter().any(|pattern| matches(pattern, action));
        match (&self.action, &self.not_action) {
            (Some(patterns), _) => one_of(patterns),
            (None, Some(patterns)) => !one_of(patterns),
            (None, None) => false,
        }
    }

    /// Whether it covers every action of KMS by one pattern, or all but some.
    pub(super) fn covers_all_actions(&self) -> bool {
        let all = |patterns: &OneOrMany<String>| {
            patterns.as_slice().iter().any(|pattern| pattern == "*" || pattern.eq_ignore_ascii_case("kms:*"))
        };
        self.not_action.is_some() || self.action.as_ref().is_some_and(all)
    }

    /// Its conditions.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let of = |(operator, keys): (&String, &BTreeMap<String, OneOrMany<ConditionValue>>)| {
            let operator = operator.to_ascii_lowercase();
            let condition = |(key, values): (&String, &OneOrMany<ConditionValue>)| Condition {
                operator: operator.clone(),
                key: key.to_ascii_lowercase(),
                values: values.as_slice().iter().map(ConditionValue::text).collect(),
            };
            keys.iter().map(condition).collect::<Vec<_>>()
        };
        self.condition.iter().flat_map(of).collect()
    }
}

impl PrincipalElement {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::ByType(types) => types.values().flat_map(|names| names.as_slice().to_vec()).collect(),
        }
    }
}

impl ConditionValue {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Whether an action matches a pattern of IAM: `*` for any number of characters, `?` for one, without regard to case.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    fn from(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skipped| text.get(skipped..).is_some_and(|left| from(rest, left))),
            Some((b'?', rest)) => text.split_first().is_some_and(|(_, left)| from(rest, left)),
            Some((byte, rest)) => text.split_first().is_some_and(|(first, left)| first.eq_ignore_ascii_case(byte) && from(rest, left)),
        }
    }
    // A run of stars is one. A policy has at most 32 KiB, and an action a few stars.
    pattern.matches('*').count() <= MAX_STARS && from(pattern.as_bytes(), text.as_bytes())
}

/// More would take too long to match. KMS has no such action.
const MAX_STARS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_match_as_in_iam() {
        for (pattern, expected) in [
            ("kms:Decrypt", true),
            ("KMS:decrypt", true),
            ("kms:*", true),
            ("*", true),
            ("kms:D*", true),
            ("kms:?ecrypt", true),
            ("kms:*crypt*", true),
            ("kms:Encrypt", false),
            ("kms:Decrypt?", false),
            ("s3:*", false),
        ] {
            assert_eq!(matches(pattern, "kms:Decrypt"), expected, "{pattern}");
        }
    }

    #[test]
    fn a_statement_is_read_in_each_of_its_forms() {
        let read = |text: &str| serde_json::from_str::<Statement>(text).unwrap();
        let one = read(r#"{ "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt" }"#);
        assert_eq!((one.principals(), one.name(3).as_str()), (Principals::Everybody, "number 3"));
        assert!(one.covers("kms:Decrypt") && !one.covers("kms:Encrypt") && !one.covers_all_actions());
        let many =
            read(r#"{ "Sid": "S", "Effect": "Deny", "Principal": { "AWS": ["a", "b"], "Service": "c" }, "NotAction": ["kms:Decrypt"] }"#);
        assert_eq!((many.principals(), many.name(1).as_str()), (Principals::These(vec!["a".into(), "b".into(), "c".into()]), "S"));
        assert!(!many.covers("kms:Decrypt") && many.covers("kms:Encrypt") && many.covers_all_actions());
        let but = read(
            r#"{ "Effect": "Allow", "NotPrincipal": { "AWS": "a" }, "Action": "kms:*",
            "Condition": { "Bool": { "kms:GrantIsForAWSResource": true }, "StringEquals": { "kms:EncryptionContext:vault": ["x", "y"] } } }"#,
        );
        assert_eq!(but.principals(), Principals::AllBut(vec!["a".into()]));
        let conditions = but.conditions();
        assert_eq!(conditions[0].values, ["true"]);
        assert_eq!((conditions[1].key.as_str(), conditions[1].values.len()), ("kms:encryptioncontext:vault", 2));
    }
}
