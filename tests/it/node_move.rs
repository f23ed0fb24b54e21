//! `canton import` and `canton export` with the rows and files that Canton wrote: keys move in with unchanged fingerprints, are used, and
//! move out byte for byte. Against a real PostgreSQL, and rows encrypted under a key of the KMS double.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use canton_keyvault::cli::pki::principal;
use serde_json::{Value, json};

use crate::{
    canton_made::{items, text},
    known_bytes::{unbase64, unhex},
    support::{
        api::Caller,
        kms::Kms,
        postgres::{Postgres, insert, kms_metadata, private_keys},
        vault::TestVault,
        verify::verify,
    },
};

const REGION: &str = "eu-central-1";

/// The rows of a state on PostgreSQL.
fn rows(state: &str) -> Vec<&'static Value> {
    items("private_key_rows").iter().filter(|row| row["state"] == state && row["database"] == "postgres").collect()
}

fn pair(name: &str) -> &'static Value {
    items("key_pairs").iter().find(|pair| pair["name"] == name).unwrap()
}

/// Runs the command as `principal` and gives its JSON, or its output if it failed.
fn run(vault: &TestVault, principal: &str, arguments: &[&str], files: &[&Path]) -> Output {
    let options = vault.options(principal);
    let mut command = vault.command(&["canton"]);
    command.args(arguments).args(files).args(["--output", "json", "--url", &options.url]);
    command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    for (name, value) in [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")] {
        command.env(name, value);
    }
    command.output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failed(output: &Output) -> (Value, String) {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {error}")), error)
}

fn import(vault: &TestVault, arguments: &[&str], files: &[&Path]) -> Output {
    run(vault, "key-admin", &[&["import", "--node", "participant1"], arguments].concat(), files)
}

/// A vault whose principal `exporter` may also see keys.
fn start() -> TestVault {
    let grant = format!("[[grants]]\nprincipal = \"{}\"\nrole = \"auditor\"\nnodes = [\"*\"]\n", principal("exporter"));
    TestVault::start_with(move |config| format!("{config}\n{grant}"))
}

fn export(vault: &TestVault, arguments: &[&str]) -> Output {
    run(vault, "exporter", &[&["export", "--node", "participant1"], arguments].concat(), &[])
}

fn outcomes(report: &Value) -> Vec<&str> {
    report["keys"].as_array().unwrap().iter().map(|key| key["outcome"].as_str().unwrap()).collect()
}

fn all(report: &Value, outcome: &str) -> bool {
    let outcomes = outcomes(report);
    !outcomes.is_empty() && outcomes.iter().all(|found| *found == outcome)
}

/// Signs or decrypts with each key, as the node.
async fn assert_used(vault: &TestVault, rows: &[&Value]) {
    let node = Caller::new(vault, "participant1");
    for row in rows {
        let (name, id) = (text(row, "key"), text(row, "key_id"));
        let (public, stored) = (pair(name), node.get(&format!("/v1/keys/{id}")).await.success());
        assert_eq!(stored["origin"], "imported", "{name}");
        assert_eq!(unbase64(stored["public_key"].as_str().unwrap()), unhex(text(public, "spki_hex")), "{name}");
        if public["purpose"] == "encryption" {
            let item = items("ciphertexts").iter().find(|item| item["key"] == name).unwrap();
            let body = json!({ "algorithm": item["algorithm"], "ciphertext": item["ciphertext_b64"] });
            let answer = node.post(&format!("/v1/keys/{id}/decrypt"), &body).await.success();
            assert_eq!(unbase64(answer["plaintext"].as_str().unwrap()), unhex(text(item, "plaintext_hex")), "{name}");
            continue;
        }
        let algorithm = match text(public, "spec") {
            "ec-curve25519" => "ed25519",
            "ec-p384" => "ecdsa-sha384",
            _ => "ecdsa-sha256",
        };
        let body = json!({ "algorithm": algorithm, "message": "YSBtZXNzYWdl" });
        let answer = node.post(&format!("/v1/keys/{id}/sign"), &body).await.success();
        let signature = unbase64(answer["signature"].as_str().unwrap());
        assert!(verify(algorithm.parse().unwrap(), &unhex(text(public, "spki_hex")), b"a message", &signature), "{name}");
    }
}

/// The rows of `common_kms_metadata_store` that Canton itself wrote for these keys, with our id of the KMS key.
fn assert_metadata(found: &[(String, String, i16, Option<Vec<i32>>)], expected: usize) {
    assert_eq!(found.len(), expected);
    let mut compared = 0;
    for (fingerprint, kms_key_id, purpose, usage) in found {
        assert_eq!(kms_key_id, fingerprint, "the id of a key in the vault is its fingerprint");
        if let Some(row) = items("kms_metadata_rows").iter().find(|row| row["fingerprint"] == fingerprint.as_str()) {
            assert_eq!((json!(purpose), json!(usage)), (row["purpose"].clone(), row["key_usage"].clone()), "{fingerprint}");
            compared += 1;
        }
    }
    assert!(compared >= 4, "only {compared} keys have a row that Canton wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_moves_in_from_clear_rows_is_used_and_moves_back_byte_for_byte() {
    let (vault, postgres, rows) = (start(), Postgres::start().await, rows("clear"));
    let database = postgres.node(&rows).await;
    let before = private_keys(&database).await;
    let (url, ca) = (postgres.url_file(""), postgres.ca());
    let source = ["--database-url-file", url.to_str().unwrap(), "--database-ca", ca.to_str().unwrap()];

    let dry = report(&import(&vault, &[&source[..], &["--exportable", "--dry-run"]].concat(), &[]));
    assert!(all(&dry, "planned") && dry["missing"] == json!([]), "{dry}");
    assert_eq!(dry["kms_metadata_sql"].as_array().unwrap().len(), rows.len());
    assert!(Caller::new(&vault, "key-admin").get("/v1/keys?node=participant1").await.success()["items"].as_array().unwrap().is_empty());
    assert!(kms_metadata(&database).await.is_empty());

    let done = report(&import(&vault, &[&source[..], &["--exportable", "--write-metadata"]].concat(), &[]));
    assert!(all(&done, "done"), "{done}");
    assert_metadata(&kms_metadata(&database).await, rows.len());
    assert_eq!(private_keys(&database).await, before, "the private keys stay until they are removed on request");
    let names: Vec<Value> = done["keys"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert!(names.contains(&json!("participant1-namespace")) && names.contains(&json!("participant1-signing")), "{names:?}");
    assert_used(&vault, &rows).await;

    // A repetition changes nothing, and then the private keys leave the database.
    let remove = ["--exportable", "--write-metadata", "--remove-private-keys"];
    let refused = import(&vault, &[&source[..], &remove[..]].concat(), &[]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("add --yes"));
    assert_eq!(private_keys(&database).await, before);
    let again = report(&import(&vault, &[&source[..], &remove[..], &["--yes"]].concat(), &[]));
    assert!(all(&again, "present"), "{again}");
    assert_metadata(&kms_metadata(&database).await, rows.len());
    assert!(private_keys(&database).await.is_empty());

    // Back into the database: byte for byte, with the names, and without the rows of KMS keys.
    let target = ["--database-url-file", url.to_str().unwrap(), "--database-ca", ca.to_str().unwrap()];
    let dry = report(&export(&vault, &[&target[..], &["--dry-run"]].concat()));
    assert!(all(&dry, "planned") && private_keys(&database).await.is_empty());
    assert!(all(&report(&export(&vault, &target)), "done"));
    let (after, with_name): (Vec<_>, Vec<_>) = (private_keys(&database).await, before.iter().filter(|row| row.3.is_some()).collect());
    assert_eq!(
        after.iter().map(|row| (&row.0, &row.1, &row.2)).collect::<Vec<_>>(),
        before.iter().map(|row| (&row.0, &row.1, &row.2)).collect::<Vec<_>>()
    );
    assert!(!with_name.is_empty() && with_name.into_iter().all(|row| after.contains(row)));
    assert!(kms_metadata(&database).await.is_empty());
    assert!(all(&report(&export(&vault, &target)), "done"));
    assert_eq!(private_keys(&database).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_canton_encrypted_under_a_kms_key_move_in() {
    let (vault, postgres, kms, rows) = (TestVault::start(), Postgres::start().await, Kms::shared().await, rows("clear"));
    let database = postgres.node(&[]).await;
    let wrappers = [kms.create_key(REGION, false).await, kms.create_key(REGION, false).await];
    for (row, wrapper) in rows.iter().zip(wrappers.iter().cycle()) {
        let encrypted = kms.call(REGION, "Encrypt", json!({ "KeyId": wrapper, "Plaintext": row["data_b64"] })).await;
        insert(&database, row, Some(wrapper), &unbase64(encrypted["CiphertextBlob"].as_str().unwrap())).await;
    }
    let (socket, endpoint) = (postgres.socket_file(), kms.endpoint());
    let source = ["--database-url-file", socket.to_str().unwrap(), "--aws-endpoint", &endpoint, "--write-metadata"];
    let done = report(&import(&vault, &source, &[]));
    assert!(all(&done, "done"), "{done}");
    assert_metadata(&kms_metadata(&database).await, rows.len());
    assert_used(&vault, &rows).await;

    // A wrapper key that is disabled: every key of it fails with the reason, and the database does not change.
    kms.call(REGION, "DisableKey", json!({ "KeyId": wrappers[0] })).await;
    database.execute("DELETE FROM common_kms_metadata_store", &[]).await.unwrap();
    let (partly, error) = failed(&import(&vault, &source, &[]));
    let count = |outcome: &str| outcomes(&partly).iter().filter(|found| **found == outcome).count();
    assert_eq!((count("failed"), count("present")), (rows.len().div_ceil(2), rows.len() / 2), "{partly}");
    assert!(partly.to_string().contains("disabled") && error.contains("failed"), "{partly} {error}");
    assert!(kms_metadata(&database).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_canton_2_and_damaged_rows_are_read_or_refused_with_the_reason() {
    let (vault, postgres) = (start(), Postgres::start().await);
    let (legacy, migrated) = (rows("legacy"), rows("migrated"));
    let database = postgres.node(&legacy).await;
    let socket = postgres.socket_file();
    let source = ["--database-url-file", socket.to_str().unwrap()];
    // A key of another row, and bytes that are no key.
    let (id, other): (String, &Value) = (format!("1220{}", "ab".repeat(32)), legacy[0]);
    insert(&database, &json!({ "key_id": id, "purpose": other["purpose"], "row_name": null }), None, &unbase64(text(other, "data_b64")))
        .await;
    let garbage = format!("1220{}", "cd".repeat(32));
    insert(&database, &json!({ "key_id": garbage, "purpose": 0, "row_name": "garbage" }), None, b"garbage").await;
    let (partly, error) = failed(&import(&vault, &[&source[..], &["--exportable", "--write-metadata"]].concat(), &[]));
    let reasons: Vec<(&str, &str)> = partly["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["outcome"] == "failed")
        .map(|key| (key["id"].as_str().unwrap(), key["reason"].as_str().unwrap()))
        .collect();
    let [(first, mismatch), (second, damaged)] = reasons[..] else { panic!("{partly}") };
    assert_eq!((first, second), (id.as_str(), garbage.as_str()));
    assert!(mismatch.contains("not the one that it names") && damaged.contains("encrypted or corrupted"), "{reasons:?}");
    assert!(error.contains("2 of 6 keys failed"), "{error}");
    assert!(kms_metadata(&database).await.is_empty(), "nothing is written while a key fails");

    // The tables of Canton 2, with the rows that are sound.
    database
        .batch_execute(
            "DELETE FROM common_crypto_private_keys WHERE key_id LIKE '1220abab%' OR key_id LIKE '1220cdcd%';
             ALTER TABLE common_crypto_private_keys RENAME TO crypto_private_keys; DROP TABLE common_kms_metadata_store",
        )
        .await
        .unwrap();
    let again = report(&import(&vault, &[&source[..], &["--exportable"]].concat(), &[]));
    assert!(all(&again, "present") && again["kms_metadata_sql"].as_array().unwrap().len() == legacy.len(), "{again}");
    let wrong = import(&vault, &[&source[..], &["--exportable", "--write-metadata"]].concat(), &[]);
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
    assert_used(&vault, &legacy).await;

    // Out again in the form that Canton 3 migrates them to.
    database.batch_execute("DROP TABLE crypto_private_keys").await.unwrap();
    drop(postgres.node(&[]).await);
    assert!(all(&report(&export(&vault, &source)), "done"));
    let mut expected: Vec<_> = migrated.iter().map(|row| (text(row, "key_id").to_owned(), unbase64(text(row, "data_b64")))).collect();
    expected.sort();
    assert_eq!(private_keys(&database).await.into_iter().map(|row| (row.0, row.2)).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_files_move_in_and_out_with_and_without_a_password() {
    let vault = TestVault::start();
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "signing/ec-curve25519/namespace/0",
        "signing/ec-p256/sequencer-authentication/0",
        "signing/ec-p384/protocol/0",
        "encryption/ec-p256/0/0",
    ];
    let write = |field: &str| {
        let paths = names.map(|name| folder.path().join(format!("{}.{field}", name.replace('/', "-"))));
        names.iter().zip(&paths).for_each(|(name, path)| std::fs::write(path, unbase64(text(pair(name), field))).unwrap());
        paths
    };
    let clear = write("export_b64");
    let done = report(&import(&vault, &["--exportable"], &clear.each_ref().map(PathBuf::as_path)));
    assert!(all(&done, "done") && done["missing"] == json!([]), "{done}");
    let sql: Vec<&str> = done["kms_metadata_sql"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(sql.len() == 4 && sql[0].contains("0, '{0}')") && sql[1].contains("'{2,4}'") && sql[3].contains("1, NULL)"), "{sql:?}");
    assert_used(&vault, &names.map(|name| Box::leak(Box::new(json!({ "key": name, "key_id": pair(name)["fingerprint"] }))) as &Value))
        .await;

    // The same key in a protected file is present already. Without the password the file says what it needs.
    let protected = write("password_export_b64");
    let password = folder.path().join("password");
    std::fs::write(&password, text(pair(names[0]), "password")).unwrap();
    let arguments = ["--exportable", "--password-file", password.to_str().unwrap()];
    assert!(all(&report(&import(&vault, &arguments, &[&protected[0]])), "present"));
    let (locked, error) = failed(&import(&vault, &["--exportable"], &[&clear[1], &protected[0]]));
    assert!(error.contains("1 of 2 keys failed") && locked.to_string().contains("protected by a password"), "{error} {locked}");
    let (other, _) = failed(&import(&vault, &["--dry-run"], &[&clear[0]]));
    assert!(other.to_string().contains("another value of `exportable`"), "{other}");

    // The role exporter lists no keys, and exports those that are named.
    let unnamed = export(&vault, &["--out-dir", "."]);
    assert!(String::from_utf8_lossy(&unnamed.stderr).contains("name the ids of the keys"));
    // Out, byte for byte; a repetition finds the files, and overwrites none.
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let ids = names.map(|name| text(pair(name), "fingerprint"));
    let export = || export(&vault, &[&["--out-dir", out.to_str().unwrap()], &ids[..]].concat());
    assert!(all(&report(&export()), "done"));
    for name in names {
        let file = out.join(format!("{}.key", text(pair(name), "fingerprint")));
        assert_eq!(std::fs::read(file).unwrap(), unbase64(text(pair(name), "export_b64")), "{name}");
    }
    assert!(all(&report(&export()), "present"));
    std::fs::copy(&clear[1], out.join(format!("{}.key", text(pair(names[0]), "fingerprint")))).unwrap();
    let (wrong, _) = failed(&export());
    assert!(wrong.to_string().contains("the file exists and holds another key"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_or_an_unreachable_vault_changes_nothing() {
    let (mut vault, postgres, rows) = (start(), Postgres::start().await, rows("clear"));
    let database = postgres.node(&rows).await;
    let socket = postgres.socket_file();
    let source = ["--database-url-file", socket.to_str().unwrap(), "--write-metadata"];
    let id = text(rows[0], "key_id");
    database.execute("INSERT INTO common_kms_metadata_store VALUES ($1, 'arn:aws:kms:x', 0::smallint, NULL)", &[&id]).await.unwrap();
    let refused = import(&vault, &source, &[]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && error.contains("another row") && error.contains("arn:aws:kms:x"), "{error}");
    assert_eq!(kms_metadata(&database).await.len(), 1, "the transaction was rolled back");

    // Keys that are not exportable stay in the vault, and the database does not change.
    let (kept, _) = failed(&export(&vault, &source[..2]));
    assert!(all(&kept, "failed") && kept.to_string().contains("not exportable"), "{kept}");
    assert_eq!(private_keys(&database).await.len(), rows.len());

    // Over the network only with TLS.
    let url = postgres.url_file("?sslmode=disable");
    let plain = import(&vault, &["--database-url-file", url.to_str().unwrap()], &[]);
    assert!(!plain.status.success() && String::from_utf8_lossy(&plain.stderr).contains("cannot connect to the database"));
    let far = postgres.url_file("").with_file_name("far");
    std::fs::write(&far, "postgresql://canton:topsecret@db.example.org/canton").unwrap();
    let far = import(&vault, &["--database-url-file", far.to_str().unwrap()], &[]);
    let error = String::from_utf8_lossy(&far.stderr);
    assert!(far.status.code() == Some(2) && error.contains("--database-ca") && !error.contains("topsecret"), "{error}");

    let options = vault.options("key-admin");
    vault.kill();
    let mut command = vault.command(&["canton", "import", "--node", "participant1", "--url", &options.url]);
    command.args(source).arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    assert_eq!(command.output().unwrap().status.code(), Some(3));
    assert_eq!(kms_metadata(&database).await.len(), 1);
}
