//! The files on the disk contain ciphertext only, are private to their owner, and belong to one vault, one mode, one process and one
//! schema.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{
    secret_search::{Patterns, known_keys},
    support::vault::TestVault,
};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn database_wal_and_backup_hold_no_private_key_and_belong_to_their_owner() {
    let mut vault = TestVault::start();
    let (admin, known) = (vault.client("key-admin"), known_keys());
    let patterns = Patterns::of(&known);
    for key in &known {
        let id = admin.create("/v1/keys/import", &key.import).await.unwrap()["id"].as_str().unwrap().to_owned();
        admin.post(&format!("/v1/keys/{id}/disable"), &json!({})).await.unwrap();
        admin.post(&format!("/v1/keys/{id}/enable"), &json!({})).await.unwrap();
    }
    let backup = vault.command(&["backup", "copy.db"]).output().unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    let wal = vault.path("keyvault.db-wal");
    assert!(fs::metadata(&wal).unwrap().len() > 4096, "the write-ahead log holds what was written");
    for round in ["while it is served", "after a kill", "after a good end"] {
        // All but the configuration, which this test wrote.
        for path in files(vault.folder()).into_iter().filter(|path| !path.ends_with("keyvault.toml")) {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(patterns.find(&bytes), [], "{}, {round}", path.display());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}, {round}", path.display());
        }
        let public = Patterns::of_text(&canton_keyvault::cli::pki::principal("key-admin"));
        assert!(!public.find(&fs::read(vault.path("copy.db")).unwrap()).is_empty(), "a principal's name is no secret, and must be found");
        match round {
            "while it is served" => vault.kill(),
            "after a kill" => {
                vault.serve();
                assert!(vault.terminate());
            }
            _ => {}
        }
    }
    // The control: one secret in the clear is found.
    fs::write(vault.path("leak"), &known[0].material).unwrap();
    assert!(!patterns.find(&fs::read(vault.path("leak")).unwrap()).is_empty());
}

/// Exit code and standard error of a `serve` that must not come up.
fn refused(vault: &TestVault) -> (Option<i32>, String) {
    let serve = vault.command(&["serve", "--config"]).arg(vault.path("keyvault.toml")).stderr(Stdio::piped()).output().unwrap();
    (serve.status.code(), String::from_utf8_lossy(&serve.stderr).into_owned())
}

#[track_caller]
fn assert_refused(vault: &TestVault, line: &str) {
    let before = fs::read(vault.path("keyvault.db")).unwrap();
    let (code, said) = refused(vault);
    assert_eq!(code, Some(1), "{said}");
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(last["level"] == "ERROR" && last["cause"].as_str().unwrap().contains(line), "{said}");
    assert_eq!(fs::read(vault.path("keyvault.db")).unwrap(), before, "what is refused is left as it was");
}

#[test]
fn a_second_process_on_the_same_file_is_refused() {
    let mut vault = TestVault::start();
    assert_refused(&vault, "is in use by another process: only one may run on a database");
    assert!(vault.terminate());
    vault.serve();
}

#[test]
fn a_newer_schema_and_another_vaults_database_are_refused() {
    let mut vault = TestVault::start();
    assert!(vault.terminate());
    let config = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    fs::write(vault.path("keyvault.toml"), config.replace("id = \"dev\"", "id = \"staging\"")).unwrap();
    assert_refused(&vault, "the database belongs to the vault dev, and this is staging");
    fs::write(vault.path("keyvault.toml"), config).unwrap();
    let db = vault.database();
    let next: i64 = db.query_row("SELECT max(version) + 1 FROM refinery_schema_history", [], |row| row.get(0)).unwrap();
    let newer =
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (?1, 'newer', '2030-01-01T00:00:00Z', '1')";
    db.execute(newer, [next]).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_refused(&vault, &format!("the database has schema {next}, this program knows up to {}: run the newer version", next - 1));
    db.execute("DELETE FROM refinery_schema_history WHERE version = ?1", [next]).unwrap();
    vault.serve();
}

#[test]
fn serve_refuses_a_database_of_dev() {
    let vault = TestVault::prepare(|config| config);
    let (mut dev, shown, _) = start_dev(&vault);
    stop(&mut dev);
    assert!(shown.iter().any(|line| line.starts_with("A first signature")), "{shown:#?}");
    assert_refused(&vault, "the database was made for dev, and this is production: a development database stays one");
}

#[test]
fn dev_serves_a_frozen_store_and_says_so() {
    let vault = TestVault::prepare(|config| config);
    let (mut dev, shown, url) = start_dev(&vault);
    let id = shown.iter().find_map(|line| line.strip_prefix("  key       ")).unwrap();
    // Without an active key, `dev` would create one.
    for arguments in [&["keys", "disable", id][..], &["freeze"]] {
        let mut command = vault.command(arguments);
        command.args(["--url", &url, "--ca"]).arg(vault.path("pki/ca.pem"));
        command.arg("--cert").arg(vault.path("pki/key-admin.pem")).arg("--key").arg(vault.path("pki/key-admin.key"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    stop(&mut dev);
    let (mut dev, shown, _) = start_dev(&vault);
    stop(&mut dev);
    assert!(shown.iter().any(|line| line.starts_with("No first signature") && line.contains("frozen")), "{shown:#?}");
}

/// `dev` in the folder of a vault, what it shows, and its URL.
fn start_dev(vault: &TestVault) -> (Child, Vec<String>, String) {
    // Ports that were free a moment ago.
    let [api, ops] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
    let mut dev = Command::new(env!("CARGO_BIN_EXE_canton-keyvault"))
        .args(["dev", "--listen", &api, "--ops-listen", &ops, "--dir"])
        .arg(vault.folder())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let shown = BufReader::new(dev.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.starts_with("Stop with"))
        .collect();
    (dev, shown, format!("https://{api}"))
}

fn stop(dev: &mut Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(dev), rustix::process::Signal::TERM).unwrap();
    assert!(dev.wait().unwrap().success());
}
