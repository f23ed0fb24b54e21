//! The assessment of a key policy: who may decrypt, whether the encryption context of the vault is demanded, what is permitted at once, and whether
//! administrators and users are separate.

use std::collections::BTreeSet;

use super::statement::{Condition, Effect, Policy, Principals, Statement};
use crate::domain::{PostureLine, PostureSubject};

/// What a policy is assessed for.
#[derive(Debug, Clone, Copy)]
pub(in crate::kms::aws_kms) struct Subject<'a> {
    /// The account of the key.
    pub(in crate::kms::aws_kms) account: &'a str,
    /// The id of the vault, which is in the encryption context of every call.
    pub(in crate::kms::aws_kms) vault: &'a str,
}

/// Assesses a key policy, as `GetKeyPolicy` returns it.
pub(in crate::kms::aws_kms) fn assess(policy: &str, subject: Subject<'_>) -> Vec<PostureLine> {
    let Ok(policy) = serde_json::from_str::<Policy>(policy) else {
        return vec![PostureLine::warning(
            PostureSubject::Policy,
            "the key policy has a form that is not known here, so that it is not assessed",
            "Compare it with deploy/aws/wrapper-key-policy.json by hand.",
        )];
    };
    let permissions = Permissions::of(&policy);
    vec![
        decryption(&permissions, subject),
        context(&permissions, subject),
        wildcards(&policy),
        separation(&permissions),
        grants(&permissions, subject),
    ]
}

/// What the statements of a policy come to.
struct Permissions<'a> {
    statements: &'a [Statement],
}

/// A principal that a statement permits something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Permitted {
    Everybody,
    AllBut(Vec<String>),
    Name(String),
}

impl<'a> Permissions<'a> {
    fn of(policy: &'a Policy) -> Self {
        Self { statements: policy.statements.as_slice() }
    }

    /// The statements that permit one of these actions.
    fn permitting(&self, actions: &'static [&'static str]) -> impl Iterator<Item = (usize, &'a Statement)> {
        let numbered = (1..).zip(self.statements);
        numbered.filter(move |(_, statement)| statement.effect == Effect::Allow && actions.iter().any(|action| statement.covers(action)))
    }

    /// The denials for everybody of all these actions.
    fn denying(&self, actions: &'static [&'static str]) -> impl Iterator<Item = &'a Statement> {
        let denials = self.statements.iter().filter(|statement| statement.effect == Effect::Deny);
        denials
            .filter(|statement| statement.principals() == Principals::Everybody)
            .filter(move |statement| actions.iter().all(|action| statement.covers(action)))
    }

    /// The principals to which a denial leaves these actions. `None`: no denial names them.
    fn exempt(&self, actions: &'static [&'static str]) -> Option<Vec<String>> {
        let exempt = |statement: &Statement| match statement.conditions().as_slice() {
            [Condition { operator, key, values }]
                if key == "aws:principalarn"
                    && matches!(operator.as_str(), "arnnotequals" | "arnnotlike" | "stringnotequals" | "stringnotlike") =>
            {
                Some(values.clone())
            }
            _ => None,
        };
        self.denying(actions).find_map(exempt)
    }

    /// Whom the policy permits one of these actions, if no denial takes it away.
    fn permitted(&self, actions: &'static [&'static str]) -> BTreeSet<Permitted> {
        let exempt = self.exempt(actions);
        let names = self.permitting(actions).flat_map(|(_, statement)| match statement.principals() {
            // A condition on the caller makes a short list of everybody.
            Principals::Everybody => match callers(statement) {
                Some(callers) => callers.into_iter().map(Permitted::Name).collect(),
                None => vec![Permitted::Everybody],
            },
            Principals::AllBut(names) => vec![Permitted::AllBut(names)],
            Principals::These(names) => names.into_iter().map(Permitted::Name).collect(),
        });
        let mut permitted: BTreeSet<Permitted> = names.collect();
        if let Some(exempt) = exempt {
            // Everybody else is denied. What remains of a permission of many are the exempt ones.
            let many = permitted.iter().any(|one| !matches!(one, Permitted::Name(name) if !is_account(name)));
            permitted.retain(|one| matches!(one, Permitted::Name(name) if exempt.contains(name)));
            if many {
                permitted.extend(exempt.into_iter().map(Permitted::Name));
            }
        }
        permitted
    }
}

/// The principals to which a condition limits a statement about everybody.
fn callers(statement: &Statement) -> Option<Vec<String>> {
    let limits = |condition: &&Condition| {
        let equal = matches!(condition.operator.as_str(), "stringequals" | "arnequals");
        equal && matches!(condition.key.as_str(), "aws:principalarn" | "kms:calleraccount" | "aws:principalaccount")
    };
    statement.conditions().iter().find(limits).map(|condition| condition.values.clone())
}

fn decryption(permissions: &Permissions<'_>, Subject { account, .. }: Subject<'_>) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::PolicyDecrypt;
    const NARROW: &str = "Permit Decrypt and ReEncryptFrom to the role of the vault alone, and deny them to all others, as in \
                          deploy/aws/wrapper-key-policy.json.";
    let permitted = permissions.permitted(DECRYPTION);
    let names = || names(&permitted);
    if permitted.contains(&Permitted::Everybody) {
        return PostureLine::fail(SUBJECT, "every AWS principal of every account may decrypt", NARROW);
    }
    if let Some(Permitted::AllBut(except)) = permitted.iter().find(|one| matches!(one, Permitted::AllBut(_))) {
        return PostureLine::fail(SUBJECT, format!("NotPrincipal permits everybody to decrypt but {}", except.join(", ")), NARROW);
    }
    let accounts = permitted.iter().filter_map(|one| if let Permitted::Name(name) = one { account_of(name) } else { None });
    let foreign: BTreeSet<String> = accounts.filter(|other| other != account).collect();
    if !foreign.is_empty() {
        let foreign = foreign.into_iter().collect::<Vec<_>>().join(", ");
        return PostureLine::warning(SUBJECT, format!("principals of other accounts may decrypt ({foreign}): {}", names()), NARROW);
    }
    if permitted.iter().any(|one| matches!(one, Permitted::Name(name) if is_account(name))) {
        let detail = format!("every identity policy in the account can permit Decrypt: the policy permits it to {}", names());
        return PostureLine::warning(SUBJECT, detail, NARROW);
    }
    match permitted.len() {
        0 => PostureLine::warning(
            SUBJECT,
            "the policy permits Decrypt to nobody, so that a grant or nothing permits it to the vault",
            "Permit it to the role of the vault, as in deploy/aws/wrapper-key-policy.json.",
        ),
        1 => PostureLine::ok(SUBJECT, format!("only {} may decrypt", names())),
        number => PostureLine::warning(SUBJECT, format!("{number} principals may decrypt: {}", names()), NARROW),
    }
}

fn context(permissions: &Permissions<'_>, Subject { vault, .. }: Subject<'_>) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::PolicyContext;
    let remedy = format!(
        "Permit Encrypt, Decrypt and ReEncrypt only with the condition StringEquals kms:EncryptionContext:vault {vault:?}, or deny them without it, as in \
         deploy/aws/wrapper-key-policy.json."
    );
    let by_denial = permissions.denying(DECRYPTION).find_map(|statement| match statement.conditions().as_slice() {
        [Condition { operator, key, values }] if operator == "stringnotequals" && key == VAULT_CONTEXT => Some(values.clone()),
        _ => None,
    });
    let by_permission = || {
        // Each statement that permits it must demand the context.
        let mut all = Vec::new();
        for (_, statement) in permissions.permitting(DECRYPTION) {
            let conditions = statement.conditions();
            all.extend(conditions.iter().find(|one| one.operator == "stringequals" && one.key == VAULT_CONTEXT)?.values.clone());
        }
        Some(all)
    };
    let Some(mut vaults) = by_denial.or_else(by_permission) else {
        return PostureLine::warning(SUBJECT, "the policy permits Decrypt without the encryption context of a vault", remedy);
    };
    vaults.sort();
    vaults.dedup();
    if vaults.is_empty() || !vaults.iter().any(|one| one == vault) {
        let named = if vaults.is_empty() { "of no vault".to_owned() } else { format!("of {}", vaults.join(", ")) };
        return PostureLine::fail(SUBJECT, format!("the policy permits Decrypt only with the context {named}, not of {vault}"), remedy);
    }
    match vaults.as_slice() {
        [_] => PostureLine::ok(SUBJECT, format!("Decrypt needs the encryption context of the vault {vault}")),
        all => PostureLine::warning(
            SUBJECT,
            format!("Decrypt needs the encryption context of one of several vaults: {}", all.join(", ")),
            "Give each vault a wrapper key of its own.",
        ),
    }
}

fn wildcards(policy: &Policy) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::PolicyWildcards;
    let numbered = (1..).zip(policy.statements.as_slice());
    let wide = numbered.filter(|(_, statement)| statement.effect == Effect::Allow && statement.covers_all_actions());
    let named: Vec<String> = wide.map(|(place, statement)| statement.name(place)).collect();
    if named.is_empty() {
        return PostureLine::ok(SUBJECT, "no statement permits all actions at once");
    }
    PostureLine::warning(
        SUBJECT,
        format!("these statements permit all actions at once, administration and use: {}", named.join(", ")),
        "List the actions that are needed, as in deploy/aws/wrapper-key-policy.json.",
    )
}

fn separation(permissions: &Permissions<'_>) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::PolicySeparation;
    let users = permissions.permitted(DECRYPTION);
    let administrators = permissions.permitted(ADMINISTRATION);
    let both: BTreeSet<Permitted> = users.intersection(&administrators).cloned().collect();
    if !both.is_empty() && both.iter().all(|one| matches!(one, Permitted::Name(name) if is_account(name))) {
        return PostureLine::warning(
            SUBJECT,
            format!(
                "identity policies of the account decide who administers and who uses the key: the policy permits both to {}",
                names(&both)
            ),
            "Name the roles that administer and the one that uses the key, as in deploy/aws/wrapper-key-policy.json.",
        );
    }
    if !both.is_empty() {
        return PostureLine::fail(
            SUBJECT,
            format!("{} may both decrypt and change the policy or the state of the key", names(&both)),
            "Give administration and use to two roles, as in deploy/aws/wrapper-key-policy.json.",
        );
    }
    if administrators.is_empty() {
        return PostureLine::warning(
            SUBJECT,
            "the policy permits nobody to administer the key",
            "Permit administration to a role that does not use the key. If nobody can change the policy, only AWS Support can help.",
        );
    }
    PostureLine::ok(SUBJECT, format!("administrators ({}) and users are separate", names(&administrators)))
}

fn grants(permissions: &Permissions<'_>, Subject { account, .. }: Subject<'_>) -> PostureLine {
    const SUBJECT: PostureSubject = PostureSubject::Grants;
    let may = permissions.permitted(GRANTING);
    if may.is_empty() {
        return PostureLine::ok(SUBJECT, "the policy permits nobody to create grants");
    }
    let everybody = may.iter().any(|one| !matches!(one, Permitted::Name(name) if account_of(name).is_none_or(|of| of == account)));
    let detail = format!("a grant permits Decrypt without the key policy, and these may create grants: {}", names(&may));
    let remedy = "Deny kms:CreateGrant to all, as in deploy/aws/wrapper-key-policy.json. The vault needs no grant.";
    if everybody { PostureLine::fail(SUBJECT, detail, remedy) } else { PostureLine::warning(SUBJECT, detail, remedy) }
}

fn names(permitted: &BTreeSet<Permitted>) -> String {
    let name = |one: &Permitted| match one {
        Permitted::Everybody => "everybody".to_owned(),
        Permitted::AllBut(names) => format!("everybody but {}", names.join(", ")),
        Permitted::Name(name) => name.clone(),
    };
    let mut all: Vec<String> = permitted.iter().take(MAX_NAMES).map(name).collect();
    if permitted.len() > MAX_NAMES {
        all.push(format!("and {} more", permitted.len() - MAX_NAMES));
    }
    all.join(", ")
}

/// Whether a principal is a whole account: its id, or its root.
fn is_account(name: &str) -> bool {
    super::super::key_arn::is_account(name) || (name.starts_with("arn:") && name.ends_with(":root"))
}

/// The account of a principal.
fn account_of(name: &str) -> Option<String> {
    let account = if name.starts_with("arn:") { name.split(':').nth(4)? } else { name };
    super::super::key_arn::is_account(account).then(|| account.to_owned())
}

/// What opens a wrap. A principal that may re-encrypt it under a key of its own opens it there.
const DECRYPTION: &[&str] = &["kms:Decrypt", "kms:ReEncryptFrom"];
/// What changes who may use the key, or ends it.
const ADMINISTRATION: &[&str] = &["kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey"];
const GRANTING: &[&str] = &["kms:CreateGrant"];
/// The condition key in lower case. The name of the attribute is a published contract (deploy/aws).
const VAULT_CONTEXT: &str = "kms:encryptioncontext:vault";
/// Names in one line.
const MAX_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::PostureStatus;

    const VAULT: &str = "arn:aws:iam::111122223333:role/canton-keyvault";
    const ADMINISTRATORS: &str = "arn:aws:iam::111122223333:role/kms-administrators";
    const ROOT: &str = "arn:aws:iam::111122223333:root";

    fn lines(policy: &str) -> Vec<PostureLine> {
        assess(policy, Subject { account: "111122223333", vault: "production" })
    }

    fn line(statements: &[Value], subject: PostureSubject) -> PostureLine {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        lines(&policy).into_iter().find(|line| line.subject == subject).unwrap()
    }

    fn allow(principal: impl Into<Value>, actions: &[&str]) -> Value {
        json!({ "Effect": "Allow", "Principal": { "AWS": principal.into() }, "Action": actions, "Resource": "*" })
    }

    fn with(mut statement: Value, operator: &str, key: &str, value: impl Into<Value>) -> Value {
        statement["Condition"][operator][key] = value.into();
        statement
    }

    fn deny(actions: &[&str]) -> Value {
        json!({ "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*" })
    }

    /// The published policy is what the assessment recommends.
    #[test]
    fn the_published_policy_has_no_warning() {
        let published = lines(include_str!("../../../../deploy/aws/wrapper-key-policy.json"));
        assert!(published.iter().all(|line| line.status == PostureStatus::Ok && line.remedy.is_none()), "{published:#?}");
        assert_eq!(published.len(), 5);
    }

    #[test]
    fn who_may_decrypt() {
        use PostureStatus::{Fail, Ok, Warning};
        let decrypt = &["kms:Decrypt"][..];
        let others = |operator, value: Value| with(deny(&["kms:Decrypt", "kms:ReEncrypt*"]), operator, "aws:PrincipalArn", value);
        let everybody = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*" });
        let but = json!({ "Effect": "Allow", "NotPrincipal": { "AWS": VAULT }, "Action": "kms:Decrypt", "Resource": "*" });
        for (statements, status, says) in [
            (vec![allow(VAULT, decrypt)], Ok, VAULT),
            (vec![allow(json!([VAULT]), &["kms:De*"])], Ok, VAULT),
            (vec![allow(json!([VAULT, ADMINISTRATORS]), decrypt)], Warning, "2 principals"),
            (vec![allow(VAULT, decrypt), allow(ADMINISTRATORS, &["kms:ReEncryptFrom"])], Warning, "2 principals"),
            (vec![allow("*", decrypt)], Fail, "every AWS principal"),
            (vec![everybody.clone()], Fail, "every AWS principal"),
            (vec![with(everybody.clone(), "StringEquals", "aws:PrincipalArn", VAULT)], Ok, VAULT),
            (vec![with(everybody.clone(), "StringEquals", "kms:CallerAccount", "111122223333")], Warning, "every identity policy"),
            (vec![with(everybody.clone(), "StringLike", "aws:PrincipalArn", "*")], Fail, "every AWS principal"),
            (vec![with(everybody.clone(), "StringEquals", "kms:ViaService", "s3.amazonaws.com")], Fail, "every AWS principal"),
            (vec![but], Fail, "NotPrincipal"),
            (vec![allow(ROOT, &["kms:*"])], Warning, "every identity policy"),
            (vec![allow("111122223333", &["*"])], Warning, "every identity policy"),
            (vec![allow("arn:aws:iam::444455556666:role/x", decrypt)], Warning, "other accounts may decrypt (444455556666)"),
            (vec![allow("arn:aws:iam::444455556666:root", decrypt)], Warning, "other accounts"),
            (vec![allow(VAULT, &["kms:Encrypt"])], Warning, "nobody"),
            // A denial to all others narrows each of them.
            (vec![allow(ROOT, &["kms:*"]), others("ArnNotEquals", VAULT.into())], Ok, VAULT),
            (vec![everybody.clone(), others("StringNotEquals", json!([VAULT]))], Ok, VAULT),
            (vec![allow(json!([VAULT, ADMINISTRATORS]), decrypt), others("ArnNotEquals", VAULT.into())], Ok, VAULT),
            (vec![everybody.clone(), others("ArnNotEquals", json!([VAULT, ADMINISTRATORS]))], Warning, "2 principals"),
            // A denial of Decrypt alone, or with another condition, narrows nothing.
            (
                vec![allow(ROOT, &["kms:*"]), with(deny(decrypt), "ArnNotEquals", "aws:PrincipalArn", VAULT)],
                Warning,
                "every identity policy",
            ),
            (
                vec![allow(ROOT, &["kms:*"]), with(others("ArnNotEquals", VAULT.into()), "Bool", "aws:SecureTransport", "false")],
                Warning,
                "every identity",
            ),
        ] {
            let found = line(&statements, PostureSubject::PolicyDecrypt);
            assert!(found.status == status && found.detail.contains(says), "{statements:?}: {found:?}");
            assert_eq!(found.remedy.is_none(), status == Ok, "{found:?}");
        }
    }

    #[test]
    fn whether_the_context_of_the_vault_is_demanded() {
        use PostureStatus::{Fail, Ok, Warning};
        const KEY: &str = "kms:EncryptionContext:vault";
        let decrypt = || allow(VAULT, &["kms:Decrypt"]);
        let denial = |operator, value: Value| with(deny(&["kms:Decrypt", "kms:ReEncrypt*"]), operator, KEY, value);
        for (statements, status, says) in [
            (vec![with(decrypt(), "StringEquals", KEY, "production")], Ok, "production"),
            (vec![with(decrypt(), "stringequals", "KMS:encryptioncontext:vault", json!(["production"]))], Ok, "production"),
            (vec![decrypt()], Warning, "without the encryption context"),
            (
                vec![with(decrypt(), "StringEquals", "kms:EncryptionContext:node", "participant1")],
                Warning,
                "without the encryption context",
            ),
            (vec![with(decrypt(), "StringLike", KEY, "*")], Warning, "without the encryption context"),
            (vec![with(decrypt(), "StringEqualsIfExists", KEY, "production")], Warning, "without the encryption context"),
            (vec![with(decrypt(), "ForAllValues:StringEquals", KEY, "production")], Warning, "without the encryption context"),
            (vec![with(decrypt(), "StringEquals", KEY, json!(["production", "test"]))], Warning, "several vaults"),
            (vec![with(decrypt(), "StringEquals", KEY, "test")], Fail, "of test, not of production"),
            // Each permission must demand it.
            (vec![with(decrypt(), "StringEquals", KEY, "production"), allow(ROOT, &["kms:*"])], Warning, "without the encryption context"),
            (vec![decrypt(), denial("StringNotEquals", "production".into())], Ok, "production"),
            (vec![decrypt(), denial("StringNotEqualsIfExists", "production".into())], Warning, "without the encryption context"),
            (vec![decrypt(), denial("StringNotEquals", "test".into())], Fail, "of test, not of production"),
        ] {
            let found = line(&statements, PostureSubject::PolicyContext);
            assert!(found.status == status && found.detail.contains(says), "{statements:?}: {found:?}");
        }
    }

    #[test]
    fn whether_all_actions_are_permitted_at_once() {
        use PostureStatus::{Ok, Warning};
        let not_action =
            json!({ "Sid": "N", "Effect": "Allow", "Principal": { "AWS": VAULT }, "NotAction": "kms:PutKeyPolicy", "Resource": "*" });
        for (statements, status, says) in [
            (vec![allow(VAULT, &["kms:Decrypt"])], Ok, "no statement"),
            (vec![allow(VAULT, &["kms:De*"])], Ok, "no statement"),
            (vec![allow(VAULT, &["kms:Encrypt"]), allow(ROOT, &["kms:*"])], Warning, "number 2"),
            (vec![allow(ROOT, &["*"])], Warning, "number 1"),
            (vec![not_action], Warning, ": N"),
            (vec![deny(&["kms:*"])], Ok, "no statement"),
        ] {
            let found = line(&statements, PostureSubject::PolicyWildcards);
            assert!(found.status == status && found.detail.contains(says), "{statements:?}: {found:?}");
        }
    }

    #[test]
    fn whether_administrators_and_users_are_separate() {
        use PostureStatus::{Fail, Ok, Warning};
        let use_and = |actions: &[&str]| allow(VAULT, &[&["kms:Decrypt"], actions].concat());
        for (statements, status, says) in [
            (vec![use_and(&[]), allow(ADMINISTRATORS, &["kms:PutKeyPolicy"])], Ok, ADMINISTRATORS),
            (vec![use_and(&["kms:PutKeyPolicy"])], Fail, VAULT),
            (vec![use_and(&["kms:Schedule*"])], Fail, VAULT),
            (vec![allow(ROOT, &["kms:*"])], Warning, "identity policies"),
            (vec![use_and(&[]), allow(ROOT, &["kms:*"])], Warning, "identity policies"),
            (vec![allow("*", &["kms:*"])], Fail, "everybody"),
            (vec![use_and(&[])], Warning, "nobody to administer"),
        ] {
            let found = line(&statements, PostureSubject::PolicySeparation);
            assert!(found.status == status && found.detail.contains(says), "{statements:?}: {found:?}");
        }
    }

    #[test]
    fn who_may_create_grants() {
        use PostureStatus::{Fail, Ok, Warning};
        for (statements, status) in [
            (vec![allow(VAULT, &["kms:Decrypt"])], Ok),
            (vec![allow(VAULT, &["kms:CreateGrant"])], Warning),
            (vec![allow("*", &["kms:*"])], Fail),
            (vec![allow("arn:aws:iam::444455556666:root", &["kms:CreateGrant"])], Fail),
        ] {
            let found = line(&statements, PostureSubject::Grants);
            assert_eq!(found.status, status, "{statements:?}: {found:?}");
        }
    }

    #[test]
    fn a_policy_of_another_form_is_a_warning() {
        for policy in ["", "{}", r#"{"Statement":[{"Effect":"Maybe"}]}"#, r#"{"Statement":7}"#] {
            let found = lines(policy);
            assert!(matches!(found.as_slice(), [one] if one.status == PostureStatus::Warning), "{policy}: {found:?}");
        }
        assert_eq!(
            lines(r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"kms:*"}}"#).len(),
            5,
            "one statement need not be in a list"
        );
    }
}
