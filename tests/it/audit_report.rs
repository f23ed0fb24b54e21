//! Reports for people: the numbers in the HTML are those of the calls, a log that was changed is not reported as sound, and nothing hostile gets out of a
//! text.

use std::process::{Command, Output};

use canton_keyvault::cli::pki::principal;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::json;

use crate::{
    refused_clients::{client, refused_handshake},
    support::{
        api::{Caller, enroll_as},
        jobs::{active, ended, new_wrapper_key, rotate, rotated},
        pki::{Ca, Spec, uri},
        vault::{TestVault, until},
    },
};

const HOSTILE: &str = "<script>alert(\"1\")</script>&<img src='https://evil.example/x'>";

/// Runs a command as a principal.
fn run(vault: &TestVault, principal: &str, words: &[&str]) -> Output {
    let pki = |file: &str| format!("pki/{file}");
    let mut command: Command = vault.command(words);
    command
        .env("KEYVAULT_URL", vault.url())
        .env("KEYVAULT_CA", pki("ca.pem"))
        .env("KEYVAULT_CERT", pki(&format!("{principal}.pem")))
        .env("KEYVAULT_KEY", pki(&format!("{principal}.key")));
    command.output().unwrap()
}

/// The HTML that a command as auditor prints, and its exit code.
pub(crate) fn html(vault: &TestVault, words: &[&str]) -> (String, Option<i32>) {
    let output = run(vault, "auditor", words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (text, output.status.code())
}

/// A report as a tree: it must be well-formed XML.
pub(crate) struct Report<'a>(Document<'a>);

impl<'a> Report<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        Self(Document::parse_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    fn element(&self, id: &str) -> Node<'_, 'a> {
        self.0.descendants().find(|node| node.attribute("id") == Some(id)).unwrap_or_else(|| panic!("no #{id}"))
    }

    /// The number in a box of the summary.
    pub(crate) fn number(&self, id: &str) -> u64 {
        let bold = self.element(&format!("number-{id}")).children().find(|node| node.has_tag_name(XHTML_B)).unwrap();
        content(bold).replace(',', "").parse().unwrap()
    }

    /// The rows of the tables in a part.
    fn rows(&self, id: &str) -> Vec<Vec<String>> {
        let rows = self
            .element(id)
            .descendants()
            .filter(|node| node.tag_name().name() == "tr" && node.parent_element().unwrap().tag_name().name() == "tbody");
        rows.map(|row| row.children().filter(Node::is_element).map(content).collect()).collect()
    }

    /// The rows of a part, only some columns.
    pub(crate) fn columns(&self, id: &str, columns: &[usize]) -> Vec<Vec<String>> {
        self.rows(id).into_iter().map(|row| columns.iter().map(|column| row[*column].clone()).collect()).collect()
    }

    fn text(&self, id: &str) -> String {
        content(self.element(id))
    }
}

const XHTML_B: (&str, &str) = ("http://www.w3.org/1999/xhtml", "b");

fn content(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

/// Nothing in the file can run or be loaded.
fn is_self_contained(text: &str) {
    let report = Report::of(text);
    let policy = report.0.descendants().find(|node| node.attribute("http-equiv") == Some("Content-Security-Policy")).unwrap();
    assert!(policy.attribute("content").unwrap().starts_with("default-src 'none'; style-src 'unsafe-inline'"));
    for node in report.0.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            !["script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use", "foreignObject"].contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && name != "src", "{name}");
            assert!(name != "href" || value.starts_with('#'), "{value}");
        }
    }
    // Names of XML languages are no addresses. What an attacker wrote stands there as text.
    let without = text.replace("http://www.w3.org/1999/xhtml", "").replace("http://www.w3.org/2000/svg", "");
    let without = without.replace("https://evil.example", "");
    assert!(!without.contains("http://") && !without.contains("https://") && !without.contains("url("), "{without}");
    assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("@import"), "{text}");
}

fn strings(row: &[&str]) -> Vec<String> {
    row.iter().map(|cell| (*cell).to_owned()).collect()
}

#[tokio::test]
async fn the_numbers_are_those_of_the_calls_and_hostile_text_stays_text() {
    let vault = TestVault::start();
    enroll_as(&vault, "participant1-new", &principal("participant1"));
    let caller = |name: &str| Caller::new(&vault, name);
    let (node, renewed, other, admin) = (caller("participant1"), caller("participant1-new"), caller("participant2"), caller("key-admin"));
    let key = node.signing_key("participant1").await;
    let named = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "plain" });
    let second = node.post("/v1/keys", &named).await.success()["id"].as_str().unwrap().to_owned();
    admin.post(&format!("/v1/keys/{second}/name"), &json!({ "name": HOSTILE })).await.success();
    for _ in 0..7 {
        node.sign(&key).await.success();
    }
    for _ in 0..2 {
        renewed.sign(&second).await.success();
    }
    for _ in 0..3 {
        other.sign(&key).await.refused(404, "not_found");
    }
    admin.step(&second, "disable").await.success();
    for _ in 0..2 {
        assert!(node.sign(&second).await.status >= 400);
    }
    let stranger = Ca::new(HOSTILE).issue(Spec::client(vec![uri("spiffe://example.org/p1")]));
    refused_handshake(&vault, &client(&vault, Some(&stranger))).await;
    let auditor = caller("auditor");
    until("the refusal is in the log", || async { !auditor.log("&operation=vault.refuse-client").await.is_empty() }).await;

    let (text, code) = html(&vault, &["audit", "report", "--from", "2000-01-01"]);
    assert_eq!(code, Some(0), "{text}");
    is_self_contained(&text);
    let report = Report::of(&text);
    assert!(report.text("verdict").starts_with("Verified.") && report.text("verdict").contains("the key that the vault itself published"));
    assert!(report.text("verification").contains("repeat the report with --verifier-key"));

    // By principal: 2 creations, 9 signatures and 2 failures of one principal with two certificates.
    let principals = report.columns("principals", &[0, 1, 2, 3, 4, 7]);
    let of = |name: &str| principals.iter().find(|row| row[0] == principal(name)).unwrap().clone();
    assert_eq!(of("participant1")[1..], strings(&["13", "11", "0", "2", "2"]));
    assert_eq!(of("participant2")[1..], strings(&["3", "0", "3", "0", "1"]));
    assert_eq!(of("key-admin")[1..], strings(&["2", "2", "0", "0", "1"]));
    let keys = report.columns("keys", &[0, 1, 2, 3, 4, 5]);
    assert_eq!(keys[0], [&key, "participant1", "10", "7", "3", "0"]);
    assert_eq!(keys[1], [&second, "participant1", "4", "2", "0", "2"]);
    let operations = report.columns("operations", &[0, 1, 2, 3, 4]);
    let signed = operations.iter().find(|row| row[0] == "keys.sign").unwrap();
    assert_eq!(signed[1..], strings(&["14", "9", "3", "2"]));
    assert_eq!(report.columns("denials", &[0, 1, 2, 3]), [[principal("participant2"), "keys.sign".into(), "not_found".into(), "3".into()]]);
    let failures = report.columns("failures", &[0, 1, 3]);
    assert_eq!(failures, [[principal("participant1"), "keys.sign".into(), "2".into()]]);
    let refused = report.rows("refused");
    assert_eq!((refused.len(), refused[0][1].as_str(), refused[0][3].as_str()), (1, "untrusted", "1"));
    assert!(refused[0][2].contains("script") && refused[0][2].contains("https://evil.example/x"), "{refused:?}");
    let changes = report.columns("key-changes", &[3, 4, 6]);
    let rename = changes.iter().find(|row| row[0] == "keys.rename").unwrap();
    assert!(rename[1] == second && rename[2].contains("<script>alert("), "{rename:?}");
    assert!(changes.iter().any(|row| row[0] == "keys.disable" && row[1] == second && row[2].contains("disabled")));

    assert_eq!((report.number("denied"), report.number("failed"), report.number("uses"), report.number("keys-used")), (3, 2, 9, 2));
    assert_eq!((report.number("refused-certificates"), report.number("exported")), (1, 0));
    let calls: u64 = principals.iter().map(|row| row[1].parse::<u64>().unwrap()).sum();
    assert_eq!(report.number("calls"), calls);
    let over_time: u64 = report.columns("time", &[1]).iter().map(|row| row[0].parse::<u64>().unwrap()).sum();
    assert_eq!(over_time, calls);
    // Each certificate is used for the first time here: five of the test and that of the auditor.
    let first: Vec<_> = report.columns("anomalies", &[2]).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(first.iter().filter(|who| **who == principal("participant1")).count(), 2, "{first:?}");
    for chart in ["chart-time-name", "chart-principals-name"] {
        assert_eq!(report.element(chart).parent_element().unwrap().attribute("role"), Some("img"));
    }
    for header in report.0.descendants().filter(|node| node.tag_name().name() == "th") {
        assert!(header.attribute("scope").is_some());
    }

    // A period without calls has none, and the certificates are known before another period.
    let (text, _) = html(&vault, &["audit", "report", "--from", "2001-01-01", "--to", "2001-02-01"]);
    let report = Report::of(&text);
    assert_eq!((report.number("calls"), report.number("anomalies-found"), report.rows("principals").len()), (0, 0, 0));
    let late = run(&vault, "auditor", &["audit", "report", "--from", "2001-02-01", "--to", "2001-01-01"]);
    assert_eq!(late.status.code(), Some(2));
}

#[tokio::test]
async fn an_export_gives_the_same_report_and_a_changed_one_says_so_first() {
    let vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = node.signing_key("participant1").await;
    for _ in 0..5 {
        node.sign(&key).await.success();
    }
    assert!(run(&vault, "auditor", &["audit", "export", "--out", "log.ndjson"]).status.success());
    let keys = run(&vault, "auditor", &["audit", "verifier-keys"]).stdout;
    std::fs::write(vault.path("keys"), keys).unwrap();
    let words = ["audit", "report", "--from", "2000-01-01", "--verifier-key", "keys", "--export"];
    let (text, code) = html(&vault, &[&words[..], &["log.ndjson"]].concat());
    assert_eq!(code, Some(0));
    let report = Report::of(&text);
    assert!(report.text("verdict").contains("the key that the reviewer gave"), "{}", report.text("verdict"));
    assert_eq!(report.number("uses"), 5);
    assert!(!report.text("verification").contains("which were not read"));
    assert!(run(&vault, "auditor", &["audit", "export", "--after", "4", "--out", "late.ndjson"]).status.success());
    let (text, code) = html(&vault, &[&words[..], &["late.ndjson"]].concat());
    let report = Report::of(&text);
    assert_eq!(code, Some(0));
    assert!(report.text("verification").contains("the entries 1 to 4, which were not read"), "{}", report.text("verification"));
    // Without a vault nobody publishes the key.
    let no_key = run(&vault, "auditor", &["audit", "report", "--from", "2000-01-01", "--export", "log.ndjson"]);
    assert_eq!(no_key.status.code(), Some(2));

    let log = std::fs::read_to_string(vault.path("log.ndjson")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let signed = lines.iter().position(|line| line.contains("\"keys.sign\"")).unwrap();
    let edited = lines[signed].replace(&principal("participant1"), &principal("participant2"));
    let cut = &lines[..lines.len() - 1];
    let one_less = [&lines[..signed], &lines[signed + 1..]].concat();
    let changed = [&lines[..signed], &[edited.as_str()], &lines[signed + 1..]].concat();
    let garbled = [&lines[..signed], &["{\"v\":4,<b>"], &lines[signed + 1..]].concat();
    for (what, lines) in [("cut", cut), ("one less", &one_less[..]), ("changed", &changed[..]), ("garbled", &garbled[..])] {
        std::fs::write(vault.path("bad.ndjson"), lines.join("\n") + "\n").unwrap();
        let (text, code) = html(&vault, &[&words[..], &["bad.ndjson"]].concat());
        assert_eq!(code, Some(4), "{what}");
        is_self_contained(&text);
        let report = Report::of(&text);
        assert!(report.text("verdict").starts_with("NOT VERIFIED."), "{what}: {}", report.text("verdict"));
        assert_eq!(report.element("verdict").attribute("class"), Some("alarm"));
        assert!(report.text("scope").contains("none: the log was not verified"), "{what}");
    }
}

#[tokio::test]
async fn an_auditor_of_some_nodes_gets_their_entries_and_the_report_says_what_is_missing() {
    let grant = format!("\n[[grants]]\nprincipal = \"{}\"\nrole = \"auditor\"\nnodes = [\"participant1\"]\n", principal("local-auditor"));
    let vault = TestVault::start_with(|config| config + &grant);
    enroll_as(&vault, "local-auditor", &principal("local-auditor"));
    let (node, other) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "participant2"));
    let key = node.signing_key("participant1").await;
    node.sign(&key).await.success();
    let hidden = other.signing_key("participant2").await;
    other.sign(&hidden).await.success();
    let keys = run(&vault, "auditor", &["audit", "checkpoint", "--new"]);
    assert!(keys.status.success());
    std::fs::write(vault.path("keys"), run(&vault, "auditor", &["audit", "verifier-keys"]).stdout).unwrap();
    let output = run(&vault, "local-auditor", &["audit", "report", "--from", "2000-01-01", "--verifier-key", "keys"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(&hidden) && !text.contains("participant2"));
    let report = Report::of(&text);
    assert_eq!((report.number("uses"), report.number("keys-used")), (1, 1));
    assert!(report.text("verdict").contains("each of which is in the log"), "{}", report.text("verdict"));
    assert!(report.text("verification").contains("That no entry was left out"));
}

#[tokio::test]
async fn the_report_of_a_rotation_has_the_evidence_for_each_key() {
    let vault = TestVault::start_with(|config| config + "\n[jobs]\nkeys_per_second = 10000\nretry_backoff = \"50ms\"\n");
    let node = Caller::new(&vault, "participant1");
    let first = active(&vault).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(node.signing_key("participant1").await);
    }
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    // Back: the only key without a wrap under the first one is this.
    let fresh = node.signing_key("participant1").await;
    let job = ended(&vault, &rotate(&vault, &first).await).await;
    let id = job["id"].as_str().unwrap();
    let (text, code) = html(&vault, &["wrapper", "rotation", "report", id]);
    assert_eq!(code, Some(0), "{text}");
    is_self_contained(&text);
    let report = Report::of(&text);
    let facts = report.rows("job");
    let fact = |name: &str| facts.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name}: {facts:?}"))[1].clone();
    assert_eq!((fact("Job"), fact("State")), (id.to_owned(), "succeeded".into()));
    assert_eq!((fact("Started by"), fact("Ended by")), (principal("wrapper-admin"), "system".into()));
    assert!(fact("From wrapper key").starts_with(&second) && fact("To wrapper key").starts_with(&first));
    assert_eq!(fact("With the certificate").len(), 64);
    let total = job["total"].as_u64().unwrap();
    assert_eq!((report.number("total"), report.number("done"), report.number("failed")), (total, total, 0));
    assert_eq!((report.number("re-encrypted"), report.number("unwrapped"), report.number("missing")), (0, 1, 0));
    assert_eq!(report.number("evidence"), total + 1, "and the key that signs checkpoints, which the export of the report made");
    assert!(report.text("coverage").contains("every key has a verified wrap under"), "{}", report.text("coverage"));
    let rewraps = report.columns("rewraps", &[2, 3, 4]);
    assert_eq!(rewraps, [[&*fresh, "participant1", "unwrapped and wrapped"]]);
    let evidence = report.rows("evidence");
    for key in keys.iter().chain([&fresh]) {
        let row = evidence.iter().find(|row| row[0] == *key).unwrap();
        let expected = if *key == fresh { "re-wrapped by this job" } else { "created, imported or re-sealed under it" };
        assert!(row[2].starts_with(expected) && !row[1].is_empty(), "{row:?}");
    }
    assert!(report.text("retirement").contains("It was not retired"));

    let admin = Caller::new(&vault, "wrapper-admin");
    admin.post(&format!("/v1/wrapper-keys/{second}/retire"), &json!({})).await.success();
    let (text, _) = html(&vault, &["wrapper", "rotation", "report", id]);
    let report = Report::of(&text);
    let operations = report.columns("retirement", &[3]);
    assert_eq!(operations, [["wrapper-keys.retire"], ["wrapper-keys.retire"]], "it gets no new wraps, and its wraps are deleted");
    assert!(report.text("retirement").contains(&format!("{second} is retired now")));
    let unknown = run(&vault, "auditor", &["wrapper", "rotation", "report", "job-000000000000", "--out", "none.html"]);
    assert!(!unknown.status.success() && !vault.path("none.html").exists());
}
