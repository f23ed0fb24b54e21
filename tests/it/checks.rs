//! `check` and `serve` have one list of checks. For each mistake, one broken configuration: both say the same sentence, and the exit codes
//! follow. `check` stays usable beside a running vault and after a rotation.

use std::{
    any::Any,
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use canton_keyvault::{
    crypto::SystemRandom,
    domain::{AuditEvent, Operation, Principal, Timestamp},
    kms::create_key_file,
    server::checks::{CHECKS, Severity},
    storage::Change,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    disk_full::SmallDisk,
    support::{
        jobs::{new_wrapper_key, rotated},
        pki::Ca,
        vault::{TestVault, until},
    },
};

/// What is kept while the two commands run: a listener, a disk.
type Guard = Option<Box<dyn Any>>;

/// A mistake, and what both say of it.
struct Mistake {
    check: &'static str,
    says: &'static str,
    /// Whether the vault had a first start, and one key.
    started: bool,
    make: fn(&mut TestVault) -> Guard,
}

const fn fresh(check: &'static str, says: &'static str, make: fn(&mut TestVault) -> Guard) -> Mistake {
    Mistake { check, says, started: false, make }
}

const fn started(check: &'static str, says: &'static str, make: fn(&mut TestVault) -> Guard) -> Mistake {
    Mistake { check, says, started: true, make }
}

const MISTAKES: &[Mistake] = &[
    fresh("configuration", "name one of the two", |vault| edit(vault, "path = \"keyvault.db\"", "")),
    fresh("storage", "the URL cannot be read", |vault| {
        fs::write(vault.path("database.url"), "postgresql://[").unwrap();
        edit(vault, "path = \"keyvault.db\"", "[storage.postgresql]\nurl_file = \"database.url\"")
    }),
    fresh("storage", "the database is on another host", |vault| {
        fs::write(vault.path("database.url"), "postgresql://vault:x@192.0.2.1/vault").unwrap();
        edit(vault, "path = \"keyvault.db\"", "[storage.postgresql]\nurl_file = \"database.url\"")
    }),
    fresh("configuration", "unknown field `idd`", |vault| edit(vault, "id = \"dev\"", "id = \"dev\"\nidd = 1")),
    fresh("configuration", "No such file", |vault| remove(vault, "keyvault.toml")),
    fresh("configuration", "must be allowed explicitly", |vault| edit(vault, "allowed = [\"wrapper.key\", \"wrapper-*.key\"]", "")),
    fresh("certificates", "No such file", |vault| remove(vault, "pki/server.pem")),
    fresh("certificates", "the key does not belong to the certificate", |vault| copy(vault, "pki/participant1.key", "pki/server.key")),
    fresh("certificates", "has expired", |vault| server_certificate(vault, -20, -1, |_| {})),
    fresh("certificates", "is not valid before", |vault| server_certificate(vault, 1, 90, |_| {})),
    fresh("certificates", "is not a CA (basic constraints)", |vault| edit(vault, "file = \"pki/ca.pem\"", "file = \"pki/server.pem\"")),
    fresh("certificates", "pki/server.key", |vault| edit(vault, "file = \"pki/ca.pem\"", "file = \"pki/server.key\"")),
    fresh("memory", "[memory] lock = \"on\", but", |vault| {
        vault.run_by(&["sh", "-c", "ulimit -l 64; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$0\" \"$@\""]);
        edit(vault, "[log]", "[memory]\nlock = \"on\"\n[log]")
    }),
    fresh("server certificate", "has no subject alternative name", |vault| {
        server_certificate(vault, -1, 90, |params| params.subject_alt_names.clear())
    }),
    fresh("server certificate", "may not be used by a server", |vault| {
        server_certificate(vault, -1, 90, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }),
    fresh("expiry", "expires in 10 days", |vault| server_certificate(vault, -90, 10, |_| {})),
    fresh("expiry", "a client CA has expired", |vault| client_ca(vault, -1)),
    fresh("revocation", "names an issuer that is neither a client CA", |vault| edit(vault, "[tls]", "[tls]\ndeny = [\"0a CN=Nobody\"]")),
    fresh("grants", "to spiffe://other.org/a has no effect", |vault| {
        edit(vault, "[log]", "[[grants]]\nprincipal = \"spiffe://other.org/a\"\nrole = \"auditor\"\nnodes = [\"*\"]\n[log]")
    }),
    fresh("grants", "there are no [[grants]]", |vault| {
        let text = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
        fs::write(vault.path("keyvault.toml"), text.split_once("[[grants]]").unwrap().0).unwrap();
        None
    }),
    fresh("high-water mark", "is in the folder of the database", |vault| {
        edit(vault, "[audit]", "[audit]\nhigh_water_mark = \"high-water-mark\"")
    }),
    started("high-water mark", "is compared with nothing outside of it", |vault| {
        edit(vault, "[audit]", "[audit]\nhigh_water_mark = \"pki/high-water-mark\"")
    }),
    fresh("client CAs", "for the trust domain unused.org, but no grant", |vault| {
        edit(vault, "trust_domains = [", "trust_domains = [\"unused.org\", ")
    }),
    fresh("file modes", "every user of this machine can access", |vault| {
        fs::set_permissions(vault.path("pki/server.key"), fs::Permissions::from_mode(0o644)).unwrap();
        None
    }),
    fresh("folder", "does not exist", |vault| edit(vault, "path = \"keyvault.db\"", "path = \"missing/keyvault.db\"")),
    fresh("folder", "cannot be written", |vault| {
        fs::create_dir(vault.path("locked")).unwrap();
        as_nobody(vault);
        own(&vault.path("locked"), 0);
        edit(vault, "path = \"keyvault.db\"", "path = \"locked/keyvault.db\"")
    }),
    started("folder", "cannot be read and written", |vault| {
        as_nobody(vault);
        own(&vault.path("keyvault.db"), 0);
        None
    }),
    fresh("full disk", "is full", |vault| {
        let disk = small_disk(vault);
        disk.fill();
        Some(Box::new(disk))
    }),
    fresh("free disk", "MiB free", |vault| Some(Box::new(small_disk(vault)))),
    fresh("open files", "the limit of open files is 600", |vault| {
        vault.run_by(&["sh", "-c", "ulimit -n 600; exec \"$0\" \"$@\""]);
        None
    }),
    fresh("wrapper key in a file", "THE WRAPPER KEY IS A FILE", |_| None),
    started("storage", "belongs to the vault dev, and this is other", |vault| edit(vault, "id = \"dev\"", "id = \"other\"")),
    fresh("storage", "is not a key vault's database", |vault| {
        fs::write(vault.path("keyvault.db"), "something else").unwrap();
        None
    }),
    started("storage", "has another structure", |vault| {
        vault.database().execute_batch("CREATE TABLE more (a INTEGER)").unwrap();
        None
    }),
    started("storage", "in the audit log is missing or was changed", |vault| {
        vault
            .database()
            .execute_batch("DELETE FROM audit_entries WHERE sequence IN (SELECT sequence FROM audit_log WHERE operation = 'keys.create')")
            .unwrap();
        None
    }),
    fresh("listen", "Address already in use", |vault| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        edit(vault, "api = \"127.0.0.1:0\"", &format!("api = \"{}\"", taken.local_addr().unwrap()));
        Some(Box::new(taken))
    }),
    fresh("listen", "cannot listen on 192.0.2.1:8443", |vault| edit(vault, "ops = \"127.0.0.1:0\"", "ops = \"192.0.2.1:8443\"")),
    started("clock", "is behind the newest audit entry", |vault| {
        let event =
            AuditEvent::new(real_time().plus(std::time::Duration::from_hours(24)), Principal::system(), Operation::Freeze, "p".into());
        run_now(vault.commit_offline(Change::SetFrozen(true), event));
        None
    }),
    started("wrapper key patterns", "the pattern \"local:00*\" of [wrapper] prefer", |vault| {
        edit(vault, "[wrapper]", "[wrapper]\nprefer = [\"local:00*\"]")
    }),
    started("rotation", "0 of 1 keys have a verified wrap under the active wrapper key", |vault| {
        assert_eq!(vault.database().execute("UPDATE wraps SET quarantined = 1", []).unwrap(), 1);
        None
    }),
    fresh("wrapper key", "there is no wrapper key yet", |vault| remove(vault, "wrapper.key")),
    started("configured wrapper key", "but the active wrapper key of the store is", |vault| {
        create_key_file(&vault.path("wrapper-2.key"), &SystemRandom::default()).unwrap();
        edit(vault, "reference = \"wrapper.key\"", "reference = \"wrapper-2.key\"")
    }),
];

/// Checks with a test of their own: `serve` starts without its KMS, without its sinks (`audit_sinks`) and without its collector of
/// traces (`traces`). It does not assess wrapper keys (`posture`).
/// Settings of PostgreSQL are in `replicas`.
const OTHERS: [&str; 6] = ["KMS server", "registered wrapper key", "wrapper key posture", "audit sink", "trace collector", "durability"];

#[test]
fn every_check_has_a_mistake() {
    let tested: BTreeSet<_> = MISTAKES.iter().map(|mistake| mistake.check).chain(OTHERS).collect();
    assert_eq!(tested, CHECKS.iter().map(|check| check.name).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn for_each_mistake_both_say_the_same_sentence() {
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        if let Err(what) = try_mistake(mistake).await {
            wrong.push(format!("{}: {}: {what}", mistake.check, mistake.says));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes a mistake, and compares what the two commands say and how they end.
async fn try_mistake(Mistake { check, says, started, make }: &Mistake) -> Result<(), String> {
    let mut vault = TestVault::prepare(|config| config);
    if *started {
        vault.serve();
        create(&vault).await;
        assert!(vault.terminate());
    }
    let _guard = make(&mut vault);
    let fails = CHECKS.iter().find(|one| one.name == *check).unwrap().severity == Severity::Fail;
    let (success, lines) = checked(&vault);
    if success == fails {
        return Err(format!("check succeeds: {success}: {lines:#}"));
    }
    let status = if fails { "fail" } else { "warn" };
    let of_check = |line: &&Value| line["check"] == *check && line["status"] == status;
    let line = lines.as_array().unwrap().iter().filter(of_check).find(|line| line["detail"].as_str().unwrap().contains(says));
    let Some(line) = line else { return Err(format!("check does not say it: {lines:#}")) };
    let sentence = line["detail"].as_str().unwrap();
    if fails {
        let printed = vault.refuses_to_serve();
        return if printed.contains(sentence) { Ok(()) } else { Err(format!("{sentence}\nserve: {printed}")) };
    }
    vault.serve();
    until(&format!("{check}: {sentence}"), || async { vault.log().iter().any(|line| line["message"] == sentence) }).await;
    if vault.terminate() { Ok(()) } else { Err("serve did not end well".to_owned()) }
}

#[tokio::test]
async fn modes_of_kubernetes_and_systemd_are_accepted() {
    let mut vault = TestVault::start();
    assert!(vault.terminate());
    for mode in [0o400, 0o440, 0o640, 0o660] {
        for file in ["pki/server.key", "keyvault.db"] {
            fs::set_permissions(vault.path(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (success, lines) = checked(&vault);
        assert!(success && status(&lines, "file modes") == "ok", "{mode:o}: {lines:#}");
    }
}

#[tokio::test]
async fn check_is_usable_beside_the_vault_that_runs() {
    let vault = TestVault::start();
    create(&vault).await;
    let address = |url: &str| url.split_once("//").unwrap().1.to_owned();
    edit(&vault, "api = \"127.0.0.1:0\"", &format!("api = \"{}\"", address(vault.url())));
    edit(&vault, "ops = \"127.0.0.1:0\"", &format!("ops = \"{}\"", address(vault.ops_url())));
    let (success, lines) = checked(&vault);
    assert!(success, "{lines:#}");
    let detail =
        |check: &str| lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap()["detail"].as_str().unwrap().to_owned();
    assert!(detail("storage").ends_with("; a vault uses it now"), "{lines:#}");
    assert!(detail("listen").contains("is in use. A vault uses the database now"), "{lines:#}");
    // A second vault is refused.
    assert!(vault.refuses_to_serve().contains("is in use by another process"));
    let (success, _) = checked(&vault);
    assert!(success, "and it did not disturb the first one");
}

#[tokio::test]
async fn check_succeeds_after_a_rotation_and_without_the_retired_wrapper_key() {
    let mut vault = TestVault::start();
    create(&vault).await;
    let admin = vault.client("wrapper-admin");
    let first = admin.get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].as_str().unwrap().to_owned();
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    admin.post(&format!("/v1/wrapper-keys/{first}/retire"), &json!({})).await.unwrap();
    let reference = admin.get(&format!("/v1/wrapper-keys/{second}")).await.unwrap()["reference"].as_str().unwrap().to_owned();
    edit(&vault, "reference = \"wrapper.key\"", &format!("reference = {reference:?}"));
    fs::remove_file(vault.path("wrapper.key")).unwrap();
    let (success, lines) = checked(&vault);
    assert!(success && status(&lines, "configured wrapper key") == "ok" && status(&lines, "rotation") == "ok", "{lines:#}");
    let registered = lines.as_array().unwrap().iter().filter(|line| line["check"] == "registered wrapper key").count();
    assert_eq!(registered, 1, "{lines:#}");
    vault.restart();
    create(&vault).await;
}

/// The two differ: `check` fails, and `serve` starts, because open keys and other wrapper keys would work. The sentence is the same.
#[tokio::test]
async fn a_registered_wrapper_key_that_does_not_work_fails_the_check_and_is_logged() {
    let mut vault = TestVault::start();
    create(&vault).await;
    assert!(vault.terminate());
    fs::rename(vault.path("wrapper.key"), vault.path("aside.key")).unwrap();
    let (success, lines) = checked(&vault);
    let line = lines.as_array().unwrap().iter().find(|line| line["check"] == "registered wrapper key").unwrap().clone();
    assert!(!success && line["status"] == "fail", "{lines:#}");
    let sentence = line["detail"].as_str().unwrap();
    assert!(sentence.contains("a registered wrapper key does not work") && sentence.contains("wrapper.key"), "{sentence}");
    vault.serve();
    until("serve says so", || async { vault.log().iter().any(|line| line["message"] == sentence) }).await;
}

// --- helpers ---

/// Whether `check` succeeded, and its lines.
fn checked(vault: &TestVault) -> (bool, Value) {
    // By the same path as `serve`, because sentences name files.
    let output = vault.command(&["check", "--output", "json", "--config"]).arg(vault.path("keyvault.toml")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), lines)
}

fn status<'a>(lines: &'a Value, check: &str) -> &'a str {
    lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap()["status"].as_str().unwrap()
}

async fn create(vault: &TestVault) {
    let new = json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" });
    vault.client("participant1").create("/v1/keys", &new).await.unwrap();
}

fn edit(vault: &TestVault, from: &str, to: &str) -> Guard {
    let text = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    fs::write(vault.path("keyvault.toml"), text.replacen(from, to, 1)).unwrap();
    None
}

fn remove(vault: &TestVault, file: &str) -> Guard {
    fs::remove_file(vault.path(file)).unwrap();
    None
}

fn copy(vault: &TestVault, from: &str, to: &str) -> Guard {
    fs::copy(vault.path(from), vault.path(to)).unwrap();
    None
}

/// A server certificate, valid from so many days from now until half a day after so many.
fn server_certificate(vault: &TestVault, from: i64, until: i64, change: fn(&mut CertificateParams)) -> Guard {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (now() + Duration::days(from), now() + Duration::days(until) + Duration::hours(12));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    fs::write(vault.path("pki/server.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(vault.path("pki/server.key"), key.serialize_pem()).unwrap();
    None
}

/// A further client CA, valid until so many days from now.
fn client_ca(vault: &TestVault, until: i64) -> Guard {
    let (mut params, key) = Ca::params("old CA");
    params.not_after = now() + Duration::days(until);
    let mut all = fs::read_to_string(vault.path("pki/ca.pem")).unwrap();
    all.push_str(&params.self_signed(&key).unwrap().pem());
    fs::write(vault.path("pki/ca.pem"), all).unwrap();
    None
}

#[expect(clippy::disallowed_methods, reason = "the binary under test has the real clock")]
fn real_time() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(real_time().seconds()).unwrap()
}

fn small_disk(vault: &TestVault) -> SmallDisk {
    let disk = SmallDisk::new();
    let path = disk.path("keyvault.db");
    edit(vault, "path = \"keyvault.db\"", &format!("path = \"{}\"", path.display()));
    disk
}

/// Runs the binary as another user, who owns the folder of the vault. Root may write anywhere.
fn as_nobody(vault: &mut TestVault) {
    own(vault.folder(), NOBODY);
    vault.run_by(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
}

fn own(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap_or_else(|error| panic!("this test needs root to change owners: {error}"));
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), user);
        }
    }
}

/// Runs a future from a function that is not async.
fn run_now(future: impl Future<Output = ()>) {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future));
}

const NOBODY: u32 = 65534;
