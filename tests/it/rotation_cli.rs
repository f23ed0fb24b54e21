//! Rotation, retirement and re-seal through the command line only, against a real vault.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::{TestVault, until},
    wrapper::CENTRAL,
};

/// A command of a principal, answering JSON.
fn command(vault: &TestVault, principal: &str, line: &str) -> Command {
    let options = vault.options(principal);
    let mut command = vault.command(&line.split_whitespace().collect::<Vec<_>>());
    command.args(["--output", "json", "--url", &options.url]);
    command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    command
}

fn done(line: &str, output: &Output) -> Value {
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(vault: &TestVault, principal: &str, line: &str) -> Value {
    done(line, &command(vault, principal, line).output().unwrap())
}

/// The code of the last document on standard error.
fn refused(vault: &TestVault, principal: &str, line: &str) -> String {
    let output = command(vault, principal, line).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{line}");
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    error["code"].as_str().unwrap().to_owned()
}

fn create(vault: &TestVault) -> String {
    let key = run(vault, "participant1", "keys create --node participant1 --purpose signing --spec ec-curve25519");
    key["id"].as_str().unwrap().to_owned()
}

fn sign_all(vault: &TestVault, keys: &[String]) {
    for key in keys {
        run(vault, "participant1", &format!("keys sign {key} --algorithm ed25519 --message-text hello"));
    }
}

#[test]
fn a_wrapper_key_is_replaced_by_the_command_line_alone() {
    let mut vault = TestVault::start();
    let keys: Vec<String> = (0..3).map(|_| create(&vault)).collect();
    let old = run(&vault, "wrapper-admin", "wrapper list")["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(refused(&vault, "wrapper-admin", "wrapper rotation show"), "failed");
    let new = run(&vault, "wrapper-admin", "wrapper create --provider local");
    assert_eq!(new["state"], "standby");
    let new = new["id"].as_str().unwrap();

    let rotate = format!("wrapper rotation start --to {new} --wait");
    assert_eq!(refused(&vault, "participant1", &rotate), "forbidden");
    let job = run(&vault, "wrapper-admin", &rotate);
    let expected =
        json!({"kind": "rotation", "from": old, "to": new, "state": "succeeded", "total": 3, "done": 3, "failed": 0, "errors": []});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&job[field], value, "{job}");
    }
    let id = job["id"].as_str().unwrap();
    assert_eq!(run(&vault, "wrapper-admin", "wrapper rotation show"), job);
    assert_eq!(run(&vault, "auditor", &format!("wrapper rotation show {id} --wait")), job);
    assert_eq!(refused(&vault, "wrapper-admin", "wrapper rotation abort"), "failed");
    assert_eq!(refused(&vault, "wrapper-admin", &format!("wrapper rotation abort {id}")), "job_ended");
    let state = |id: &str| run(&vault, "wrapper-admin", &format!("wrapper show {id}"));
    assert_eq!((&state(&old)["state"], &state(new)["state"], &state(new)["keys"]), (&json!("draining"), &json!("active"), &json!(3)));

    assert_eq!(refused(&vault, "wrapper-admin", &format!("wrapper retire {new} --yes")), "invalid_wrapper_key_state");
    let retired = run(&vault, "wrapper-admin", &format!("wrapper retire {old} --yes"));
    assert_eq!(
        (&retired["state"], &retired["retirement"]["wraps_dropped"], &retired["retirement"]["keys"]),
        (&json!("retired"), &json!(3), &json!(3))
    );
    assert_eq!((&state(&old)["state"], &state(&old)["keys"]), (&json!("retired"), &json!(0)));

    // Nothing needs the old one any more, and nothing that is open in memory hides that.
    fs::remove_file(vault.path("wrapper.key")).unwrap();
    vault.restart();
    sign_all(&vault, &keys);

    let before = run(&vault, "key-admin", &format!("keys show {}", keys[0]));
    let resealed = run(&vault, "key-admin", &format!("keys reseal {}", keys[0]));
    assert_eq!((&resealed["id"], &resealed["public_key"]), (&before["id"], &before["public_key"]));
    assert_ne!(resealed["wraps"], before["wraps"]);
    assert_eq!(refused(&vault, "wrapper-admin", "keys reseal-job start"), "forbidden");
    let job = run(&vault, "key-admin", "keys reseal-job start --wait");
    assert_eq!((&job["kind"], &job["state"], &job["done"]), (&json!("reseal"), &json!("succeeded"), &json!(3)), "{job}");
    assert_eq!(run(&vault, "key-admin", "keys reseal-job show"), job);
    assert_eq!(refused(&vault, "key-admin", "keys reseal-job abort"), "failed");
    vault.restart();
    sign_all(&vault, &keys);
}

#[tokio::test]
async fn waiting_outlasts_a_crash_of_the_vault_and_an_abort_ends_it() {
    // The port is the same after the crash.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut vault = TestVault::start_with(|config| {
        let with_port = config.replacen("api = \"127.0.0.1:0\"", &format!("api = \"127.0.0.1:{port}\""), 1);
        assert_ne!(config, with_port);
        with_port + "\n[jobs]\nkeys_per_second = 1\nconcurrency = 1\n"
    });
    let keys: Vec<String> = (0..6).map(|_| create(&vault)).collect();
    let first = run(&vault, "wrapper-admin", "wrapper list")["items"][0]["id"].as_str().unwrap().to_owned();

    let started = run(&vault, "key-admin", "keys reseal-job start");
    assert_eq!(started["state"], "running");
    let line = "keys reseal-job show --wait";
    let mut waiting = command(&vault, "key-admin", line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let looked = || async {
        let path = "/v1/audit/entries?operation=reseals.show&limit=1";
        !vault.client("auditor").get(path).await.unwrap()["items"].as_array().unwrap().is_empty()
    };
    until("somebody waits", looked).await;
    vault.kill();
    let mut told = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("still waiting, although the vault does not answer")));
    vault.serve();
    assert!(told.any(|line| line == "re-seal: the vault answers again"));
    let job = done(line, &waiting.wait_with_output().unwrap());
    assert_eq!((&job["id"], &job["state"], &job["done"]), (&started["id"], &json!("succeeded"), &json!(6)));

    // An abort ends the waiting too, as a failure.
    let new = run(&vault, "wrapper-admin", "wrapper create --provider local")["id"].as_str().unwrap().to_owned();
    let started = run(&vault, "wrapper-admin", &format!("wrapper rotation start --to {new}"));
    let waiting =
        command(&vault, "wrapper-admin", "wrapper rotation show --wait").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(refused(&vault, "wrapper-admin", &format!("wrapper rotation start --to {first}")), "job_running");
    let aborted = run(&vault, "wrapper-admin", "wrapper rotation abort");
    assert_eq!((&aborted["id"], &aborted["state"]), (&started["id"], &json!("aborted")));
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(last["state"], "aborted");
    let told = String::from_utf8(output.stderr).unwrap();
    let error: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(error["code"], "job_aborted", "{told}");

    // The way back.
    run(&vault, "wrapper-admin", &format!("wrapper rotation start --to {first} --wait"));
    run(&vault, "wrapper-admin", &format!("wrapper retire {new} --yes"));
    vault.restart();
    sign_all(&vault, &keys);
}

/// Without a terminal, a step that cannot be undone needs `--yes`, and `--dry-run` shows it. Neither changes anything.
#[test]
fn a_step_that_cannot_be_undone_is_shown_and_confirmed() {
    let vault = TestVault::start();
    let key = create(&vault);
    let old = run(&vault, "wrapper-admin", "wrapper list")["items"][0]["id"].as_str().unwrap().to_owned();
    let new = run(&vault, "wrapper-admin", "wrapper create --provider local")["id"].as_str().unwrap().to_owned();
    run(&vault, "wrapper-admin", &format!("wrapper rotation start --to {new} --wait"));
    let (supersede, delete, retire) =
        (format!("keys supersede {key}"), format!("keys delete {key} --days 8"), format!("wrapper retire {old}"));
    for (principal, line, effect) in [
        ("key-admin", &supersede, "never signs or encrypts again"),
        ("key-admin", &delete, "destroys it in 8 days"),
        ("wrapper-admin", &retire, "wraps under this wrapper key are deleted"),
    ] {
        let output = command(&vault, principal, line).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{line}: {error}");
        assert!(error.contains("add --yes"), "{line}: {error}");
        let plan = run(&vault, principal, &format!("{line} --dry-run"));
        assert_eq!(plan["dry_run"], true);
        assert!(plan["effect"].as_str().unwrap().contains(effect), "{plan}");
        assert!(plan["key"]["id"] == json!(key) || plan["wrapper_key"]["retirement"]["wraps_dropped"] == 1, "{plan}");
    }
    assert_eq!(run(&vault, "key-admin", &format!("keys show {key}"))["state"], "active");
    assert_eq!(run(&vault, "wrapper-admin", &format!("wrapper show {old}"))["state"], "draining");

    assert_eq!(run(&vault, "key-admin", &format!("{supersede} --yes"))["state"], "superseded");
    assert_eq!(run(&vault, "wrapper-admin", &format!("{retire} --yes"))["state"], "retired");
    // A dry run says what the vault would refuse.
    let output = command(&vault, "key-admin", &format!("{supersede} --dry-run")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("invalid_key_state"), "{error}");
    assert_eq!(refused(&vault, "wrapper-admin", &format!("{retire} --dry-run")), "invalid_wrapper_key_state");
    assert_eq!(run(&vault, "key-admin", &format!("{delete} --yes"))["state"], "pending-deletion");
    let permanent = "keys create --node participant1 --purpose signing --spec ec-curve25519 --class permanent --usage namespace";
    let permanent = run(&vault, "key-admin", permanent)["id"].as_str().unwrap().to_owned();
    let output = command(&vault, "key-admin", &format!("keys delete {permanent} --dry-run")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("permanent_key"));
}

#[test]
fn a_backup_opens_while_a_wrapper_key_of_its_time_lives() {
    // Else a wrapper key that is gone ends a call, as one that somebody disabled on purpose does.
    let mut vault = TestVault::start_with(|config| config.replacen("[wrapper]\n", "[wrapper]\nfailover_on_denied = true\n", 1));
    let keys: Vec<String> = (0..2).map(|_| create(&vault)).collect();
    let backup = |vault: &TestVault, file: &str| assert!(vault.command(&["backup", file]).output().unwrap().status.success());
    let old = run(&vault, "wrapper-admin", "wrapper list")["items"][0]["id"].as_str().unwrap().to_owned();
    backup(&vault, "before.db");
    let made = run(&vault, "wrapper-admin", "wrapper create --provider local");
    let (new, reference) = (made["id"].as_str().unwrap(), made["reference"].as_str().unwrap());
    run(&vault, "wrapper-admin", &format!("wrapper rotation start --to {new} --wait"));
    backup(&vault, "between.db");
    run(&vault, "wrapper-admin", &format!("wrapper retire {old} --yes"));
    backup(&vault, "after.db");
    vault.terminate();

    // What opens while both keys live, without the old one, and without the new one.
    let drill = |file: &str| {
        let output = vault.command(&["verify-backup", file, "--output", "json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.success(), told["failed"] == json!([]), "{told}");
        told["opened"].as_u64().unwrap()
    };
    let drill_without = |key: &Path| {
        let aside = key.with_extension("aside");
        fs::rename(key, &aside).unwrap();
        let opened = ["before.db", "between.db", "after.db"].map(&drill);
        fs::rename(&aside, key).unwrap();
        opened
    };
    assert_eq!(["before.db", "between.db", "after.db"].map(&drill), [2, 2, 2]);
    assert_eq!(drill_without(&vault.path("wrapper.key")), [0, 2, 2]);
    assert_eq!(drill_without(Path::new(reference)), [2, 2, 0]);

    // The oldest is restored, and rotated once more: the key of later is registered again.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(vault.path(&format!("keyvault.db{suffix}")));
    }
    fs::copy(vault.path("before.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    sign_all(&vault, &keys);
    assert_eq!(run(&vault, "wrapper-admin", "wrapper list")["items"].as_array().unwrap().len(), 1);
    let again = run(&vault, "wrapper-admin", &format!("wrapper register --provider local --reference {reference}"));
    run(&vault, "wrapper-admin", &format!("wrapper rotation start --to {} --wait", again["id"].as_str().unwrap()));
    run(&vault, "wrapper-admin", &format!("wrapper retire {old} --yes"));
    vault.restart();
    sign_all(&vault, &keys);
}

#[tokio::test]
async fn a_filled_standby_takes_over_while_the_active_kms_key_is_disabled() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let keys = [aws.key().await, aws.key().await];
    let other = aws.kms.create_key(CENTRAL, false).await;
    let standby = run(&aws.vault, "wrapper-admin", &format!("wrapper register --provider aws-kms --reference {other}"));
    let show = format!("wrapper show {}", standby["id"].as_str().unwrap());
    until("the standby is filled", || async { run(&aws.vault, "wrapper-admin", &show)["keys"] == 2 }).await;

    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
    aws.vault.restart();
    assert_eq!(aws.refused(&keys[0]).await.code, "wrapper_denied", "somebody may have meant it");
    let job = run(&aws.vault, "wrapper-admin", &format!("wrapper rotation start --to {} --wait", standby["id"].as_str().unwrap()));
    assert_eq!((&job["state"], &job["done"]), (&json!("succeeded"), &json!(2)), "{job}");
    for key in [&keys[0], &keys[1], &aws.key().await] {
        aws.sign(key).await.unwrap();
    }
    run(&aws.vault, "wrapper-admin", &format!("wrapper retire {} --yes", job["from"].as_str().unwrap()));
}
