//! Every step of `docs/runbooks.md` is carried out against a vault and the KMS double, in the order of the document. A command that is not carried out
//! is listed here with the reason.

use std::{cell::RefCell, collections::BTreeSet, fs, path::Path};

use canton_keyvault::cli::Cli;
use clap::{Parser as _, error::ErrorKind};
use serde_json::{Value, json};

use crate::{
    audit_reconcile::deliver,
    support::{
        aws_vault::{AwsVault, Setup},
        kms::Kms,
        proxy::TcpProxy,
        vault::until,
        wrapper::{CENTRAL, WEST},
    },
};

/// Commands that no test carries out, and why.
const NOT_EXECUTED: &[(&str, &str)] = &[
    ("aws cloudtrail", "the double has no such call; it writes the records, which `audit reconcile` reads"),
    ("aws s3", "the test writes the files of CloudTrail"),
    ("wrapper rotation abort", "no rotation runs at this step; tests/it/rotation.rs aborts one"),
    ("keys reseal-job abort", "no re-seal runs at this step; tests/it/reseal.rs aborts one"),
];

/// One section of the document with the commands of its steps.
struct Runbook {
    steps: Vec<Step>,
    executed: RefCell<BTreeSet<(String, usize)>>,
    values: RefCell<Vec<(&'static str, String)>>,
}

struct Step {
    /// The number of the step, `-1` for the first bullet, or the first bold word of a paragraph.
    label: String,
    /// The roles of the last column.
    roles: String,
    commands: Vec<String>,
}

impl Runbook {
    fn read(heading: &str) -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md")).unwrap();
        let start = text.find(&format!("# {heading}\n")).unwrap_or_else(|| panic!("{heading} is no heading")) + heading.len();
        let section = text[start..].split("\n#").next().unwrap();
        let (mut steps, mut bullets): (Vec<Step>, _) = (Vec::new(), 0);
        for line in section.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let numbered = line.split_once(". ").map(|(number, _)| number).filter(|number| number.parse::<u32>().is_ok());
            let label = match (cells.as_slice(), numbered) {
                (["", number, _, _, ""], _) if number.parse::<u32>().is_ok() => Some((*number).to_owned()),
                (_, Some(number)) => Some(number.to_owned()),
                _ if line.starts_with("- ") => {
                    bullets += 1;
                    Some(format!("-{bullets}"))
                }
                _ => line.strip_prefix("**").and_then(|bold| bold.split("**").next()).map(|bold| bold.trim_end_matches('.').to_owned()),
            };
            if let Some(label) = label {
                let roles = if cells.len() == 5 { cells[3].to_owned() } else { String::new() };
                steps.push(Step { label, roles, commands: Vec::new() });
            } else if line.is_empty() || line.starts_with('|') {
                steps.push(Step { label: String::new(), roles: String::new(), commands: Vec::new() });
            }
            if let Some(step) = steps.last_mut().filter(|step| !step.label.is_empty()) {
                step.commands.extend(line.split('`').skip(1).step_by(2).filter(|code| is_command(code)).map(str::to_owned));
            }
        }
        Self { steps, executed: RefCell::default(), values: RefCell::default() }
    }

    fn set(&self, name: &'static str, value: &str) {
        let mut values = self.values.borrow_mut();
        values.retain(|(known, _)| *known != name);
        values.push((name, value.to_owned()));
        // `wk-NEW` before `NEW`.
        values.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    fn step(&self, label: &str) -> &Step {
        self.steps.iter().find(|step| step.label == label).unwrap_or_else(|| panic!("there is no step {label}"))
    }

    /// Carries out every command of a step.
    async fn execute(&self, aws: &AwsVault, label: &str) -> Vec<Value> {
        let mut answers = Vec::new();
        for index in 0..self.step(label).commands.len() {
            answers.push(self.execute_one(aws, label, index).await);
        }
        answers
    }

    /// Carries out one command of a step.
    async fn execute_one(&self, aws: &AwsVault, label: &str, index: usize) -> Value {
        let step = self.step(label);
        let command = &step.commands[index];
        self.executed.borrow_mut().insert((label.to_owned(), index));
        if is_excused(command) {
            return Value::Null;
        }
        let given = self.values.borrow().iter().fold(command.clone(), |line, (name, value)| {
            line.split(' ').map(|word| if word == *name { value.as_str() } else { word }).collect::<Vec<_>>().join(" ")
        });
        let words: Vec<_> = given.split(' ').collect();
        if let ["aws", "kms", action, "--key-id", key, options @ ..] = words.as_slice() {
            return kms_call(aws, action, key, options).await;
        }
        let words = words.strip_prefix(&["canton-keyvault"]).unwrap_or(&words);
        let principal = principal(words);
        let role = principal.map_or("operator", |principal| if principal == "participant1" { "node" } else { principal });
        assert!(
            step.roles.is_empty() || step.roles.contains(role),
            "{label}: `{command}` needs {role}, and the document says {}",
            step.roles
        );
        let mut process = aws.vault.command(words);
        process.args(["--output", "json"]);
        if let Some(principal) = principal {
            let options = aws.vault.options(principal);
            process.args(["--url", &options.url]);
            process.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
        }
        let output = process.output().unwrap();
        assert!(output.status.success(), "step {label}: `{given}`: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Every command of the section was carried out.
    fn assert_complete(&self) {
        let executed = self.executed.borrow();
        for step in &self.steps {
            for (index, command) in step.commands.iter().enumerate() {
                let done = executed.contains(&(step.label.clone(), index)) || is_excused(command);
                assert!(done, "step {}: `{command}` was not carried out", step.label);
            }
        }
        assert!(!executed.is_empty());
    }
}

/// Whether code in the text is a command with all its arguments.
fn is_command(code: &str) -> bool {
    if code.starts_with("aws ") {
        return true;
    }
    let known = ["wrapper ", "keys ", "audit ", "freeze", "unfreeze", "backup ", "verify-backup ", "check"];
    let words = code.strip_prefix("canton-keyvault ").unwrap_or(code);
    if code == words && !known[..3].iter().any(|group| words.starts_with(group)) || !known.iter().any(|group| words.starts_with(group)) {
        return false;
    }
    let parsed = Cli::try_parse_from(std::iter::once("canton-keyvault").chain(words.split(' ').map(|word| match word {
        "wk-NEW" | "wk-OLD" | "wk-STANDBY" => "wk-001122334455",
        "ID" => "sym-00112233445566778899aabbccddeeff",
        "TIME" => "2026-01-31T12:00:00Z",
        "PROVIDER" => "aws-kms",
        "JOB" => "job-001122334455",
        word => word,
    })));
    match parsed {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => false,
        Err(error) => panic!("{code}: {error}"),
    }
}

fn is_excused(command: &str) -> bool {
    NOT_EXECUTED.iter().any(|(prefix, _)| command.strip_prefix("canton-keyvault ").unwrap_or(command).starts_with(prefix))
}

/// Who carries out a command. `None` for commands on the host.
fn principal(words: &[&str]) -> Option<&'static str> {
    match words {
        ["freeze", ..] | ["keys", "show" | "list" | "reseal" | "reseal-job", ..] => Some("key-admin"),
        ["wrapper", "rotation", "report", ..] | ["audit", ..] => Some("auditor"),
        ["unfreeze" | "wrapper", ..] => Some("wrapper-admin"),
        ["keys", ..] => Some("participant1"),
        _ => None,
    }
}

async fn kms_call(aws: &AwsVault, action: &str, key: &str, options: &[&str]) -> Value {
    let action: String = action.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let mut parameters = json!({ "KeyId": key });
    if let ["--pending-window-in-days", days] = options {
        parameters["PendingWindowInDays"] = json!(days.parse::<u32>().unwrap());
    } else {
        assert!(options.is_empty(), "{options:?}");
    }
    aws.kms.call(CENTRAL, &action, parameters).await
}

/// A vault with keys, one of them at hand, and the runbook with its placeholders.
async fn begin(heading: &str, setup: Setup) -> (AwsVault, Runbook, String) {
    let aws = AwsVault::start(setup).await;
    let key = aws.key().await;
    for _ in 0..3 {
        aws.key().await;
    }
    let runbook = Runbook::read(heading);
    runbook.set("ID", &key);
    runbook.set("ARN-OLD", &aws.arn);
    runbook.set("wk-OLD", &active(&aws).await);
    runbook.set("TIME", "2026-01-31T12:00:00Z");
    (aws, runbook, key)
}

async fn wrapper_keys(aws: &AwsVault) -> Vec<Value> {
    aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"].as_array().unwrap().clone()
}

async fn active(aws: &AwsVault) -> String {
    let keys = wrapper_keys(aws).await;
    keys.iter().find(|key| key["state"] == "active").unwrap()["id"].as_str().unwrap().to_owned()
}

async fn state_of(aws: &AwsVault, id: &str) -> (Value, Value) {
    let key = wrapper_keys(aws).await.into_iter().find(|key| key["id"] == id).unwrap();
    (key["state"].clone(), key["keys"].clone())
}

/// Waits until a standby has a wrap of every key.
async fn until_filled(aws: &AwsVault, id: &str) {
    until("the standby is filled", || async { state_of(aws, id).await == (json!("standby"), json!(4)) }).await;
}

/// Carries out the registration, and gives the id of the new wrapper key.
async fn register(aws: &AwsVault, runbook: &Runbook, label: &str) -> String {
    let arn = aws.kms.create_key(CENTRAL, false).await;
    runbook.set("ARN-NEW", &arn);
    let registered = runbook.execute(aws, label).await.pop().unwrap();
    let id = registered["id"].as_str().unwrap().to_owned();
    runbook.set("wk-NEW", &id);
    id
}

#[tokio::test]
async fn the_yearly_rotation_and_the_deletion_of_the_kms_key() {
    let (aws, runbook, key) = begin("Yearly rotation", Setup::default()).await;
    let old = active(&aws).await;
    runbook.execute(&aws, "When").await;
    runbook.execute(&aws, "1").await;
    let new = register(&aws, &runbook, "3").await;
    runbook.execute(&aws, "4").await;
    runbook.execute(&aws, "5").await;
    runbook.execute(&aws, "Rollback").await;
    assert_eq!(active(&aws).await, old);
    let job = runbook.execute(&aws, "4").await;
    runbook.set("JOB", job[0]["id"].as_str().unwrap());
    runbook.execute(&aws, "6").await;
    runbook.execute(&aws, "Verify").await;
    runbook.execute(&aws, "If it fails").await;
    assert_eq!((state_of(&aws, &new).await, state_of(&aws, &old).await), ((json!("active"), json!(5)), (json!("retired"), json!(0))));
    aws.sign(&key).await.unwrap();
    runbook.assert_complete();

    let deletion = Runbook::read("Before a KMS key is deleted");
    deletion.set("wk-OLD", &old);
    deletion.set("ARN-OLD", &aws.arn);
    for label in ["1", "2", "3", "4", "Rollback"] {
        deletion.execute(&aws, label).await;
    }
    deletion.assert_complete();
}

#[tokio::test]
async fn the_misuse_of_a_wrapper_key_while_the_vault_is_frozen() {
    let (aws, runbook, key) = begin("Suspected misuse of a wrapper key or a data key", Setup::default()).await;
    let old = active(&aws).await;
    runbook.execute(&aws, "1").await;
    assert_eq!(aws.refused(&key).await.code, "frozen");
    deliver(&aws.vault.path("cloudtrail"), &aws.kms.records(&[&aws.arn]));
    let compared = runbook.execute(&aws, "What the logs show").await.pop().unwrap();
    assert_eq!((&compared["reconciled"], &compared["unknown"]["total"]), (&json!(true), &json!(0)), "{compared:#}");
    let new = register(&aws, &runbook, "3").await;
    for label in ["4", "5", "6", "7", "8", "9"] {
        runbook.execute(&aws, label).await;
    }
    runbook.execute(&aws, "Verify").await;
    runbook.assert_complete();
    assert_eq!((state_of(&aws, &new).await, state_of(&aws, &old).await), ((json!("active"), json!(5)), (json!("retired"), json!(0))));
    let shown = aws.vault.client("key-admin").get(&format!("/v1/keys/{key}")).await.unwrap();
    let wraps = shown["wraps"].as_array().unwrap();
    assert!(wraps.iter().all(|wrap| wrap["wrapper_key"] == new.as_str()), "no data key was wrapped by the suspected one: {shown}");
    let by_old = aws.kms.log(aws.arn.rsplit('/').next().unwrap());
    let after: Vec<_> = by_old
        .iter()
        .skip_while(|call| call["action"] != "ReEncrypt")
        .filter(|call| call["action"] == "Encrypt" && call["context"]["key_id"].is_string())
        .collect();
    assert!(after.is_empty(), "{after:?}");
    aws.sign(&key).await.unwrap();
}

#[tokio::test]
async fn the_kms_key_is_disabled() {
    let (aws, runbook, key) = begin("The KMS key is disabled, or about to be deleted", Setup::default()).await;
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let registration = json!({ "provider": "aws-kms", "reference": arn });
    let standby =
        aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &registration).await.unwrap()["id"].as_str().unwrap().to_owned();
    runbook.set("wk-STANDBY", &standby);
    until_filled(&aws, &standby).await;
    let disable = || aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn }));
    disable().await;
    assert_eq!(aws.refused(&key).await.code, "wrapper_denied");
    runbook.execute_one(&aws, "2", 0).await;
    until("it signs again", || async { aws.sign(&key).await.is_ok() }).await;
    aws.kms.call(CENTRAL, "ScheduleKeyDeletion", json!({ "KeyId": aws.arn, "PendingWindowInDays": 7 })).await;
    runbook.execute_one(&aws, "2", 1).await;
    runbook.execute_one(&aws, "2", 2).await;
    disable().await;
    runbook.execute(&aws, "3").await;
    assert_eq!(active(&aws).await, standby);
    runbook.execute(&aws, "Verify").await;
    runbook.assert_complete();
}

#[tokio::test]
async fn the_region_of_the_kms_is_down() {
    let kms = Kms::shared().await;
    let arn = kms.create_key(CENTRAL, true).await;
    let line = TcpProxy::to(kms.endpoint().strip_prefix("http://").unwrap(), true);
    let wrapper = format!("regions = [{CENTRAL:?}, {WEST:?}]\nmay_create = true\nendpoints = {{ {CENTRAL} = {:?} }}", line.url());
    let setup = Setup { arn: Some(arn), wrapper, ..Setup::default() };
    let (aws, runbook, key) = begin("The region of the KMS is down", setup).await;
    runbook.execute(&aws, "Prevention").await;
    line.cut();
    aws.sign(&key).await.unwrap();
    line.mend();
    // The standby of the second bullet: of another key in the other region.
    let arn = aws.kms.create_key(WEST, false).await;
    let registration = json!({ "provider": "aws-kms", "reference": arn });
    let standby =
        aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &registration).await.unwrap()["id"].as_str().unwrap().to_owned();
    runbook.set("wk-STANDBY", &standby);
    until_filled(&aws, &standby).await;
    line.cut();
    runbook.execute(&aws, "-2").await;
    assert_eq!(active(&aws).await, standby);
    aws.key().await;
    line.mend();
    runbook.assert_complete();
}

#[tokio::test]
async fn the_move_to_another_kms_key() {
    let (mut aws, runbook, key) = begin("Another account, another provider", Setup::default()).await;
    let arn = aws.kms.create_key(CENTRAL, false).await;
    runbook.set("PROVIDER", "aws-kms");
    runbook.set("REFERENCE", &arn);
    aws.vault.terminate();
    runbook.execute(&aws, "2").await;
    aws.vault.serve();
    let new = runbook.execute(&aws, "3").await[0]["id"].as_str().unwrap().to_owned();
    runbook.set("wk-NEW", &new);
    until_filled(&aws, &new).await;
    runbook.execute(&aws, "4").await;
    runbook.execute(&aws, "5").await;
    runbook.execute(&aws, "Rollback").await;
    runbook.execute(&aws, "5").await;
    runbook.execute_one(&aws, "6", 0).await;
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
    runbook.execute_one(&aws, "6", 1).await;
    runbook.execute(&aws, "7").await;
    aws.vault.restart();
    aws.sign(&key).await.unwrap();
    runbook.assert_complete();
}

#[tokio::test]
async fn the_restoration_of_a_backup_from_before_a_rotation() {
    let (mut aws, runbook, key) = begin("Restore a backup from before a rotation", Setup::default()).await;
    // The rotation of the year before.
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let registration = json!({ "provider": "aws-kms", "reference": arn });
    let first = aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &registration).await.unwrap();
    until_filled(&aws, first["id"].as_str().unwrap()).await;
    aws.vault.client("wrapper-admin").post("/v1/wrapper-keys/rotations", &json!({ "to": first["id"] })).await.unwrap();
    until("it ended", || async { aws.entries("rotations.end", None).await.len() == 1 }).await;
    runbook.set("wk-OLD", first["id"].as_str().unwrap());
    let backup = aws.vault.command(&["backup", "copy.db"]).output().unwrap();
    assert!(backup.status.success(), "{backup:?}");
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let registration = json!({ "provider": "aws-kms", "reference": arn });
    aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &registration).await.unwrap();
    runbook.execute(&aws, "1").await;
    aws.vault.terminate();
    for file in ["keyvault.db-wal", "keyvault.db-shm"] {
        let _ = fs::remove_file(aws.vault.path(file));
    }
    fs::rename(aws.vault.path("keyvault.db"), aws.vault.path("kept.db")).unwrap();
    fs::copy(aws.vault.path("copy.db"), aws.vault.path("keyvault.db")).unwrap();
    aws.vault.serve();
    runbook.execute(&aws, "3").await;
    let again = aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &registration).await.unwrap();
    runbook.set("wk-NEW", again["id"].as_str().unwrap());
    runbook.execute(&aws, "4").await;
    runbook.execute(&aws, "Verify").await;
    aws.sign(&key).await.unwrap();
    runbook.assert_complete();
}

#[test]
fn every_section_with_steps_has_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md")).unwrap();
    let here = include_str!("runbook_steps.rs");
    let mut sections = 0;
    for section in text.split("\n#").skip(1).filter(|section| section.contains("**Rollback")) {
        let heading = section.lines().next().unwrap().trim_start_matches('#').trim();
        assert!(here.contains(&format!("\"{heading}\"")), "no test carries out the section {heading}");
        sections += 1;
    }
    assert_eq!(sections, 7);
}
