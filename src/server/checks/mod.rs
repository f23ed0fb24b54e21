//! The one list of checks of a configuration and of what it needs. `check` runs all of them. `serve` runs them at its start, and those of
//! the reloaded sections after each reload. Both give the same sentence for the same mistake.
//!
//! Some checks are a step of the start ([`Run::Step`]): their sentence is the error of the step, which `check` makes without lasting
//! effects. `docs/checks.md` is made from the table.

mod machine;
mod settings;
mod store;

pub(crate) use self::settings::time_left;

use std::fmt::Write as _;

use crate::{
    config::Config,
    domain::Timestamp,
    kms::Providers,
    mtls::{Expiry, Trust},
    storage::StoreFacts,
};

pub(crate) use self::machine::raise_open_file_limit;

/// One check.
pub struct Check {
    /// Its name, in the output of `check` and in the log.
    pub name: &'static str,
    /// What it examines.
    pub examines: &'static str,
    /// Whether a fault ends the start.
    pub severity: Severity,
    /// What to do about a fault.
    pub remedy: &'static str,
    /// When it runs, and how.
    pub run: Run,
}

/// What a fault means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// `serve` does not start, and `check` fails.
    Fail,
    /// `serve` logs a warning, and `check` prints one.
    Warn,
}

/// The faults that a check finds, each without the remedy.
type Faults = Vec<String>;

/// When a check runs, and how.
#[derive(Clone, Copy)]
pub enum Run {
    /// It is a step of the start. Its error names the fix. The text says how `check` and `serve` differ, if they do.
    Step(Step, &'static str),
    /// Of `[tls]`, `nodes` and `[[grants]]`: at start, and after each reload.
    Settings(fn(&Config, &Trust) -> Faults),
    /// Of the time that certificates are still valid: every second while the vault serves.
    Expiry(fn(&Expiry) -> Option<String>),
    /// Of the machine: at start, before the store is opened.
    Machine(fn(&Config) -> Faults),
    /// Of the store that was opened: at start.
    Store(fn(&Providers, &StoreFacts, Timestamp) -> Faults),
}

/// A fault that a check found.
pub(crate) struct Finding {
    /// Which check.
    pub(crate) check: &'static Check,
    /// The fault and its remedy.
    pub(crate) sentence: String,
}

/// A step of the start that is a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The configuration is read.
    Configuration,
    /// The files of `[tls]` are read.
    Certificates,
    /// The process is hardened.
    Memory,
    /// The store is opened.
    Storage,
    /// The listeners are opened.
    Listen,
    /// The KMS servers are asked for their state.
    KmsServers,
    /// The first wrapper key is registered.
    FirstWrapperKey,
    /// The registered wrapper keys are probed.
    RegisteredWrapperKeys,
    /// The registered wrapper keys are assessed.
    WrapperKeyPosture,
    /// The audit sinks are tried.
    AuditSinks,
    /// The collector of traces is tried.
    TraceCollector,
    /// The active wrapper key is compared with the configuration.
    ConfiguredWrapperKey,
}

/// The faults of the reloaded sections.
pub(crate) fn of_settings(config: &Config, trust: &Trust) -> Vec<Finding> {
    findings(|run| if let Run::Settings(find) = run { find(config, trust) } else { Vec::new() })
}

/// The faults of the machine.
pub(crate) fn of_machine(config: &Config) -> Vec<Finding> {
    findings(|run| if let Run::Machine(find) = run { find(config) } else { Vec::new() })
}

/// The faults of the store.
pub(crate) fn of_store(providers: &Providers, facts: &StoreFacts, now: Timestamp) -> Vec<Finding> {
    findings(|run| if let Run::Store(find) = run { find(providers, facts, now) } else { Vec::new() })
}

/// The fault of something that expires at that time.
pub(crate) fn of_expiry(expiry: &Expiry) -> Option<Finding> {
    findings(|run| if let Run::Expiry(find) = run { find(expiry).into_iter().collect() } else { Vec::new() }).into_iter().next()
}

fn findings(faults: impl Fn(&Run) -> Faults) -> Vec<Finding> {
    let all = CHECKS.iter().flat_map(|check| faults(&check.run).into_iter().map(move |fault| (check, fault)));
    all.map(|(check, fault)| Finding { check, sentence: format!("{fault}. {}", check.remedy) }).collect()
}

/// Logs the warnings among the findings.
///
/// # Errors
/// The sentences of the others, each on its own line: the vault cannot start.
pub(crate) fn enforce(findings: Vec<Finding>) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for Finding { check, sentence } in findings {
        match check.severity {
            Severity::Warn => tracing::warn!(check = check.name, "{sentence}"),
            Severity::Fail => failed.push(sentence),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("\n"))) }
}

/// Every check, in the order of the start.
pub static CHECKS: &[Check] = &[
    Check {
        name: "configuration",
        examines: "the file is TOML, every option is known and within its bounds, nodes and grants are consistent",
        severity: Severity::Fail,
        remedy: "Correct the option that the message names. deploy/keyvault.toml explains each",
        run: Run::Step(Step::Configuration, ""),
    },
    Check {
        name: "certificates",
        examines: "every file of `[tls]` can be read and is what it should be: the server certificate is valid now, the key belongs to it, \
                   client CAs are CAs, revocation lists and deny-list can be read",
        severity: Severity::Fail,
        remedy: "Correct the file that the message names",
        run: Run::Step(Step::Certificates, ""),
    },
    Check {
        name: "memory",
        examines: "core dumps can be switched off, and memory can be locked if `[memory] lock` is \"on\"",
        severity: Severity::Fail,
        remedy: "Set LimitMEMLOCK=infinity or give CAP_IPC_LOCK, or run without swap and with lock = \"auto\"",
        run: Run::Step(Step::Memory, ""),
    },
    Check {
        name: "server certificate",
        examines: "clients accept the server certificate: it has a subject alternative name, may be used by a server, and is not that of a CA",
        severity: Severity::Warn,
        remedy: "Issue a certificate with the name that clients call as DNS or IP subject alternative name, and the extended key usage serverAuth",
        run: Run::Settings(settings::server_certificate),
    },
    Check {
        name: "expiry",
        examines: "no server certificate, intermediate or client CA expires within 30 days, or within the last third of its life if that is less, and no revocation list has passed its next update",
        severity: Severity::Warn,
        remedy: "Replace the file. A running vault reloads it at once",
        run: Run::Expiry(settings::expiry_fault),
    },
    Check {
        name: "revocation",
        examines: "every revocation list is used, and every entry of the deny-list can deny a certificate",
        severity: Severity::Warn,
        remedy: "Replace the list, or correct the entry",
        run: Run::Settings(settings::revocation),
    },
    Check {
        name: "high-water mark",
        examines: "the file of `[audit] high_water_mark` exists and is not in the folder of the database",
        severity: Severity::Warn,
        remedy: "Put the file on another disk than the database. If it was lost, compare the database with a checkpoint that an auditor kept. \
                 The next checkpoint writes the file",
        run: Run::Settings(settings::high_water_mark),
    },
    Check {
        name: "grants",
        examines: "there are grants, and a client CA may issue certificates for the principal of each",
        severity: Severity::Warn,
        remedy: "Add a grant, or its name to trust_domains or dns of the entry of its CA, or correct the principal",
        run: Run::Settings(settings::grants),
    },
    Check {
        name: "client CAs",
        examines: "a grant names a principal in every trust domain and DNS name of client_cas",
        severity: Severity::Warn,
        remedy: "Remove the name, or add a grant",
        run: Run::Settings(settings::client_cas),
    },
    Check {
        name: "file modes",
        examines: "users outside the owner and the group of the server key, of the database file and of the file with the URL of PostgreSQL have no access to them",
        severity: Severity::Warn,
        remedy: "Run chmod o-rwx on it; for a volume of Kubernetes, set defaultMode 0440 and fsGroup",
        run: Run::Machine(machine::file_modes),
    },
    Check {
        name: "folder",
        examines: "the folder of the database exists, and this user can write to it and to the database",
        severity: Severity::Fail,
        remedy: "Create the folder, and make the user of the vault the owner of it and of the database",
        run: Run::Machine(machine::folder),
    },
    Check {
        name: "full disk",
        examines: "the disk of the database is not full",
        severity: Severity::Fail,
        remedy: "Free some space",
        run: Run::Machine(machine::full_disk),
    },
    Check {
        name: "free disk",
        examines: "the disk of the database has 256 MiB free",
        severity: Severity::Warn,
        remedy: "Free some space, or enlarge the disk. A full disk refuses every call",
        run: Run::Machine(machine::free_disk),
    },
    Check {
        name: "open files",
        examines: "the limit of open files is high enough for `[connections]`",
        severity: Severity::Warn,
        remedy: "Raise LimitNOFILE (the hard limit of open files), or lower `[connections] total`",
        run: Run::Machine(machine::open_files),
    },
    Check {
        name: "wrapper key in a file",
        examines: "the first wrapper key is in a KMS",
        severity: Severity::Warn,
        remedy: "Use a provider other than \"local\" in production",
        run: Run::Machine(machine::wrapper_key_in_a_file),
    },
    Check {
        name: "storage",
        examines: "the database is one of this vault and of this program, undamaged, with an unbroken log, and not in use",
        severity: Severity::Fail,
        remedy: "Correct the path or the id, or restore a backup",
        run: Run::Step(
            Step::Storage,
            "`check` succeeds beside the vault that uses the database, and says so. `check` also reads every page; `serve` does not",
        ),
    },
    Check {
        name: "durability",
        examines: "the settings of PostgreSQL lose nothing that was confirmed: `fsync`, `synchronous_commit` and `full_page_writes` are on",
        severity: Severity::Warn,
        remedy: "Set it to on, and reload the server",
        run: Run::Store(store::durability),
    },
    Check {
        name: "listen",
        examines: "both addresses of `[listen]` are free and belong to this machine",
        severity: Severity::Fail,
        remedy: "Stop the program that uses the address, or configure another one",
        run: Run::Step(Step::Listen, "`check` succeeds if a vault uses the database, because it is that vault which listens"),
    },
    Check {
        name: "clock",
        examines: "the clock is after 2026-01-01, and not more than five minutes behind the newest audit entry, or away from the clock of PostgreSQL",
        severity: Severity::Warn,
        remedy: "Set the clock, and keep it right with NTP: certificates and audit entries depend on it",
        run: Run::Store(store::clock),
    },
    Check {
        name: "wrapper key patterns",
        examines: "every pattern of `[wrapper]` allowed and prefer matches a registered wrapper key",
        severity: Severity::Warn,
        remedy: "Correct it, or remove it if no such key is to be registered",
        run: Run::Store(store::patterns),
    },
    Check {
        name: "rotation",
        examines: "every key has a verified wrap under the active wrapper key, or a rotation runs",
        severity: Severity::Warn,
        remedy: "Until then, the former wrapper key is still needed",
        run: Run::Store(store::rotation),
    },
    Check {
        name: "KMS server",
        examines: "each configured OpenBao server answers, is unsealed, and accepts the login of the vault; each configured PKCS#11 token is in a \
                   slot and accepts the PIN; Cloud KMS and each configured vault in Azure answer, and the vault gets an access token",
        severity: Severity::Fail,
        remedy: "Correct what the message names",
        run: Run::Step(
            Step::KmsServers,
            "`serve` starts without its KMS and tries again. It reports the wrapper keys on a server that does not work",
        ),
    },
    Check {
        name: "wrapper key",
        examines: "without a registered wrapper key, the one of the configuration can be used: it wraps, and unwraps what it wrapped",
        severity: Severity::Fail,
        remedy: "Correct what the message names",
        run: Run::Step(
            Step::FirstWrapperKey,
            "`serve` ends only if the configuration must change. Otherwise it tries again until the KMS answers and permits it",
        ),
    },
    Check {
        name: "registered wrapper key",
        examines: "each registered wrapper key that is not retired is allowed by the configuration and opens its canary; the active one also \
                   wraps",
        severity: Severity::Fail,
        remedy: "Correct what the message names. A wrapper key may be disabled on purpose",
        run: Run::Step(
            Step::RegisteredWrapperKeys,
            "`serve` starts, because open keys and the other wrapper keys work, and logs the same sentence",
        ),
    },
    Check {
        name: "wrapper key posture",
        examines: "each registered wrapper key that is not retired is as it should be in its KMS: kind, origin, state, deletion, rotation, export, \
                   and who may use it by its policy, as `wrapper posture` says",
        severity: Severity::Fail,
        remedy: "Each line has its own",
        run: Run::Step(
            Step::WrapperKeyPosture,
            "`serve` does not ask. A line that should be looked at is a warning, and one that endangers the keys fails",
        ),
    },
    Check {
        name: "audit sink",
        examines: "each sink of `[[audit.sinks]]` can be reached with its certificates and token, or its file can be written. No entry is sent",
        severity: Severity::Fail,
        remedy: "Correct what the message names",
        run: Run::Step(
            Step::AuditSinks,
            "`serve` starts and tries again. While a required sink fails, calls are denied and `/readyz` names the sink",
        ),
    },
    Check {
        name: "trace collector",
        examines: "the collector of `[traces]` can be reached, and its files can be read. No span is sent",
        severity: Severity::Warn,
        remedy: "Correct what the message names. Calls do not depend on it",
        run: Run::Step(Step::TraceCollector, "`serve` starts, and counts the spans that are lost"),
    },
    Check {
        name: "configured wrapper key",
        examines: "`[wrapper]` reference names the active wrapper key",
        severity: Severity::Warn,
        remedy: "After a rotation, set reference to the new wrapper key",
        run: Run::Step(Step::ConfiguredWrapperKey, ""),
    },
];

/// The table as a Markdown page.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Checks\n\nWhat `canton-keyvault check` examines. `serve` examines the same at its start, and ends with the same sentence for a fault of the kind\n\
         FAIL; a warning is a line of its log. Made from the table in `src/server/checks/mod.rs`; `tests/it/checks.rs` makes each mistake.\n\n\
         | check | examines | fault | `serve` examines it | what to do |\n|---|---|---|---|---|\n",
    );
    for Check { name, examines, severity, remedy, run } in CHECKS {
        let severity = match severity {
            Severity::Fail => "FAIL",
            Severity::Warn => "warn",
        };
        let when = match run {
            Run::Step(_, "") | Run::Machine(_) | Run::Store(_) => "at start".to_owned(),
            Run::Step(_, differs) => format!("at start. {differs}"),
            Run::Settings(_) => "at start, and after each reload".to_owned(),
            Run::Expiry(_) => "all the time".to_owned(),
        };
        let _ = writeln!(page, "| {name} | {examines} | {severity} | {when} | {remedy} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_checks_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/checks.md");
        if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == documentation(), "renew it: KEYVAULT_WRITE_DOCUMENTS=1 cargo test --lib");
    }

    #[test]
    fn names_are_unique_and_remedies_end_without_a_full_stop() {
        for check in CHECKS {
            assert_eq!(CHECKS.iter().filter(|other| other.name == check.name).count(), 1, "{}", check.name);
            assert!(!check.remedy.ends_with('.') && !check.remedy.is_empty(), "{}", check.name);
        }
    }
}
