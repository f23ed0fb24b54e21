//! `keyvault.toml`: every option with its unit and default. The whole file is checked before anything starts or reloads.
//!
//! Relative paths are relative to the folder of the file. `[tls]`, `nodes` and `grants` are reloaded while the vault serves requests. The
//! other sections need a restart. Unknown options are refused, because a misspelt option would silently keep its default.

mod policy;
mod renamed;
mod sections;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::policy::{GrantConfig, NodesConfig};
pub use self::sections::{AuditConfig, LogConfig, LogFormat, MemoryConfig, MemoryLock, StorageConfig, VaultSection, WitnessConfig};

use crate::{
    domain::{NodeName, Policy, VaultId},
    files::{self, MAX_FILE},
    kms,
    mtls::{ConnectionLimits, ListenConfig, TlsConfig},
    sinks,
    traces::TracesConfig,
    vault::{CacheConfig, JobsConfig, LimitsConfig},
};

use self::sections::{cache_problem, connections_problem, jobs_problem, limits_problem};

/// The configuration of one vault.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[vault]`: the id of the vault.
    pub vault: VaultSection,
    /// `[listen]`: the addresses. Needs a restart.
    pub listen: ListenConfig,
    /// `[tls]`: the certificate of the server, and the client CAs. Reloaded.
    pub tls: TlsConfig,
    /// `[storage]`: the database. Needs a restart.
    pub storage: StorageConfig,
    /// `[wrapper]`: the first wrapper key and the allowed ones. Needs a restart.
    pub wrapper: kms::WrapperConfig,
    /// `[connections]`: the limits of connections. Needs a restart.
    #[serde(default)]
    pub connections: ConnectionLimits,
    /// `[cache]`: opened keys in memory. Needs a restart.
    #[serde(default)]
    pub cache: CacheConfig,
    /// `[limits]`: the limits of one principal. Needs a restart.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// `[jobs]`: the rate of jobs over all keys. Needs a restart.
    #[serde(default)]
    pub jobs: JobsConfig,
    /// `[audit]`: checkpoints of the audit log. Needs a restart.
    #[serde(default)]
    pub audit: AuditConfig,
    /// `[log]`: the log lines of the process. Needs a restart.
    #[serde(default)]
    pub log: LogConfig,
    /// `[traces]`: spans of calls for a collector. Needs a restart. Default: none.
    pub traces: Option<TracesConfig>,
    /// `[memory]`: the protection of memory. Needs a restart.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// The Canton nodes that keys can belong to. Reloaded. Default: none.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// The grants: principal, role and nodes. Reloaded. Default: none.
    #[serde(default)]
    pub grants: Vec<GrantConfig>,
    #[serde(skip)]
    file: PathBuf,
}

/// Why a configuration is not valid. Names the file, the option and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// Not TOML, an unknown option, or a value of the wrong type. The text shows the line.
    #[error("{}: {error}", file.display())]
    Parse {
        /// Which file.
        file: PathBuf,
        /// The position and the fault.
        error: Box<toml::de::Error>,
    },
    /// A value that is not valid.
    #[error("{}: {option}: {problem}", file.display())]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// Which option: `[storage] commit_timeout`.
        option: String,
        /// The fault and its fix.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file. The files that it names are not opened here.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Read { file: file.to_owned(), error };
        let bytes = files::read(file, MAX_FILE).map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
        Self::parse(text, file)
    }

    /// Reads and checks a text as if `file` contained it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        if let Some((option, problem)) = renamed::renamed_option(text) {
            return Err(ConfigError::Invalid { file: file.to_owned(), option, problem });
        }
        let parsed = toml::from_str::<Self>(text);
        let mut config = parsed.map_err(|error| ConfigError::Parse { file: file.to_owned(), error: Box::new(error) })?;
        file.clone_into(&mut config.file);
        config.resolve();
        config.check()?;
        Ok(config)
    }

    /// The policy of nodes and grants. Its revision is a short hash of both, independent of their order.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the grant.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        policy::policy(&self.nodes, &self.grants).map_err(|(option, problem)| self.invalid(option, problem))
    }

    /// The same configuration for another `[vault] instance`, if one is given.
    #[must_use]
    pub fn for_instance(mut self, instance: Option<&VaultId>) -> Self {
        if let Some(instance) = instance {
            self.vault.instance = Some(instance.clone());
        }
        self
    }

    /// The file that this was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The folder that relative paths are relative to.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new(""))
    }

    /// The sections in which `new` differs and which need a restart.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            vault,
            listen,
            tls: _,
            storage,
            wrapper,
            connections,
            cache,
            limits,
            jobs,
            audit,
            log,
            traces,
            memory,
            nodes: _,
            grants: _,
            file: _,
        } = self;
        [
            ("[vault]", *vault != new.vault),
            ("[listen]", *listen != new.listen),
            ("[storage]", *storage != new.storage),
            ("[wrapper]", *wrapper != new.wrapper),
            ("[connections]", *connections != new.connections),
            ("[cache]", *cache != new.cache),
            ("[limits]", *limits != new.limits),
            ("[jobs]", *jobs != new.jobs),
            ("[audit]", *audit != new.audit),
            ("[log]", *log != new.log),
            ("[traces]", *traces != new.traces),
            ("[memory]", *memory != new.memory),
        ]
        .into_iter()
        .filter_map(|(section, differs)| differs.then_some(section))
        .collect()
    }

    fn resolve(&mut self) {
        let folder = self.folder().to_owned();
        self.tls.resolve(&folder);
        self.storage.path = self.storage.path.take().map(|path| folder.join(path));
        #[cfg(feature = "postgresql")]
        if let Some(postgresql) = &mut self.storage.postgresql {
            postgresql.resolve(&folder);
        }
        self.audit.high_water_mark = self.audit.high_water_mark.take().map(|path| folder.join(path));
        for witness in &mut self.audit.witnesses {
            witness.ca = witness.ca.take().map(|path| folder.join(path));
        }
        self.audit.sinks.iter_mut().for_each(|sink| sink.resolve(&folder));
        if let Some(traces) = &mut self.traces {
            traces.resolve(&folder);
        }
        self.wrapper.resolve(&folder);
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls.client_cas.is_empty() {
            return Err(self.invalid("[tls] client_cas", "is empty, so no client could connect; name at least one CA"));
        }
        for (index, ca) in self.tls.client_cas.iter().enumerate() {
            if ca.trust_domains.is_empty() && ca.dns.is_empty() {
                let problem = "may vouch for no name at all; list trust_domains = [\"example.org\"], dns = [\"*.example.org\"] or both";
                return Err(self.invalid(format!("[tls] client_cas, entry {}", index + 1), problem));
            }
        }
        if self.listen.api.port() != 0 && self.listen.api == self.listen.ops {
            return Err(self.invalid("[listen] ops", "is the address of the API; give the operations listener a port of its own"));
        }
        let sections = [
            self.storage.problem(),
            connections_problem(&self.connections),
            cache_problem(&self.cache),
            limits_problem(&self.limits),
            jobs_problem(&self.jobs),
            self.audit.problem(),
            self.log.problem(),
            self.traces.as_ref().and_then(TracesConfig::problem),
        ];
        if let Some((option, problem)) = sections.into_iter().flatten().next() {
            return Err(self.invalid(option, problem));
        }
        if let Some((option, problem)) = sinks::problem(&self.audit.sinks) {
            return Err(self.invalid(option, problem));
        }
        self.policy().map(drop)
    }

    fn invalid(&self, option: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { file: self.file.clone(), option: option.into(), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{KeyId, Operation, Principal, Target};

    const SMALL: &str = r#"
        nodes = ["participant1", "participant2"]
        [vault]
        id = "test"
        [listen]
        api = "127.0.0.1:8443"
        ops = "127.0.0.1:9443"
        [tls]
        certificate = "pki/server.pem"
        key = "/etc/keys/server.key"
        client_cas = [{ file = "pki/ca.pem", trust_domains = ["example.org"] }]
        [storage]
        path = "keyvault.db"
        [wrapper]
        provider = "local"
        reference = "wrapper.key"
        allowed = ["wrapper.key"]
        [[grants]]
        principal = "spiffe://example.org/p1"
        role = "node"
        nodes = ["participant1"]
        [[grants]]
        principal = "dns:auditor.example.org"
        role = "auditor"
        nodes = ["*"]
    "#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/keyvault/keyvault.toml"))
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "{from}");
        parse(&SMALL.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn an_old_option_name_is_refused_with_the_new_one() {
        let error = refused("[storage]", "[cache]\nresidency = \"2h\"\n[storage]");
        assert_eq!(error, "/etc/keyvault/keyvault.toml: [cache] residency: was renamed to max_age. Change the name");
    }

    #[test]
    fn a_small_file_has_the_documented_defaults() {
        let config = parse(SMALL).unwrap();
        assert_eq!(config.tls.certificate, Path::new("/etc/keyvault/pki/server.pem"));
        assert_eq!(config.tls.key, Path::new("/etc/keys/server.key"));
        assert_eq!(config.tls.client_cas[0].file, Path::new("/etc/keyvault/pki/ca.pem"));
        assert_eq!(config.storage.path.as_deref(), Some(Path::new("/etc/keyvault/keyvault.db")));
        assert_eq!(config.cache.max_age, Duration::from_hours(4));
        assert!(!config.memory.dumpable);
        assert_eq!(config.folder(), Path::new("/etc/keyvault"));
        assert!(config.needs_restart(&config).is_empty());
    }

    #[test]
    fn the_policy_is_what_the_grants_say() {
        let policy = parse(SMALL).unwrap().policy().unwrap();
        let (key, node) = (KeyId::Symmetric([1; 16]), "participant1".parse().unwrap());
        let p1 = Principal { name: "spiffe://example.org/p1".into(), certificate: None };
        assert!(policy.permit(&p1, Operation::Sign, Target::Key(key, &node)).is_ok());
        assert!(policy.permit(&p1, Operation::Sign, Target::Key(key, &"participant2".parse().unwrap())).is_err());
        let auditor = Principal { name: "dns:auditor.example.org".into(), certificate: None };
        assert!(policy.permit(&auditor, Operation::ShowKey, Target::Key(key, &node)).is_ok());
    }

    #[test]
    fn the_revision_names_the_content_and_not_its_order() {
        let revision = |text: &str| parse(text).unwrap().policy().unwrap().revision().to_string();
        let swapped = SMALL.replace(r#"["participant1", "participant2"]"#, r#"["participant2", "participant1"]"#);
        assert_eq!(revision(SMALL), revision(&swapped));
        assert_ne!(revision(SMALL), revision(&SMALL.replace("\"auditor\"", "\"exporter\"")));
        assert_eq!(revision(SMALL).len(), 16);
    }

    #[test]
    fn errors_name_the_file_the_option_and_what_to_do() {
        for (from, to, expected) in [
            ("[storage]", "[storage]\nsync = false", "unknown field `sync`"),
            ("[vault]", "extra = 1\n[vault]", "unknown field `extra`"),
            ("id = \"test\"", "id = \"a b\"", "a vault id matches"),
            ("trust_domains = [\"example.org\"]", "", "[tls] client_cas, entry 1: may vouch for no name at all"),
            ("[{ file = \"pki/ca.pem\", trust_domains = [\"example.org\"] }]", "[]", "[tls] client_cas: is empty"),
            ("127.0.0.1:9443", "127.0.0.1:8443", "[listen] ops: is the address of the API"),
            ("nodes = [\"participant1\"]", "nodes = [\"participant3\"]", "participant3"),
            ("nodes = [\"participant1\"]", "nodes = []", "nodes"),
            ("nodes = [\"participant1\"]", "nodes = [\"*\", \"participant1\"]", "\"*\""),
            ("dns:auditor.example.org", "dns:Auditor.example.org", "[[grants]] principal"),
            ("dns:auditor.example.org", "auditor", "[[grants]] principal"),
            ("role = \"auditor\"", "role = \"root\"", "unknown variant `root`"),
            ("path = \"keyvault.db\"", "path = \"keyvault.db\"\ncommit_timeout = \"0s\"", "[storage] commit_timeout"),
            ("path = \"keyvault.db\"", "path = \"keyvault.db\"\nquery_time = \"1m\"", "[storage] query_time"),
            ("[storage]", "[cache]\nidle_timeout = \"5h\"\n[storage]", "[cache] idle_timeout"),
            ("[storage]", "[connections]\nreserved = 4096\n[storage]", "[connections] reserved"),
            ("[storage]", "[connections]\nidle_timeout = \"0s\"\n[storage]", "[connections] idle_timeout"),
            ("[storage]", "[cache]\ncapacity = 0\n[storage]", "[cache] capacity"),
            ("[storage]", "[limits]\nconcurrent = 0\n[storage]", "[limits] concurrent"),
            ("[storage]", "[log]\nfilter = \"a=b=c\"\n[storage]", "[log] filter"),
            ("[tls]", "[tls]\nmin_version = \"1.1\"", "1.1"),
        ] {
            let text = refused(from, to);
            assert!(text.starts_with("/etc/keyvault/keyvault.toml: ") && text.contains(expected), "{to}: {text}");
        }
    }

    #[test]
    fn options_that_need_a_restart_are_named() {
        let old = parse(SMALL).unwrap();
        let new = parse(&SMALL.replace(":8443", ":8444").replace("keyvault.db", "other.db").replace("server.pem", "new.pem")).unwrap();
        assert_eq!(old.needs_restart(&new), ["[listen]", "[storage]"]);
    }
}
