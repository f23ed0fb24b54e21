//! The commands of the section `PostgreSQL fails` of `docs/runbooks.md` are carried out while the failure is there, and what the section says that
//! operators see is what they see.

use std::{cell::RefCell, collections::BTreeSet, fs, path::Path, process::Output};

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    replicas::{readiness, started},
    support::{
        api::Caller,
        aws_vault::ops,
        postgres::{Database, shared_server},
        proxy::TcpProxy,
        vault::{TestVault, until},
    },
};

/// A section with its commands.
struct Runbook {
    text: String,
    commands: Vec<String>,
    executed: RefCell<BTreeSet<usize>>,
}

impl Runbook {
    fn read(heading: &str) -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md")).unwrap();
        let start = text.find(&format!("### {heading}\n")).unwrap_or_else(|| panic!("{heading} is no heading"));
        let text = text[start + 3..].split("\n#").next().unwrap().replace('\n', " ");
        let codes = text.split('`').skip(1).step_by(2).map(|code| code.split_whitespace().collect::<Vec<_>>().join(" "));
        let commands = codes.filter(|code| code.starts_with("psql ") || code.starts_with("canton-keyvault ")).collect();
        Self { text, commands, executed: RefCell::default() }
    }

    /// What an operator sees: a reason of the status, in its metric too, and perhaps what refused calls say.
    async fn appears(&self, vault: &TestVault, reason: &str, says: Option<&str>) {
        until("the status has the reason", async || readiness(vault).await["reasons"].to_string().contains(reason)).await;
        let metric = format!("keyvault_degraded{{reason=\"{reason}\"}}");
        assert!(self.text.contains(&metric) || self.text.contains(reason), "{metric}: {}", self.text);
        assert!(ops(vault, "/metrics").await.1.contains(&format!("{metric} 1")), "{metric}");
        if let Some(says) = says {
            assert!(self.text.contains(says), "{says}: {}", self.text);
        }
    }

    /// The text of the next command that begins so, which is noted as carried out.
    fn next(&self, beginning: &str) -> String {
        let mut executed = self.executed.borrow_mut();
        let found = self.commands.iter().enumerate().find(|(number, command)| !executed.contains(number) && command.starts_with(beginning));
        let (number, command) = found.unwrap_or_else(|| panic!("no command {beginning} is left: {:#?}", self.commands));
        executed.insert(number);
        command.clone()
    }

    /// Carries out the next `psql` command, with a value in place of a placeholder. Returns its rows.
    async fn psql(&self, database: &Client, (placeholder, value): (&str, &str)) -> Vec<Vec<Option<String>>> {
        let command = self.next("psql -c ").replace(placeholder, value);
        let sql = command.strip_prefix("psql -c \"").and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("{command}"));
        let messages = database.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// Carries out the next command of the vault.
    fn keyvault(&self, vault: &TestVault, command: &str) -> (Output, String) {
        let words = self.next(&format!("canton-keyvault {command}"));
        let words: Vec<_> = words.split(' ').skip(1).collect();
        let mut process = vault.command(&words);
        if command == "status" {
            let options = vault.options("auditor");
            process
                .args(["--url", &options.url])
                .arg("--ca")
                .arg(&options.ca)
                .arg("--cert")
                .arg(&options.cert)
                .arg("--key")
                .arg(&options.key);
        } else {
            process.args(["--config", "keyvault.toml"]);
        }
        let output = process.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output, printed)
    }

    /// The end of the section: the vault has no reason any more.
    async fn recovers(&self, vault: &TestVault) {
        until("it is ready again", async || readiness(vault).await["reasons"].as_array().is_some_and(Vec::is_empty)).await;
        let (output, printed) = self.keyvault(vault, "status");
        assert!(output.status.success() && !printed.contains("unavailable"), "{printed}");
    }

    fn assert_complete(&self) {
        let executed = self.executed.borrow();
        let left: Vec<_> = self.commands.iter().enumerate().filter(|(number, _)| !executed.contains(number)).collect();
        assert!(left.is_empty(), "not carried out: {left:#?}");
    }
}

const NOTHING: (&str, &str) = ("\0", "");

/// A vault with a key, behind a line to its database.
async fn begin() -> (Database, TcpProxy, TestVault, Client, String) {
    let database = shared_server().await.database().await;
    let line = TcpProxy::to(&format!("127.0.0.1:{}", database.port), true);
    let vault = TestVault::on_database(&database.through(&line.url()));
    let vault = started(vault).await;
    let key = Caller::new(&vault, "key-admin").signing_key("participant1").await;
    let client = database.client().await;
    (database, line, vault, client, key)
}

/// Repeats a call until it is refused with this detail.
async fn refused_with(vault: &TestVault, key: &str, says: &str) {
    let node = Caller::new(vault, "participant1");
    until(says, async || node.sign(key).await.json()["detail"].to_string().contains(says)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_cannot_be_reached_or_is_slow_or_full_or_read_only() {
    let (database, line, vault, client, key) = begin().await;

    let runbook = Runbook::read("The database cannot be reached");
    line.cut();
    runbook.appears(&vault, "storage_unavailable", None).await;
    let logged = "the changes of other replicas cannot be read from PostgreSQL; the vault retries";
    assert!(runbook.text.contains(logged) && vault.log().iter().any(|line| line["message"] == logged), "{:#?}", vault.log());
    let (output, printed) = runbook.keyvault(&vault, "check");
    assert!(!output.status.success() && printed.contains("storage"), "{printed}");
    assert_eq!(runbook.psql(&client, NOTHING).await[0][0].as_deref(), Some("f"));
    line.mend();
    runbook.recovers(&vault).await;
    assert_eq!(runbook.psql(&client, NOTHING).await[0][2].as_deref(), Some("t"));
    runbook.assert_complete();

    let runbook = Runbook::read("The database is slow");
    let other = database.client().await;
    other.batch_execute("BEGIN; LOCK TABLE audit_entries IN EXCLUSIVE MODE").await.unwrap();
    let refusals = async {
        loop {
            let _ = Caller::new(&vault, "participant1").sign(&key).await;
        }
    };
    let steps = async {
        runbook.appears(&vault, "audit_unavailable", Some("the store did not answer within")).await;
        let holder = RefCell::new(None);
        until("the session that blocks is shown", async || {
            // Each look is the same step.
            runbook.executed.borrow_mut().clear();
            let sessions = runbook.psql(&client, NOTHING).await;
            *holder.borrow_mut() = sessions.iter().filter_map(|row| row[1].clone()).find(|blocked_by| blocked_by.len() > 2);
            holder.borrow().is_some()
        })
        .await;
        let holder = holder.into_inner().unwrap();
        let _ = runbook.psql(&client, ("PID", holder.trim_matches(['{', '}']).split(',').next().unwrap())).await;
        let _ = runbook.psql(&client, NOTHING).await;
        runbook.recovers(&vault).await;
    };
    tokio::select! { () = refusals => {}, () = steps => {} }
    runbook.assert_complete();

    let runbook = Runbook::read("The disk of the database is full");
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION full_disk()";
    client.batch_execute(full).await.unwrap();
    refused_with(&vault, &key, "the disk of the store is full").await;
    runbook.appears(&vault, "audit_unavailable", Some("the disk of the store is full")).await;
    assert_eq!(runbook.psql(&client, NOTHING).await.len(), 5);
    let _ = runbook.psql(&client, NOTHING).await;
    assert!(!ops(&vault, "/metrics").await.1.contains("\nkeyvault_free_disk_bytes "), "a disk that nobody measures is not full");
    client.batch_execute("DROP TRIGGER full_disk ON audit_entries").await.unwrap();
    runbook.recovers(&vault).await;
    runbook.assert_complete();

    let runbook = Runbook::read("The database is read-only");
    let name = database.name.clone();
    client.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.batch_execute(end).await.unwrap();
    refused_with(&vault, &key, "the database is read-only").await;
    runbook.appears(&vault, "storage_unavailable", Some("the database is read-only")).await;
    let fresh = database.client().await;
    assert_eq!(runbook.psql(&fresh, NOTHING).await[0], [Some("f".to_owned()), Some("on".to_owned())]);
    let _ = runbook.psql(&client, ("NAME", &name)).await;
    runbook.recovers(&vault).await;
    assert_eq!(runbook.psql(&database.client().await, NOTHING).await[0], [Some("off".to_owned())]);
    runbook.assert_complete();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_refused_and_a_replica_is_lost_or_has_a_wrong_clock() {
    let database = shared_server().await.database().await;
    let client = database.client().await;
    let user = format!("vault_{}", database.name);
    client.batch_execute(&format!("CREATE ROLE {user} LOGIN SUPERUSER PASSWORD 'first'")).await.unwrap();
    database.write_url(&user, "first");
    let one = TestVault::on_database(&database);
    one.limits_that_no_test_reaches();
    let one = started(one).await;

    let runbook = Runbook::read("The password or certificate of the database is refused");
    client.batch_execute(&format!("ALTER ROLE {user} PASSWORD 'second'")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'");
    // Again and again: a session can have authenticated with the first password, and have no user yet.
    until("no session is left", async || {
        client.query(&end, &[]).await.unwrap();
        readiness(&one).await["reasons"].to_string().contains("storage_unavailable")
    })
    .await;
    runbook.appears(&one, "storage_unavailable", Some("password authentication failed")).await;
    for _ in 0..2 {
        let (output, printed) = runbook.keyvault(&one, "check");
        assert!(!output.status.success() && printed.contains("password authentication failed"), "{printed}");
    }
    database.write_url(&user, "second");
    runbook.recovers(&one).await;
    runbook.assert_complete();

    let runbook = Runbook::read("A replica is lost or was paused");
    let mut two = one.replica("two");
    two.serve();
    two.kill();
    until("the other one is not alive", async || {
        let replicas = one.client("auditor").get("/v1/status").await.unwrap()["replicas"].clone();
        replicas.as_array().unwrap().iter().any(|replica: &Value| replica["instance"] == "two" && replica["live"] == false)
    })
    .await;
    for _ in 0..2 {
        let (output, printed) = runbook.keyvault(&one, "status");
        assert!(output.status.success() && printed.contains("two"), "{printed}");
    }
    assert!(!runbook.psql(&client, NOTHING).await.is_empty());
    two.serve();
    until("both are alive", async || {
        let replicas = one.client("auditor").get("/v1/status").await.unwrap()["replicas"].clone();
        replicas.as_array().unwrap().iter().all(|replica: &Value| replica["live"] == true)
    })
    .await;
    let (output, printed) = runbook.keyvault(&one, "status");
    assert!(output.status.success(), "{printed}");
    runbook.assert_complete();

    let runbook = Runbook::read("The clock of a replica is wrong");
    let _ = runbook.psql(&client, NOTHING).await;
    for _ in 0..2 {
        let (output, printed) = runbook.keyvault(&one, "check");
        assert!(output.status.success() && printed.contains("clock"), "{printed}");
    }
    runbook.assert_complete();
}

#[test]
fn every_failure_of_the_table_has_a_runbook() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (guide, runbooks) = (read("docs/postgresql.md"), read("docs/runbooks.md"));
    let table = guide.split("### Failures\n").nth(1).unwrap().split("\n#").next().unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what happens")).collect();
    assert!(rows.len() >= 9, "{rows:#?}");
    for row in rows {
        let anchor =
            row.split("(runbooks.md#").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_else(|| panic!("no runbook: {row}"));
        let of_heading = |heading: &str| heading.to_lowercase().replace(' ', "-");
        assert!(runbooks.lines().filter_map(|line| line.strip_prefix("### ")).any(|heading| of_heading(heading) == anchor), "{anchor}");
    }
}
