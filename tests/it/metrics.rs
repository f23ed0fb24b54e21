//! `/metrics` of the binary exposes exactly the metrics of the table, with labels from closed sets.

use std::collections::{BTreeMap, BTreeSet};

use canton_keyvault::server::metrics::{Kind, METRICS, Metric};
use serde_json::json;

use crate::support::{
    aws_vault::{AwsVault, Setup, ops},
    vault::{problem, until},
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
            let words = words.all().unwrap_or_else(|| vec![if *label == "sink" { "siem" } else { CENTRAL }]);
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
    assert!(value("keyvault_last_reload_timestamp_seconds", &[]) > 1_700_000_000.0);
}
