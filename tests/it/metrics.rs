//! `/metrics` of the binary exposes exactly the metrics of the table, with labels from closed sets.

use std::collections::{BTreeMap, BTreeSet};

use canton_keyvault::server::metrics::{Kind, METRICS, Metric};
use serde_json::json;

use crate::support::{
    aws_vault::{AwsVault, Setup, ops},
    vault::{TestVault, problem, until},
    wrapper::CENTRAL,
};

const SINK: &str = "\n[[audit.sinks]]\nname = \"siem\"\nmode = \"best-effort\"\nkind = \"file\"\npath = \"audit.ndjson\"\n";

/// One line: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').unwrap()));
            let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
                let (label, word) = label.split_once('=').unwrap();
                (label.to_owned(), word.trim_matches('"').to_owned())
            });
            (name.to_owned(), labels.collect(), value.parse().unwrap())
        })
        .collect()
}

/// The metric that a sample belongs to: a histogram has three kinds of samples.
fn metric_of(sample: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|end| sample.strip_suffix(end) == Some(metric.name)),
        _ => sample == metric.name,
    })
}

#[tokio::test]
async fn every_metric_of_the_table_is_exposed_and_no_other() {
    let aws = AwsVault::start(Setup { sections: SINK.into(), ..Setup::default() }).await;
    let key = aws.key().await;
    aws.sign(&key).await.unwrap();
    aws.sign(&key).await.unwrap();
    assert_eq!(problem(aws.vault.client("participant2").get(&format!("/v1/keys/{key}")).await).status, 404);
    assert_eq!(problem(aws.vault.client("participant1").get(&format!("/v1/{key}")).await).status, 404);
    let cold = aws.key().await;
    aws.kms.fault(json!({ "mode": "denied", "key": aws.arn, "only": "Decrypt", "count": 1 })).await;
    assert_eq!(aws.refused(&cold).await.code, "wrapper_denied");
    until("the gauges are read", || async { ops(&aws.vault, "/metrics").await.1.contains("keyvault_keys{") }).await;

    let (status, text) = ops(&aws.vault, "/metrics").await;
    assert_eq!(status, 200);
    let mut seen = BTreeSet::new();
    for (name, labels, _) in samples(&text) {
        let metric = metric_of(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
        seen.insert(metric.name);
        let known: BTreeSet<_> = metric.labels.iter().map(|(label, _)| *label).collect();
        let found: BTreeSet<_> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(found, known, "{name}");
        for (label, words) in metric.labels {
            let words = words.all().unwrap_or_else(|| {
                vec![match *label {
                    "sink" => "siem",
                    "vault" => "dev",
                    "replica" => "main",
                    _ => CENTRAL,
                }]
            });
            assert!(words.contains(&labels[*label].as_str()), "{name}: {label} is {}", labels[*label]);
        }
    }
    let all: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(seen, all);
    for secret in [key.as_str(), cold.as_str(), "participant1", "spiffe", "arn:", &aws.arn[aws.arn.len() - 12..]] {
        assert!(!text.contains(secret), "{secret}");
    }
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} is explained", metric.name);
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert!(text.contains(&format!("# TYPE {} {kind}", metric.name)), "{}", metric.name);
    }

    let value = |name: &str, wanted: &[(&str, &str)]| {
        let fits = |labels: &BTreeMap<String, String>| wanted.iter().all(|(label, word)| labels[*label] == *word);
        samples(&text).iter().filter(|(found, labels, _)| found == name && fits(labels)).map(|(_, _, value)| value).sum::<f64>()
    };
    let calls =
        |operation, outcome| value("keyvault_kms_calls_total", &[("operation", operation), ("region", CENTRAL), ("outcome", outcome)]);
    let is = |found: f64, wanted: f64| (found - wanted).abs() < 0.5;
    // The canary and two keys; the proofs of the three, the opening for the first signature, and the canary's own.
    assert!(is(calls("wrap", "ok"), 3.0), "{text}");
    assert!(calls("unwrap", "ok") >= 4.0, "{text}");
    assert!(is(calls("unwrap", "denied"), 1.0), "{text}");
    assert!(is(value("keyvault_execution_seconds_count", &[("operation", "keys.sign")]), 2.0));
    assert!(is(value("keyvault_request_seconds_count", &[("operation", "keys.sign"), ("outcome", "ok")]), 2.0));
    assert!(is(value("keyvault_request_seconds_count", &[("operation", "keys.sign"), ("outcome", "failed")]), 1.0));
    assert!(value("keyvault_cache_hits_total", &[]) >= 1.0);
    assert!(value("keyvault_cache_misses_total", &[]) >= 2.0);
    assert!(value("keyvault_free_disk_bytes", &[]) > 0.0);
    assert!(value("keyvault_certificate_expiry_seconds", &[("kind", "server")]) > 0.0);
    assert!(value("keyvault_certificate_expiry_seconds", &[("kind", "client-ca")]) > 0.0);
    assert!(is(value("keyvault_last_reload_success", &[]), 1.0));
    assert!(is(value("keyvault_kms_circuit_open", &[("region", CENTRAL)]), 0.0));
    assert!(is(value("keyvault_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0));
    assert!(value("process_start_time_seconds", &[]) > 1_700_000_000.0);
    assert!(value("process_resident_memory_bytes", &[]) > 1_000_000.0);
    assert!(value("process_open_fds", &[]) > 5.0 && value("process_max_fds", &[]) >= value("process_open_fds", &[]));
    assert!(value("process_threads", &[]) > 1.0);
    assert!(value("keyvault_last_reload_timestamp_seconds", &[]) > 1_700_000_000.0);
}

/// The value of a metric with these labels, as they are in its line.
fn shown(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {series}")).parse().unwrap()
}

#[tokio::test]
async fn the_metrics_of_the_status_are_those_of_readyz_at_once() {
    let vault = TestVault::start();
    let expect = |ready: f64, frozen: f64| {
        let vault = &vault;
        async move {
            let text = ops(vault, "/metrics").await.1;
            let is = |series, wanted: f64| assert!((shown(&text, series) - wanted).abs() < 0.5, "{series} is not {wanted}: {text}");
            is("keyvault_ready", ready);
            is("keyvault_frozen", frozen);
            is("keyvault_degraded{reason=\"frozen\"}", frozen);
            is("keyvault_degraded{reason=\"audit_unavailable\"}", 0.0);
            is("keyvault_degraded{reason=\"other\"}", 0.0);
        }
    };
    expect(1.0, 0.0).await;
    let checkpoint_at = || async { shown(&ops(&vault, "/metrics").await.1, "keyvault_audit_checkpoint_timestamp_seconds") };
    assert!(checkpoint_at().await < 1.0, "there is none yet");
    assert!(vault.client("auditor").post("/v1/audit/checkpoints", &json!({})).await.is_ok());
    assert!(checkpoint_at().await > 1_700_000_000.0);
    vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap();
    expect(0.0, 1.0).await;
    vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.unwrap();
    expect(1.0, 0.0).await;
}

/// The metrics that a text of rules or queries names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    words.filter(|word| (word.starts_with("keyvault_") && *word != "keyvault_") || word.starts_with("process_")).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_of_the_table_and_each_alert_has_its_runbook() {
    let read = |path: &str| std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (alerts, tests, runbook) =
        (read("deploy/prometheus/alerts.yaml"), read("deploy/prometheus/alerts.test.yaml"), read("docs/alerts.md"));
    for file in [&alerts, &tests, &read("deploy/grafana/keyvault.json")] {
        for name in named(file) {
            assert!(metric_of(name).is_some(), "{name} is not in the table");
        }
    }
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let headings: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(names, headings, "docs/alerts.md has a heading for each alert, in the same order");
    for name in names {
        assert!(alerts.contains(&format!("runbook_url: docs/alerts.md#{}\n", name.to_lowercase())), "{name}");
        for case in ["fires", "does not fire"] {
            assert!(tests.contains(&format!("- name: {name} {case}\n")), "{name} {case}");
        }
    }
}
