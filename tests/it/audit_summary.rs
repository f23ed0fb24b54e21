//! Summaries of the audit log: the totals that the vault keeps are those of the entries, before and after the log is digested.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use canton_keyvault::{
    audit::Entry,
    cli::pki::principal,
    domain::{AuditEvent, Dimension, NodeScope, Operation, Outcome, Principal},
    storage::{Commit, KeyStore, Mode, SqliteConfig, Totals, TotalsQuery},
};
use serde_json::Value;

use crate::{
    log_queries::long_log,
    storage_fixtures::{at, event, id, log, node, only, open},
    support::{
        api::Caller,
        vault::{TestVault, until},
    },
};

const ALL: &[Dimension] = Dimension::ALL;

fn query(by: &[Dimension]) -> TotalsQuery {
    TotalsQuery {
        nodes: NodeScope::All,
        by: by.to_vec(),
        principal: None,
        certificate: None,
        node: None,
        key: None,
        operation: None,
        outcome: None,
        from: None,
        to: None,
    }
}

/// 90 entries an hour, of three principals with two certificates, and some collapsed refusals.
fn numbered(number: u64) -> AuditEvent {
    let turn = u8::try_from(number % 3).unwrap();
    let principal = Principal { name: format!("dns:{turn}").into(), certificate: (turn > 0).then_some([turn; 32]) };
    let denied = number.is_multiple_of(7);
    AuditEvent {
        principal,
        at: at(i64::try_from(number).unwrap() * 40_000_000),
        node: (turn < 2).then(|| node(turn)),
        outcome: if denied { Outcome::Denied } else { Outcome::Ok },
        count: denied.then_some(number),
        ..event([Operation::Sign, Operation::Decrypt][usize::from(number.is_multiple_of(2))], (!denied).then(|| id(turn)))
    }
}

/// Counted here once more, from the entries.
fn counted(entries: &[Entry], by: &[Dimension], includes: impl Fn(&Entry) -> bool) -> BTreeMap<Vec<Option<String>>, (u64, u64)> {
    let value = |entry: &Entry, dimension: &Dimension| match dimension {
        Dimension::Day => Some(entry.at.to_string()[..10].to_owned()),
        Dimension::Principal => Some(entry.principal.clone()),
        Dimension::Certificate => entry.certificate.clone(),
        Dimension::Node => entry.node.as_ref().map(ToString::to_string),
        Dimension::Key => entry.key_id.map(|key| key.to_string()),
        Dimension::Operation => Some(entry.operation.to_string()),
        Dimension::Outcome => Some(entry.outcome.to_string()),
    };
    let mut groups = BTreeMap::new();
    for entry in entries.iter().filter(|entry| includes(entry)) {
        let group: &mut (u64, u64) = groups.entry(by.iter().map(|dimension| value(entry, dimension)).collect()).or_default();
        *group = (group.0 + entry.count.unwrap_or(1), group.1 + 1);
    }
    groups
}

fn numbers(totals: &Totals) -> BTreeMap<Vec<Option<String>>, (u64, u64)> {
    totals.groups.iter().map(|group| (group.values.clone(), (group.calls, group.entries))).collect()
}

type Keeps = Box<dyn Fn(&Entry) -> bool>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_those_of_the_entries_before_and_after_the_digests() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        SqliteConfig { query_time: Duration::from_mins(1), ..SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production) };
    let store: Arc<dyn KeyStore> = Arc::new(open(config));
    let fill = async |numbers: std::ops::Range<u64>| {
        let commits = numbers.map(|number| store.commit(Commit::entry(numbered(number))));
        futures_util::future::join_all(commits).await.into_iter().for_each(|result| {
            result.unwrap();
        });
    };
    fill(0..4_000).await;
    for round in 0..3 {
        let entries: Vec<Entry> = log(&store).await.into_iter().map(|stored| stored.entry).collect();
        let newest = entries.last().unwrap().sequence;
        for by in [ALL, &[Dimension::Principal], &[Dimension::Day, Dimension::Outcome], &[Dimension::Key, Dimension::Certificate]] {
            let totals = store.totals(query(by)).await.unwrap();
            assert_eq!(numbers(&totals), counted(&entries, by, |_| true), "{by:?} in round {round}");
            assert_eq!((totals.counted_to, totals.complete), (newest, true));
        }
        let by = [Dimension::Operation, Dimension::Day];
        let days = TotalsQuery { from: Some(1), to: Some(2), ..query(&by) };
        let of_days = |entry: &Entry| entry.at.micros() / 86_400_000_000 == 1;
        let filters: Vec<(TotalsQuery, Keeps)> = vec![
            (days, Box::new(of_days)),
            (TotalsQuery { nodes: only(&[1]), ..query(&by) }, Box::new(|entry| entry.node == Some(node(1)))),
            (TotalsQuery { node: Some(node(0)), ..query(&by) }, Box::new(|entry| entry.node == Some(node(0)))),
            (TotalsQuery { certificate: Some([2; 32]), ..query(&by) }, Box::new(|entry| entry.principal == "dns:2")),
            (TotalsQuery { principal: Some("dns:1".into()), ..query(&by) }, Box::new(|entry| entry.principal == "dns:1")),
            (TotalsQuery { key: Some(id(2)), ..query(&by) }, Box::new(|entry| entry.key_id == Some(id(2)))),
            (TotalsQuery { outcome: Some(Outcome::Denied), ..query(&by) }, Box::new(|entry| entry.outcome == Outcome::Denied)),
            (TotalsQuery { operation: Some(Operation::Sign), ..query(&by) }, Box::new(|entry| entry.operation == Operation::Sign)),
        ];
        for (query, keeps) in filters {
            let expected = counted(&entries, &by, keeps);
            assert!(!expected.is_empty());
            assert_eq!(numbers(&store.totals(query.clone()).await.unwrap()), expected, "{query:?} in round {round}");
        }
        let first = &store.totals(query(&[Dimension::Principal])).await.unwrap().groups[0];
        let times: Vec<_> =
            entries.iter().filter(|entry| Some(&entry.principal) == first.values[0].as_ref()).map(|entry| entry.at).collect();
        assert_eq!((first.first_at, first.last_at), (*times.iter().min().unwrap(), *times.iter().max().unwrap()));
        match round {
            0 => while store.digest_log().await.unwrap() {},
            _ => fill(4_000 * round..4_000 * round + 1_500).await,
        }
    }
    assert!(!store.digest_log().await.unwrap() || !store.digest_log().await.unwrap(), "the digests end");
}

/// Without time, a count says how far it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_without_time_is_not_called_complete() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig { query_time: Duration::ZERO, ..SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production) };
    let store: Arc<dyn KeyStore> = Arc::new(open(config));
    let commits = (0..2_500).map(|number| store.commit(Commit::entry(numbered(number))));
    futures_util::future::join_all(commits).await.into_iter().for_each(|result| {
        result.unwrap();
    });
    let totals = store.totals(query(ALL)).await.unwrap();
    assert_eq!((totals.counted_to, totals.complete), (1_023, false), "one block");
    while store.digest_log().await.unwrap() {}
    let totals = store.totals(query(ALL)).await.unwrap();
    assert_eq!((totals.counted_to, totals.complete), (2_500, true));
}

// The API and the command line

fn run(vault: &TestVault, arguments: &str) -> String {
    let words: Vec<&str> = arguments.split(' ').collect();
    let mut command = vault.command(&words);
    let file = |name: &str| vault.path("pki").join(name);
    command.env("KEYVAULT_URL", vault.url()).env("KEYVAULT_CA", file("ca.pem"));
    let output = command.env("KEYVAULT_CERT", file("auditor.pem")).env("KEYVAULT_KEY", file("auditor.key")).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_the_count_of_the_entries() {
    let vault = long_log().await;
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let key = node.signing_key("participant1").await;
    node.sign(&key).await.success();
    // A millisecond is not enough for the log without digests, which the vault makes by itself.
    until("the log is digested", || async { auditor.get("/v1/audit/summary?by=day").await.success()["complete"] == true }).await;
    let summary = |by: &str| format!("audit summary --by {by} --to 2026-01-01 --output json");
    for by in ["principal,operation,outcome", "node,key,day", "certificate"] {
        let items = |text: &str| serde_json::from_str::<Value>(text).unwrap()["items"].clone();
        let (kept, recounted) = (items(&run(&vault, &summary(by))), items(&run(&vault, &(summary(by) + " --recount"))));
        assert_eq!(kept, recounted, "{by}");
        assert!(!kept.as_array().unwrap().is_empty());
    }
    let before = auditor.log("").await.len();
    let ours = run(&vault, &format!("audit summary --by principal,operation --key-id {key}"));
    assert!(ours.starts_with("PRINCIPAL") && ours.contains("keys.sign"), "{ours}");
    let log = auditor.log("").await;
    let after = log[before..].iter().map(|entry| entry["operation"].as_str().unwrap()).filter(|operation| *operation != "audit.query");
    assert_eq!(after.collect::<Vec<_>>(), ["audit.summary"], "one command, one entry");
    for wrong in ["", "?by=", "?by=colour", "?by=day,day", "?by=day&from=yesterday", "?by=day&key=nothing"] {
        auditor.get(&format!("/v1/audit/summary{wrong}")).await.refused(400, "invalid_request");
    }
    node.get("/v1/audit/summary?by=day").await.refused(403, "forbidden");

    // Everything by one certificate.
    node.step(&key, "enable").await.refused(403, "forbidden");
    let entry = &auditor.log("&operation=keys.enable").await[0];
    let digest = entry["certificate"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&run(&vault, &format!("audit certificate {digest} --output json"))).unwrap();
    assert_eq!(shown["principals"], serde_json::json!([principal("participant1")]));
    assert_eq!((&shown["calls"], &shown["denied"], &shown["failed"]), (&4.into(), &2.into(), &0.into()), "{shown}");
    assert_eq!(shown["last_at"], entry["at"]);
}

// Who was allowed to use a key, and who used it

#[tokio::test(flavor = "multi_thread")]
async fn the_grants_and_uses_at_a_time_are_shown() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let key = node.signing_key("participant1").await;
    let created = auditor.log("&operation=keys.create").await[0]["at"].as_str().unwrap().to_owned();
    node.sign(&key).await.success();
    Caller::new(&vault, "participant2").sign(&key).await.refused(404, "not_found");
    let started = auditor.log("&operation=vault.start").await.remove(0);
    let who = |at: &str| {
        let (auditor, target) = (&auditor, format!("/v1/audit/access?key={key}&at={}", at.replace(':', "%3A")));
        async move { auditor.get(&target).await.success() }
    };
    let shown = who(&created).await;
    assert_eq!(
        (&shown["node"], &shown["key_state"], &shown["complete"]),
        (&"participant1".into(), &"active".into(), &true.into()),
        "{shown}"
    );
    assert_eq!((&shown["policy"]["digest"], &shown["policy"]["sequence"]), (&started["digest"], &started["sequence"]));
    let allowed = |shown: &Value| -> Vec<String> {
        shown["allowed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|grant| format!("{} {}", grant["principal"].as_str().unwrap(), grant["role"].as_str().unwrap()))
            .collect()
    };
    let [participant, exporter] = ["participant1", "exporter"].map(principal);
    let expected = [format!("{exporter} exporter"), format!("{participant} node")];
    assert_eq!(allowed(&shown), expected);
    let used: Vec<_> = shown["used"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["principal"].clone(), item["outcome"].clone(), item["calls"].clone()))
        .collect();
    let p2 = principal("participant2");
    assert_eq!(used, [(participant.clone().into(), "ok".into(), 1.into()), (p2.into(), "denied".into(), 1.into())], "{shown}");

    // The grants change. Then and now stay apart.
    let config = std::fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    std::fs::write(vault.path("keyvault.toml"), config.replace("role = \"exporter\"", "role = \"key-admin\"")).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(vault.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("the reload is in the log", || async { !auditor.log("&operation=vault.reload").await.is_empty() }).await;
    let reloaded = auditor.log("&operation=vault.reload").await.remove(0);
    let now = who(reloaded["at"].as_str().unwrap()).await;
    assert_eq!(now["policy"]["digest"], reloaded["digest"]);
    assert_ne!(reloaded["digest"], started["digest"]);
    assert_eq!(allowed(&now), expected[1..]);
    assert_eq!(allowed(&who(&created).await), expected);
    assert!(run(&vault, &format!("audit who --key-id {key} --at {created} --window 1h")).contains(&exporter));

    // Grants that the log does not confirm are not shown.
    vault.database().execute("UPDATE policies SET text = text || 'grant dns:mallory node *' || char(10)", []).unwrap();
    let edited = who(&created).await;
    assert_eq!((&edited["allowed"], &edited["policy"]["digest"]), (&Value::Null, &started["digest"]));
    let unknown = format!("/v1/audit/access?key=1220{}&at=2026-01-01", "0".repeat(64));
    auditor.get(&unknown).await.refused(404, "not_found");
    auditor.get("/v1/audit/access?at=2026-01-01").await.refused(400, "invalid_request");
}
