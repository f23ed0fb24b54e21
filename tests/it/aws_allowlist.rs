//! The allowlist: a wrapper key that the configuration does not allow is never registered, created or used, not even after an edit of its
//! row.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::{problem, until},
    wrapper::{ACCOUNT, CENTRAL, WEST},
};

/// A key of another account, which the vault must not call.
const FOREIGN: &str = "arn:aws:kms:eu-central-1:999999999999:key/11111111-2222-3333-4444-555555555555";

async fn add(aws: &AwsVault, principal: &str, body: &Value) -> Result<Value, canton_keyvault::client::ClientError> {
    aws.vault.client(principal).create("/v1/wrapper-keys", body).await
}

fn registration(reference: &str) -> Value {
    json!({ "provider": "aws-kms", "reference": reference })
}

#[tokio::test]
async fn a_key_that_is_not_allowed_is_not_registered() {
    let aws = AwsVault::start(Setup::default()).await;
    let refused = problem(add(&aws, "wrapper-admin", &registration(FOREIGN)).await);
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (403, "wrapper_not_allowed", false));
    assert_eq!(aws.kms.log("999999999999").len(), 0, "KMS is not asked");
    let entry = aws.entries("wrapper-keys.add", None).await.pop().unwrap();
    assert_eq!((&entry["reason"], &entry["subject"]), (&json!("wrapper_not_allowed"), &json!(FOREIGN)));
    for principal in ["participant1", "key-admin", "auditor", "exporter"] {
        assert_eq!(problem(add(&aws, principal, &registration(&aws.arn)).await).code, "forbidden", "{principal}");
    }
    assert!(aws.is_ready(200, &[]).await);
}

#[tokio::test]
async fn a_key_that_is_not_allowed_cannot_be_the_first_wrapper_key() {
    let aws = AwsVault::prepare(Setup { reference: Some(FOREIGN.into()), ..Setup::default() }).await;
    let printed = aws.vault.refuses_to_serve();
    assert!(printed.contains("matches no pattern of [wrapper] allowed") && printed.contains(FOREIGN), "{printed}");
    let registered: i64 = aws.vault.database().query_row("SELECT count(*) FROM wrapper_keys", [], |row| row.get(0)).unwrap();
    assert_eq!((registered, aws.kms.log("999999999999").len()), (0, 0), "KMS is not asked");
}

#[tokio::test]
async fn an_edited_row_moves_no_key_under_another_wrapper_key() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let key = aws.key().await;
    let sibling = aws.kms.create_key(CENTRAL, false).await;
    let identity = |arn: &str| format!("aws:aws:{}:{}", arn.split(':').nth(4).unwrap(), arn.rsplit('/').next().unwrap());
    let own = identity(&aws.arn);
    // The log says which wrapper key it is. A start writes the identity of the log, which is never the one of an edited reference.
    for (identity, reference) in [(identity(FOREIGN), FOREIGN), (own.clone(), FOREIGN), (identity(&sibling), sibling.as_str())] {
        aws.vault.kill();
        let edit = "UPDATE wrapper_keys SET identity = ?1, reference = ?2";
        aws.vault.database().execute(edit, [identity.as_str(), reference]).unwrap();
        aws.vault.serve();
        let refused = aws.refused(&key).await;
        assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_misconfigured", false), "{identity}: {}", refused.detail);
        assert_eq!(aws.state(&key).await, "active", "{identity} {reference}");
        until("the vault says so", || async { aws.readyz().await.0 == 503 }).await;
    }
    assert_eq!(aws.kms.log("999999999999").len(), 0, "KMS is not asked");
    aws.vault.kill();
    aws.vault.database().execute("UPDATE wrapper_keys SET identity = ?1, reference = ?2", [identity(FOREIGN).as_str(), &aws.arn]).unwrap();
    aws.vault.serve();
    aws.sign(&key).await.unwrap();
    let stored: String = aws.vault.database().query_row("SELECT identity FROM wrapper_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, own);
}

#[tokio::test]
async fn a_registered_key_is_the_same_by_any_name() {
    let aws = AwsVault::start(Setup { wrapper: format!("regions = [{CENTRAL:?}, {WEST:?}]"), ..Setup::default() }).await;
    let mrk = aws.kms.create_key(CENTRAL, true).await;
    aws.kms.call(CENTRAL, "ReplicateKey", json!({ "KeyId": mrk, "ReplicaRegion": WEST })).await;
    let alias = format!("alias/{}", mrk.rsplit('/').next().unwrap());
    aws.kms.call(CENTRAL, "CreateAlias", json!({ "AliasName": alias, "TargetKeyId": mrk })).await;
    let added = add(&aws, "wrapper-admin", &registration(&mrk)).await.unwrap();
    assert_eq!((&added["state"], &added["regions"]), (&json!("standby"), &json!([CENTRAL, WEST])));
    for name in [mrk.clone(), mrk.replace(CENTRAL, WEST), alias.clone(), format!("arn:aws:kms:{CENTRAL}:{ACCOUNT}:{alias}")] {
        let refused = problem(add(&aws, "wrapper-admin", &registration(&name)).await);
        assert_eq!((refused.status, refused.code.as_str()), (409, "wrapper_key_exists"), "{name}");
    }
    let listed = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_kms_key_is_made_only_where_that_is_allowed_and_its_intent_is_logged_first() {
    let create = json!({ "provider": "aws-kms", "create": true, "multi_region": true, "regions": [CENTRAL, WEST] });
    let regions = format!("regions = [{CENTRAL:?}, {WEST:?}]");
    let aws = AwsVault::start(Setup { wrapper: regions.clone(), ..Setup::default() }).await;
    let refused = problem(add(&aws, "wrapper-admin", &create).await);
    assert!(refused.detail.contains("may_create") && !refused.retryable, "{refused:?}");

    let aws = AwsVault::start(Setup { wrapper: format!("{regions}\nmay_create = true"), ..Setup::default() }).await;
    assert_eq!(problem(add(&aws, "key-admin", &create).await).code, "forbidden");
    let made = add(&aws, "wrapper-admin", &create).await.unwrap();
    let reference = made["reference"].as_str().unwrap();
    assert_eq!((&made["regions"], &made["state"]), (&json!([CENTRAL, WEST]), &json!("standby")));
    let described = aws.kms.call(WEST, "DescribeKey", json!({ "KeyId": reference.replace(CENTRAL, WEST) })).await;
    assert_eq!(described["KeyMetadata"]["KeyState"], "Enabled");
    let entries = aws.entries("wrapper-keys.add", None).await;
    let told: Vec<_> = entries.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(told, ["denied", "intent", "ok"]);
    assert!(entries[2]["subject"].as_str().unwrap().contains(made["id"].as_str().unwrap()));
    assert_eq!(entries[1]["request_id"], entries[2]["request_id"]);
}

#[tokio::test]
async fn a_repeated_call_makes_no_second_kms_key() {
    use canton_keyvault::client::Call;
    let aws = AwsVault::start(Setup { wrapper: "may_create = true".into(), ..Setup::default() }).await;
    let client = aws.vault.client("wrapper-admin");
    let call = |body: &Value| {
        let call = Call::post("/v1/wrapper-keys").json(body).unwrap();
        call.header(http::HeaderName::from_static("idempotency-key"), http::HeaderValue::from_static("once"))
    };
    let create = json!({ "provider": "aws-kms", "create": true });
    let (first, second) = (client.json(call(&create)).await.unwrap(), client.json(call(&create)).await.unwrap());
    assert_eq!(first, second);
    assert_eq!(client.get("/v1/wrapper-keys").await.unwrap()["items"].as_array().unwrap().len(), 2);
    let other = problem(client.json(call(&registration(&aws.arn))).await);
    assert_eq!((other.status, other.code.as_str()), (409, "idempotency_mismatch"));
}

/// A key that fails its proof is not registered, is named in the log, and says nothing of the vault.
#[tokio::test]
async fn a_key_that_does_not_prove_itself_is_not_registered() {
    let aws = AwsVault::start(Setup::default()).await;
    let candidate = aws.kms.create_key(CENTRAL, false).await;
    aws.kms.fault(json!({ "mode": "denied", "only": "Decrypt", "key": candidate })).await;
    let refused = problem(add(&aws, "wrapper-admin", &registration(&candidate)).await);
    assert_eq!(refused.code, "wrapper_denied");
    assert!(aws.is_ready(200, &[]).await, "{:?}", aws.readyz().await);
    let entry = aws.entries("wrapper-keys.add", None).await.pop().unwrap();
    assert_eq!((&entry["subject"], &entry["reason"]), (&json!(candidate), &json!("wrapper_denied")));
    assert_eq!(aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_configuration_that_names_another_key_is_a_warning_that_names_both() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let key = aws.key().await;
    let other = aws.kms.create_key(CENTRAL, false).await;
    let alias = format!("alias/{}", other.rsplit('/').next().unwrap());
    aws.kms.call(CENTRAL, "CreateAlias", json!({ "AliasName": alias, "TargetKeyId": other })).await;
    let (path, arn) = (aws.vault.path("keyvault.toml"), aws.arn.clone());
    let config = std::fs::read_to_string(&path).unwrap();
    let own_alias = format!("alias/{}", arn.rsplit('/').next().unwrap());
    aws.kms.call(CENTRAL, "CreateAlias", json!({ "AliasName": own_alias, "TargetKeyId": arn })).await;
    for (reference, differs) in [(&other, true), (&alias, true), (&own_alias, false), (&arn, false)] {
        aws.vault.kill();
        let from = format!("reference = {arn:?}");
        assert!(config.contains(&from));
        let to = format!("reference = {reference:?}\nregions = [{CENTRAL:?}]");
        std::fs::write(&path, config.replace(&from, &to)).unwrap();
        aws.vault.serve();
        aws.sign(&key).await.unwrap();
        if differs {
            until("it says so", || async { aws.logged(&["WARN", "in the configuration names", reference, &arn]) }).await;
        } else {
            until("it is looked at", || async { aws.kms.log(reference).len() + aws.kms.log(&arn).len() > 3 }).await;
            assert!(!aws.logged(&["in the configuration names"]), "{reference}");
        }
    }
}

#[tokio::test]
async fn the_command_line_registers_makes_lists_and_shows() {
    let aws = AwsVault::start(Setup { wrapper: "may_create = true".into(), ..Setup::default() }).await;
    let candidate = aws.kms.create_key(CENTRAL, false).await;
    let run = |principal: &str, arguments: &[&str]| -> Output {
        let options = aws.vault.options(principal);
        let mut command = aws.vault.command(&["wrapper"]);
        command.args(arguments).args(["--output", "json", "--url", &options.url]);
        command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
        command.output().unwrap()
    };
    let json_of = |output: Output| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let registered = json_of(run("wrapper-admin", &["register", "--provider", "aws-kms", "--reference", &candidate]));
    assert_eq!(registered["reference"], json!(candidate));
    let made = json_of(run("wrapper-admin", &["create", "--provider", "aws-kms", "--regions", CENTRAL]));
    let mut shown = json_of(run("wrapper-admin", &["show", made["id"].as_str().unwrap()]));
    assert_eq!(shown.as_object_mut().unwrap().remove("kms").unwrap()["usable"], true, "showing one asks its KMS");
    assert_eq!(shown, made);
    let listed = json_of(run("wrapper-admin", &["list"]));
    assert_eq!(listed["items"].as_array().unwrap().len(), 3, "{listed}");
    let refused = run("participant1", &["register", "--provider", "aws-kms", "--reference", &candidate]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("forbidden"), "{refused:?}");
}
