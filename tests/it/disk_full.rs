//! A full disk, with a real file system: uses are refused, freeze and disable work, and the vault recovers without a restart.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    jobs::{ended, new_wrapper_key, rotate, wraps},
    vault::{TestVault, problem, until},
};

/// A file system of a few megabytes. Fails, and says why, where it cannot be made.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]).arg(folder.path()).status();
        let ok = mounted.as_ref().is_ok_and(std::process::ExitStatus::success);
        assert!(ok, "a small disk needs the right to mount a tmpfs (root, CAP_SYS_ADMIN); run this test as root: {mounted:?}");
        Self(folder)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Writes until nothing more fits, not even what SQLite would still find in a half-used page.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.path("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

fn vault_on(disk: &SmallDisk) -> TestVault {
    vault_with(disk, "")
}

fn vault_with(disk: &SmallDisk, sections: &str) -> TestVault {
    let database = disk.path("keyvault.db");
    TestVault::start_with(|config| config.replace("path = \"keyvault.db\"", &format!("path = \"{}\"", database.display())) + sections)
}

async fn new_key(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sign(vault: &TestVault, id: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &body).await
}

/// Status and document of `/readyz`.
fn ready(vault: &TestVault) -> (u16, Value) {
    let mut stream = TcpStream::connect(vault.ops_url().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// Operation, outcome, reason and request id of every entry, in the order of the log, which has no gap.
fn entries(database: &Path) -> Vec<(String, String, Value, Value)> {
    let db = rusqlite::Connection::open(database).unwrap();
    let mut sql = db.prepare("SELECT sequence, entry FROM audit_entries ORDER BY sequence").unwrap();
    let rows = sql.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    rows.enumerate()
        .map(|(before, row)| {
            let (sequence, entry) = row.unwrap();
            assert_eq!(usize::try_from(sequence).unwrap(), before + 1, "a gap");
            let mut entry: Value = serde_json::from_slice(&entry).unwrap();
            let word = |field: &str| entry[field].as_str().unwrap().to_owned();
            (word("operation"), word("outcome"), entry["reason"].clone(), entry["request_id"].take())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_uses_but_neither_freeze_nor_disable_and_heals_by_itself() {
    let disk = SmallDisk::new();
    let vault = vault_on(&disk);
    let (open, disabled) = (new_key(&vault).await, new_key(&vault).await);
    for id in [&open, &disabled] {
        sign(&vault, id).await.unwrap();
    }
    assert_eq!(ready(&vault).0, 200);
    let pid = vault.pid();
    disk.fill();

    // A page or two of the log may still have room: then the answers have their entries. Soon there is none.
    until("uses are refused", || async { sign(&vault, &open).await.is_err() }).await;
    let before = entries(&disk.path("keyvault.db")).len();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let (node, admin) = (vault.client("participant1"), vault.client("key-admin"));
    for refused in [
        problem(sign(&vault, &open).await),
        problem(node.create("/v1/keys", &new).await),
        problem(node.get("/v1/keys").await),
        problem(admin.post(&format!("/v1/keys/{open}/enable"), &json!({})).await),
    ] {
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (503, "audit_unavailable", true), "{refused:?}");
    }
    let (status, document) = ready(&vault);
    assert_eq!((status, &document["ready"]), (503, &json!(false)));
    assert!(document["reasons"].as_array().unwrap().contains(&json!({ "code": "audit_unavailable" })), "{document}");

    // What takes rights away works, and says what it could not do.
    let answer = admin.post(&format!("/v1/keys/{disabled}/disable"), &json!({})).await.unwrap();
    assert_eq!((&answer["state"], &answer["recorded"]), (&json!("disabled"), &json!(false)));
    let answer = admin.post("/v1/freeze", &json!({})).await.unwrap();
    assert_eq!(answer["recorded"], json!(false), "{answer}");
    assert!(ready(&vault).1["reasons"].as_array().unwrap().contains(&json!({ "code": "frozen" })));
    assert_eq!(entries(&disk.path("keyvault.db")).len(), before, "nothing was written");

    // In force from that moment on: there is no instant at which the space is back and a key signs before the log knows.
    disk.free();
    until("the log can be written again", || async {
        for id in [&open, &disabled] {
            assert!(sign(&vault, id).await.is_err(), "a frozen vault signed");
        }
        !ready(&vault).1["reasons"].as_array().unwrap().contains(&json!({ "code": "audit_unavailable" }))
    })
    .await;
    let late = || entries(&disk.path("keyvault.db")).into_iter().filter(|entry| entry.2 == "recorded late").map(|entry| entry.0);
    until("both are in the log", || async { late().count() == 2 }).await;
    assert_eq!(late().collect::<Vec<_>>(), ["keys.disable", "vault.freeze"], "in the order in which they happened");
    assert_eq!(problem(sign(&vault, &open).await).code, "frozen");
    vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.unwrap();
    assert_eq!(problem(sign(&vault, &disabled).await).code, "key_disabled");
    sign(&vault, &open).await.unwrap();
    assert_eq!(admin.get(&format!("/v1/keys/{disabled}")).await.unwrap()["state"], "disabled");
    assert_eq!(vault.pid(), pid, "without a restart");
    admin.post(&format!("/v1/keys/{disabled}/enable"), &json!({})).await.unwrap();
    sign(&vault, &disabled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_on_a_full_disk_is_harmless() {
    let disk = SmallDisk::new();
    let mut vault = vault_on(&disk);
    let (first, second) = (new_key(&vault).await, new_key(&vault).await);
    disk.fill();
    until("uses are refused", || async { sign(&vault, &first).await.is_err() }).await;
    let answer = vault.client("key-admin").post(&format!("/v1/keys/{second}/disable"), &json!({})).await.unwrap();
    assert_eq!(answer["recorded"], json!(false), "the answer said that the log does not know");
    vault.kill();

    // There is no service without a log, and the line says what to do.
    let mut serve = vault.command(&["serve", "--config"]);
    let ended = serve.arg(vault.path("keyvault.toml")).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("the disk of the store is full"), "{said}");

    disk.free();
    vault.serve();
    for id in [&first, &second] {
        // What was not recorded did not outlive the crash; nothing else is lost.
        sign(&vault, id).await.unwrap();
    }
    assert!(!entries(&disk.path("keyvault.db")).is_empty());
}

/// A job waits for room and goes on by itself, with no key done twice or left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_waits_out_a_full_disk() {
    let disk = SmallDisk::new();
    let vault = vault_with(&disk, "\n[jobs]\nkeys_per_second = 2\nretry_backoff = \"50ms\"\n");
    let mut keys = Vec::new();
    for _ in 0..15 {
        keys.push(new_key(&vault).await);
    }
    let (second, pid) = (new_wrapper_key(&vault).await, vault.pid());
    let database = || rusqlite::Connection::open(disk.path("keyvault.db")).unwrap();
    let under_second = || -> usize {
        let sql = "SELECT count(*) FROM wraps WHERE wrapper_key = ?1";
        usize::try_from(database().query_row(sql, [&second], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
    };
    let job = rotate(&vault, &second).await;
    until("it began", || async { under_second() > 1 }).await;
    disk.fill();
    until("uses are refused", || async { sign(&vault, &keys[0]).await.is_err() }).await;
    let done = under_second();
    assert!(done < keys.len(), "the disk was full too late");
    until("the job met it", || async { vault.log().iter().any(|line| line.to_string().contains("a sweep could not process this key")) })
        .await;
    let state: String = database().query_row("SELECT state FROM jobs", [], |row| row.get(0)).unwrap();
    assert_eq!((state.as_str(), under_second()), ("running", done), "it waits");

    disk.free();
    until("the log can be written again", || async { ready(&vault).0 == 200 }).await;
    let job = ended(&vault, &job).await;
    assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("succeeded"), &json!(keys.len()), &json!(0)), "{job}");
    for key in &keys {
        assert_eq!(wraps(&vault, key).await.len(), 2);
        sign(&vault, key).await.unwrap();
    }
    assert_eq!(vault.pid(), pid, "without a restart");
    let entries = entries(&disk.path("keyvault.db"));
    assert_eq!(entries.iter().filter(|entry| entry.0 == "keys.rewrap" && entry.1 == "ok").count(), keys.len());
}
