//! Every metric of a server, in one table. `/metrics` and `docs/metrics.md` are made from this table.
//!
//! Labels come from closed sets: never a key id, a principal, or another value that a caller chooses.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::VaultSection,
    domain::{KeyState, Operation, ProviderKind, WrapperState},
};

use super::status_metrics::DEGRADED_REASONS;

/// A metric.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// The type of the metric.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [(&'static str, LabelValues)],
    /// The description.
    pub meaning: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A counter; starts at 0 with the process.
    Counter,
    /// A gauge.
    Gauge,
    /// A histogram of seconds.
    Histogram,
}

/// The values of a label.
#[derive(Clone, Copy)]
pub enum LabelValues {
    /// These values.
    These(&'static [&'static str]),
    /// The operations of the audit log, and `none` for a request without an operation.
    Operations,
    /// The states of a key.
    KeyStates,
    /// The kinds of KMS.
    Providers,
    /// The states of a wrapper key.
    WrapperStates,
    /// The regions of `[wrapper]`, the numbered servers of OpenBao, tokens and vaults in Azure, `gcp-kms`, `local` for a key file, and `other`.
    Regions,
    /// The names of `[[audit.sinks]]`, at most eight.
    Sinks,
    /// A name of `[vault]` of the configuration: one for each process.
    Configured(&'static str),
}

const KMS_OPERATIONS: LabelValues = LabelValues::These(&["wrap", "unwrap", "rewrap", "describe", "rotation", "posture"]);

/// The gauge of the disk of a store in a file.
pub(super) const FREE_DISK: &str = "keyvault_free_disk_bytes";

/// Every metric, once.
pub const METRICS: &[Metric] = &[
    gauge("keyvault_ready", &[], "1 if a use of a key can succeed, as `/readyz` says, 0 if none can."),
    gauge(
        "keyvault_degraded",
        &[("reason", LabelValues::These(DEGRADED_REASONS))],
        "1 while the status has this reason, as `/readyz` says, 0 otherwise. The reasons are codes of docs/errors.md.",
    ),
    gauge("keyvault_frozen", &[], "1 while the vault is frozen."),
    gauge(
        "keyvault_build_info",
        &[("version", LabelValues::These(&[env!("CARGO_PKG_VERSION")]))],
        "Always 1; the label is the version of the program.",
    ),
    gauge(
        "keyvault_replica_info",
        &[("vault", LabelValues::Configured("id")), ("replica", LabelValues::Configured("instance"))],
        "Always 1; the labels are the names of the configuration. `instance` is the label that Prometheus gives the address of a process.",
    ),
    histogram(
        "keyvault_request_seconds",
        &[("operation", LabelValues::Operations), ("outcome", LabelValues::These(&["ok", "refused", "failed"]))],
        "A request in total, from its headers to its answer; `refused` is a status of 4xx, `failed` one of 5xx.",
    ),
    histogram(
        "keyvault_execution_seconds",
        &[("operation", LabelValues::Operations)],
        "The use of a key without its entry: the decision, opening the key if it was not in memory, the computation.",
    ),
    histogram("keyvault_audit_commit_seconds", &[], "Writing an entry, and the change that it records, durably."),
    counter(
        "keyvault_kms_calls_total",
        &[
            ("operation", KMS_OPERATIONS),
            ("region", LabelValues::Regions),
            (
                "outcome",
                LabelValues::These(&[
                    "ok",
                    "denied",
                    "credentials",
                    "invalid",
                    "misconfigured",
                    "unreachable",
                    "timed_out",
                    "throttled",
                    "server_error",
                    "sealed",
                    "token_absent",
                    "tls_failed",
                    "credentials_unavailable",
                    "not_tried",
                ]),
            ),
        ],
        "Attempts to use a wrapper key. `not_tried`: the circuit breaker was open, or the rate limit was reached.",
    ),
    histogram(
        "keyvault_kms_call_seconds",
        &[("operation", KMS_OPERATIONS), ("region", LabelValues::Regions)],
        "One attempt that was sent.",
    ),
    gauge(
        "keyvault_kms_circuit_open",
        &[("region", LabelValues::Regions)],
        "1 while the circuit breaker of a region lets no call through, 0 otherwise, also when its pause has passed and no call came since.",
    ),
    gauge("keyvault_cache_keys", &[], "Keys that are open in memory."),
    counter("keyvault_cache_hits_total", &[], "Uses of a key that was in memory."),
    counter("keyvault_cache_misses_total", &[], "Uses of a key that had to be opened."),
    counter(
        "keyvault_cache_evictions_total",
        &[("cause", LabelValues::These(&["expired", "explicit", "replaced", "size"]))],
        "Keys that were wiped from memory: at their maximum age or idle time (`expired`), by a change of state or a freeze (`explicit`), by being opened again (`replaced`), because the cache was full (`size`).",
    ),
    counter("keyvault_keys_opened_total", &[], "Private keys that were unsealed, for any purpose. A rotation unseals none."),
    gauge(
        "keyvault_wraps",
        &[("provider", LabelValues::Providers), ("state", LabelValues::WrapperStates)],
        "Wraps that open, by provider and state of their wrapper key. While a wrapper key is active or on standby, it should have as many as \
         there are keys.",
    ),
    gauge(
        "keyvault_wrapper_keys",
        &[("state", LabelValues::WrapperStates), ("health", LabelValues::These(&["ok", "failing", "unknown"]))],
        "Registered wrapper keys by state and health, as the last call or probe found it.",
    ),
    gauge(
        "keyvault_keys_without_active_wrap",
        &[],
        "Keys without a verified wrap under the active wrapper key. A running rotation lowers it to 0; without one, start one.",
    ),
    gauge(
        "keyvault_job_keys",
        &[("kind", LabelValues::These(&["rotation", "reseal"])), ("progress", LabelValues::These(&["done", "left", "failed"]))],
        "Keys of the running job; 0 without one.",
    ),
    gauge("keyvault_keys", &[("state", LabelValues::KeyStates)], "Keys in the store."),
    gauge(
        "keyvault_audit_sink_up",
        &[("sink", LabelValues::Sinks)],
        "1 if the audit sink confirmed the newest entries, 0 if it does not confirm entries or is behind.",
    ),
    gauge("keyvault_audit_sink_lag_entries", &[("sink", LabelValues::Sinks)], "Entries that the audit sink has not confirmed."),
    counter("keyvault_audit_sink_sent_total", &[("sink", LabelValues::Sinks)], "Entries that the audit sink confirmed."),
    counter("keyvault_audit_sink_failures_total", &[("sink", LabelValues::Sinks)], "Attempts to send entries that failed."),
    counter(
        "keyvault_audit_sink_gaps_total",
        &[("sink", LabelValues::Sinks)],
        "Times that entries were left out, because the audit sink was more than max_lag behind. The log has an entry of each.",
    ),
    counter("keyvault_audit_sink_skipped_total", &[("sink", LabelValues::Sinks)], "Entries that were left out."),
    gauge(FREE_DISK, &[], "Free space where the database is. Only for a store in a file."),
    gauge(
        "keyvault_certificate_expiry_seconds",
        &[("kind", LabelValues::These(&["server", "client-ca", "crl"]))],
        "Time until the first of its kind expires, negative afterwards; for a revocation list, until its next update. Of the authorities of one SPIFFE trust domain in one file, the last counts.",
    ),
    gauge("keyvault_last_reload_success", &[], "1 if the current configuration and its files are in effect, 0 if they were refused."),
    gauge("keyvault_last_reload_timestamp_seconds", &[], "When the configuration was last reloaded, in seconds since 1970."),
    gauge("keyvault_connections", &[], "Open connections to the API."),
    counter(
        "keyvault_handshakes_total",
        &[(
            "outcome",
            LabelValues::These(&[
                "ok",
                "refused",
                "timeout",
                "evicted",
                "not_admitted",
                "too_many_of_principal",
                "too_many_connections",
                "shutdown",
            ]),
        )],
        "New connections to the API. `evicted`: closed for a newer one before the client was admitted; `too_many_of_principal` and \
         `too_many_connections`: `[connections]` `per_principal` and `total`.",
    ),
    counter(
        "keyvault_connections_ended_total",
        &[("reason", LabelValues::These(&["client", "idle", "header_timeout", "answer_timeout", "max_age", "not_admitted", "shutdown"]))],
        "Connections of admitted clients to the API that ended, by reason.",
    ),
    counter("keyvault_ops_evictions_total", &[], "Connections to the operations listener that were closed for a newer one."),
    counter(
        "keyvault_not_admitted_total",
        &[(
            "reason",
            LabelValues::These(&[
                "no_certificate",
                "deny_listed",
                "issuer_deny_listed",
                "revoked",
                "issuer_revoked",
                "revocation_unknown",
                "revocation_list_expired",
                "expired",
                "not_yet_valid",
                "ca_expired",
                "wrong_purpose",
                "invalid",
                "untrusted",
                "not_vouched",
                "no_identity",
            ]),
        )],
        "Requests whose client certificate was not accepted.",
    ),
    counter(
        "keyvault_witness_requests_total",
        &[("outcome", LabelValues::These(&["cosigned", "refused", "unreachable", "rolled_back", "forked"]))],
        "Requests for cosignatures of checkpoints. `rolled_back` and `forked` mean that a witness knows another history of the audit log: find out why.",
    ),
    gauge(
        "keyvault_audit_checkpoint_timestamp_seconds",
        &[],
        "When the newest checkpoint of the audit log was made, in seconds since 1970; 0 until this process made or found one. No checkpoint is made while the log does not grow.",
    ),
    gauge(
        "keyvault_witness_cosigned_timestamp_seconds",
        &[],
        "When every witness had last cosigned the newest checkpoint, in seconds since 1970; 0 until then, and without witnesses.",
    ),
    counter(
        "keyvault_trace_spans_total",
        &[("outcome", LabelValues::These(crate::traces::OUTCOMES))],
        "Spans of traced calls: the collector of `[traces]` took them (`exported`), could not be reached or refused the request (`failed`), refused \
         the spans (`rejected`), or they found the queue full (`queue_full`) or the share of their caller used up (`share_used`). Spans that it did not \
         take are lost.",
    ),
    counter("process_cpu_seconds_total", &[], "Whole seconds of CPU time that the process used."),
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM."),
    gauge("process_swapped_bytes", &[], "Memory of the process that is in swap. It is 0 while memory is locked."),
    gauge("process_threads", &[], "Threads of the process."),
    gauge("process_open_fds", &[], "Open file descriptors."),
    gauge("process_max_fds", &[], "The limit of open file descriptors."),
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970."),
    counter("keyvault_panics_total", &[], "Panics: faults of the vault. Report each of them."),
];

const fn counter(name: &'static str, labels: &'static [(&'static str, LabelValues)], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, meaning }
}

const fn gauge(name: &'static str, labels: &'static [(&'static str, LabelValues)], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, meaning }
}

const fn histogram(name: &'static str, labels: &'static [(&'static str, LabelValues)], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, meaning }
}

/// Installs the recorder of the process. Counters whose labels are known start at 0, because an alert sees no increase in a counter that
/// appears with its first event.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    const SECONDS: [f64; 14] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    let recorder = PrometheusBuilder::new().set_buckets(&SECONDS).map_err(anyhow::Error::from)?;
    let handle = recorder.install_recorder().map_err(anyhow::Error::from)?;
    for Metric { name, kind, labels, meaning } in METRICS {
        match (kind, labels) {
            (Kind::Counter, _) => metrics::describe_counter!(*name, *meaning),
            (Kind::Gauge, _) => metrics::describe_gauge!(*name, *meaning),
            (Kind::Histogram, _) => metrics::describe_histogram!(*name, metrics::Unit::Seconds, *meaning),
        }
        match (kind, labels) {
            (Kind::Counter, []) => metrics::counter!(*name).increment(0),
            (Kind::Counter, [(label, LabelValues::These(words))]) => {
                words.iter().for_each(|word| metrics::counter!(*name, *label => *word).increment(0));
            }
            // Over PostgreSQL nobody measures it, and 0 would be a full disk.
            (Kind::Gauge, []) if *name != FREE_DISK => metrics::gauge!(*name).set(0.0),
            _ => {}
        }
    }
    Ok(handle)
}

/// Says which vault and which replica the metrics are of.
pub(crate) fn name_process(vault: &VaultSection) {
    metrics::gauge!("keyvault_replica_info", "vault" => vault.id.to_string(), "replica" => vault.instance().to_owned()).set(1.0);
}

/// Aggregates the samples of the histograms, so that they do not grow while `/metrics` is not read.
pub(crate) async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let every = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            metrics.run_upkeep();
        }
    };
    stop.run_until_cancelled(every).await;
}

impl LabelValues {
    /// The values, or `None` if they depend on the configuration.
    pub fn all(self) -> Option<Vec<&'static str>> {
        match self {
            Self::These(words) => Some(words.to_vec()),
            Self::Operations => Some(Operation::ALL.iter().map(|operation| operation.as_str()).chain(["none"]).collect()),
            Self::KeyStates => Some(KeyState::ALL.iter().map(|state| state.as_str()).collect()),
            Self::Providers => Some(ProviderKind::ALL.iter().map(|provider| provider.as_str()).collect()),
            Self::WrapperStates => Some(WrapperState::ALL.iter().map(|state| state.as_str()).collect()),
            Self::Regions | Self::Sinks | Self::Configured(_) => None,
        }
    }

    fn described(self) -> Cow<'static, str> {
        match self {
            Self::These(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ").into(),
            Self::Operations => "an operation of the audit log, or `none`".into(),
            Self::KeyStates => "a state of a key".into(),
            Self::Providers => "a kind of KMS".into(),
            Self::WrapperStates => "a state of a wrapper key".into(),
            Self::Sinks => "a `name` of `[[audit.sinks]]`".into(),
            Self::Configured(name) => format!("`[vault] {name}`").into(),
            Self::Regions => {
                "a region of `[wrapper]`, `openbao-<n>` for its n-th address under `[[wrapper.openbao]]`, `pkcs11-<n>` for the n-th token under `[[wrapper.pkcs11]]`, `gcp-kms`, `azure-key-vault-<n>` for the n-th vault under `[[wrapper.azure_key_vault]]`, `local`, or `other`".into()
            }
        }
    }
}

/// The table as a Markdown page.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Metrics\n\nAt `/metrics` of the operations listener, in the text format of Prometheus. Made from the table in `src/server/metrics.rs`; tests\n\
         compare it with this page and with what a server exposes. Labels come from closed sets: never a key id, never a principal.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for Metric { name, kind, labels, meaning } in METRICS {
        let labels: Vec<String> = labels.iter().map(|(label, words)| format!("`{label}`: {}", words.described())).collect();
        let kind = format!("{kind:?}").to_lowercase();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {meaning} |", labels.join("; "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_metrics_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == documentation(), "renew it: KEYVAULT_WRITE_DOCUMENTS=1 cargo test --lib");
    }

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, .. } in METRICS {
            assert!(name.starts_with("keyvault_") || name.starts_with("process_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
