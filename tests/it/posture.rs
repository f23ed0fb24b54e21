//! The posture of wrapper keys from outside: the KMS double, OpenBao, a PKCS#11 token and a file; missing permissions; the lines of `check`.

use std::collections::BTreeMap;

use canton_keyvault::{
    domain::{PostureStatus, PostureSubject, ProviderKind},
    kms::Wrapper,
};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    kms::Kms,
    openbao::{Openbao, token_line},
    softhsm::Softhsm,
    vault::{TestVault, problem},
    wrapper::{ACCOUNT, Aws, CENTRAL, WEST, config, openbao, random, registered},
};

/// The published policy, for the account of the double and the vault `dev`.
fn published() -> String {
    include_str!("../../deploy/aws/wrapper-key-policy.json").replace("111122223333", ACCOUNT).replace("production", "dev")
}

/// The stack makes the key with the published policy.
#[test]
fn the_cloudformation_template_has_the_published_policy() {
    fn filled(value: &Value) -> Value {
        let parameter = |name: &str| match name {
            "VaultId" => "production",
            "VaultRoleArn" => "arn:aws:iam::111122223333:role/canton-keyvault",
            "AdministratorRoleArn" => "arn:aws:iam::111122223333:role/kms-administrators",
            other => panic!("the policy refers to {other}"),
        };
        match value {
            Value::Object(fields) if fields.contains_key("Ref") => json!(parameter(fields["Ref"].as_str().unwrap())),
            Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), filled(value))).collect(),
            Value::Array(items) => items.iter().map(filled).collect(),
            other => other.clone(),
        }
    }
    let template: Value = serde_json::from_str(include_str!("../../deploy/aws/wrapper-key.template.json")).unwrap();
    let published: Value = serde_json::from_str(include_str!("../../deploy/aws/wrapper-key-policy.json")).unwrap();
    let key = &template["Resources"]["WrapperKey"];
    assert_eq!(filled(&key["Properties"]["KeyPolicy"]), published);
    assert_eq!(
        (&key["DeletionPolicy"], &key["UpdateReplacePolicy"]),
        (&json!("Retain"), &json!("Retain")),
        "a stack that ends deletes no key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_the_published_policy_and_rotation_has_no_warning() {
    let kms = Kms::shared().await;
    let arn = kms.create(CENTRAL, json!({ "Policy": published() })).await;
    kms.call(CENTRAL, "EnableKeyRotation", json!({ "KeyId": arn, "RotationPeriodInDays": 365 })).await;
    let aws = AwsVault::start(Setup { arn: Some(arn), ..Setup::default() }).await;
    let posture = posture(&aws.vault).await;
    let by_subject = statuses(&posture);
    for subject in ["spec", "origin", "state", "deletion", "regions", "rotation", "tags", "grants"] {
        assert_eq!(by_subject.get(subject).map(String::as_str), Some("ok"), "{subject}: {posture:#}");
    }
    for subject in ["policy-decrypt", "policy-context", "policy-wildcards", "policy-separation"] {
        assert_eq!(by_subject.get(subject).map(String::as_str), Some("ok"), "{subject}: {posture:#}");
    }
    assert_eq!(posture["status"], "ok");
    let (success, lines) = checked(&aws.vault);
    let line = lines.iter().find(|line| line["check"] == "wrapper key posture").unwrap();
    assert!(success && line["status"] == "ok" && line["detail"].as_str().unwrap().ends_with("lines of its posture are ok"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_endangers_a_key_fails_in_the_posture_and_in_check() {
    let kms = Kms::shared().await;
    let everybody =
        json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" }] });
    let arn = kms.create(CENTRAL, json!({ "Policy": everybody.to_string() })).await;
    let aws = AwsVault::start(Setup { arn: Some(arn.clone()), ..Setup::default() }).await;
    let found = posture(&aws.vault).await;
    let by_subject = statuses(&found);
    for (subject, status) in [
        ("policy-decrypt", "fail"),
        ("policy-separation", "fail"),
        ("policy-context", "warning"),
        ("policy-wildcards", "warning"),
        ("rotation", "warning"),
    ] {
        assert_eq!(by_subject.get(subject).map(String::as_str), Some(status), "{subject}: {found:#}");
    }
    assert_eq!(found["status"], "fail");
    let (success, lines) = checked(&aws.vault);
    let fails = |says: &str| {
        let mut of_check = lines.iter().filter(|line| line["check"] == "wrapper key posture" && line["status"] == "fail");
        of_check.any(|line| line["detail"].as_str().unwrap().contains(says))
    };
    assert!(!success && fails("every AWS principal of every account may decrypt. Fix: Permit Decrypt"), "{lines:#?}");
    kms.call(CENTRAL, "ScheduleKeyDeletion", json!({ "KeyId": arn, "PendingWindowInDays": 7 })).await;
    let by_subject = statuses(&posture(&aws.vault).await);
    assert_eq!((by_subject["state"].as_str(), by_subject["deletion"].as_str()), ("fail", "fail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_a_warning_that_names_it_and_an_outage_is_an_error() {
    let aws = AwsVault::start(Setup::default()).await;
    let key = aws.arn.rsplit('/').next().unwrap();
    for (action, subject, permission) in [
        ("GetKeyPolicy", "policy", "kms:GetKeyPolicy"),
        ("ListGrants", "grants", "kms:ListGrants"),
        ("ListResourceTags", "tags", "kms:ListResourceTags"),
        ("GetKeyRotationStatus", "rotation", "kms:GetKeyRotationStatus"),
    ] {
        aws.kms.fault(json!({ "mode": "denied", "only": action, "key": key })).await;
        let found = posture(&aws.vault).await;
        let line = lines(&found).iter().find(|line| line["subject"] == subject).unwrap().clone();
        let says = line["detail"].as_str().unwrap().contains(permission) && line["remedy"].as_str().unwrap().contains(permission);
        assert!(line["status"] == "warning" && says, "{line}");
        aws.kms.fault(json!({ "mode": "none", "key": key })).await;
    }
    aws.kms.fault(json!({ "mode": "unavailable", "only": "GetKeyPolicy", "key": key })).await;
    let id = id(&aws.vault).await;
    let away = problem(aws.vault.client("auditor").get(&format!("/v1/wrapper-keys/{id}/posture")).await);
    assert_eq!((away.code.as_str(), away.retryable), ("wrapper_unavailable", true));
    aws.kms.fault(json!({ "mode": "none", "key": key })).await;
}

/// A replica has a policy of its own.
#[tokio::test]
async fn each_region_of_a_multi_region_key_is_assessed() {
    let kms = Kms::shared().await;
    let Aws { wrapper, .. } = Aws::new(kms, &[CENTRAL, WEST], "").await;
    let lines = wrapper.posture(&"dev".parse().unwrap()).await.unwrap();
    for region in [CENTRAL, WEST] {
        let here = |subject| lines.iter().find(|line| line.subject == subject && line.region.as_deref() == Some(region)).unwrap();
        assert_eq!(here(PostureSubject::State).status, PostureStatus::Ok);
        // The default policy of AWS.
        let decrypt = here(PostureSubject::PolicyDecrypt);
        assert!(decrypt.status == PostureStatus::Warning && decrypt.detail.contains("every identity policy"), "{decrypt:?}");
        assert!(here(PostureSubject::Regions).detail.contains("multi-Region key"));
    }
}

#[tokio::test]
async fn keys_of_other_providers_are_assessed_by_their_attributes() {
    let server = Openbao::shared().await;
    let (name, login) = (server.create_key(json!({})).await, server.token_file().await);
    let providers = openbao(server, &format!("reference = {:?}", server.url(&name)), &token_line(login.path()));
    let found = providers.resolve(ProviderKind::OpenbaoTransit, &server.url(&name), &[]).await.unwrap();
    let transit = providers.connect(&registered(ProviderKind::OpenbaoTransit, found)).await.unwrap();
    assert_eq!(status(&*transit, PostureSubject::Export).await, PostureStatus::Ok);
    assert_eq!(status(&*transit, PostureSubject::Deletion).await, PostureStatus::Ok);
    let change = json!({ "deletion_allowed": true, "exportable": true });
    server.call("POST", &format!("transit/keys/{name}/config"), change).await;
    assert_eq!(status(&*transit, PostureSubject::Export).await, PostureStatus::Fail);
    assert_eq!(status(&*transit, PostureSubject::Deletion).await, PostureStatus::Warning);

    let tokens = Softhsm::shared();
    tokens.create_key("keys", "7001", "posture");
    let text = format!("provider = 'pkcs11'\nreference = 'pkcs11:token=keys;id=%70%01'\n[[pkcs11]]\n{}", tokens.entry("keys"));
    let providers = canton_keyvault::kms::Providers::new(config(&text), random()).unwrap();
    let found = providers.resolve(ProviderKind::Pkcs11, "pkcs11:token=keys;id=%70%01", &[]).await.unwrap();
    let token = providers.connect(&registered(ProviderKind::Pkcs11, found)).await.unwrap();
    for subject in [PostureSubject::Spec, PostureSubject::Origin, PostureSubject::State, PostureSubject::Export] {
        assert_eq!(status(&*token, subject).await, PostureStatus::Ok, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_file_is_a_warning_and_the_question_is_in_the_log() {
    let vault = TestVault::start();
    let posture = posture(&vault).await;
    assert_eq!((posture["provider"].as_str(), posture["status"].as_str()), (Some("local"), Some("warning")));
    let id = id(&vault).await;
    let (success, lines) = checked(&vault);
    let warned = lines
        .iter()
        .any(|line| line["check"] == "wrapper key posture" && line["status"] == "warn" && line["detail"].as_str().unwrap().contains(&id));
    assert!(success && warned, "{lines:#?}");
    let path = "/v1/audit/entries?operation=wrapper-keys.show-posture";
    let entry = vault.client("auditor").get(path).await.unwrap()["items"][0].clone();
    assert_eq!((&entry["outcome"], &entry["subject"]), (&json!("ok"), &json!(id)), "{entry}");
}

async fn status(wrapper: &dyn Wrapper, subject: PostureSubject) -> PostureStatus {
    let lines = wrapper.posture(&"dev".parse().unwrap()).await.unwrap();
    lines.iter().find(|line| line.subject == subject).unwrap().status
}

async fn id(vault: &TestVault) -> String {
    vault.client("auditor").get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].as_str().unwrap().to_owned()
}

async fn posture(vault: &TestVault) -> Value {
    crate::support::vault::until("there is a wrapper key", || async {
        !vault.client("auditor").get("/v1/wrapper-keys").await.unwrap()["items"][0].is_null()
    })
    .await;
    vault.client("auditor").get(&format!("/v1/wrapper-keys/{}/posture", id(vault).await)).await.unwrap()
}

fn lines(posture: &Value) -> &Vec<Value> {
    posture["lines"].as_array().unwrap()
}

/// The worst status of each subject.
fn statuses(posture: &Value) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, PostureStatus> = BTreeMap::new();
    for line in lines(posture) {
        let status: PostureStatus = line["status"].as_str().unwrap().parse().unwrap();
        let known = all.entry(line["subject"].as_str().unwrap().to_owned()).or_insert(status);
        *known = status.max(*known);
    }
    all.into_iter().map(|(subject, status)| (subject, status.to_string())).collect()
}

fn checked(vault: &TestVault) -> (bool, Vec<Value>) {
    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    (check.status.success(), serde_json::from_slice(&check.stdout).unwrap())
}
