//! `deploy/keyvault.toml` is valid, has every option, and shows the default of each option that is commented out.

use std::{collections::BTreeSet, path::Path};

use canton_keyvault::config::Config;

/// Every section: its struct, the file of the struct, and its name in the example.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("Config", "src/config/mod.rs", ""),
    ("VaultSection", "src/config/sections.rs", "vault"),
    ("StorageConfig", "src/config/sections.rs", "storage"),
    ("PostgresConfig", "src/storage/postgres/config.rs", "storage.postgresql"),
    ("WitnessConfig", "src/config/sections.rs", "audit.witnesses"),
    ("LogConfig", "src/config/sections.rs", "log"),
    ("TracesConfig", "src/traces/config.rs", "traces"),
    ("AuditConfig", "src/config/sections.rs", "audit"),
    ("MemoryConfig", "src/config/sections.rs", "memory"),
    ("GrantConfig", "src/config/policy.rs", "grants"),
    ("ListenConfig", "src/mtls/config.rs", "listen"),
    ("TlsConfig", "src/mtls/config.rs", "tls"),
    ("ClientCaConfig", "src/mtls/config.rs", "tls.client_cas"),
    ("ConnectionLimits", "src/mtls/limits.rs", "connections"),
    ("CacheConfig", "src/vault/key_cache/entries.rs", "cache"),
    ("JobsConfig", "src/vault/background/rate_limit.rs", "jobs"),
    ("LimitsConfig", "src/vault/limits.rs", "limits"),
    ("WrapperConfig", "src/kms/config.rs", "wrapper"),
    ("CallLimits", "src/kms/config.rs", "wrapper.limits"),
    ("SinkOptions", "src/sinks/config.rs", "audit.sinks"),
    ("FileSinkConfig", "src/sinks/config.rs", "audit.sinks"),
    ("HttpSinkConfig", "src/sinks/config.rs", "audit.sinks"),
    ("SyslogSinkConfig", "src/sinks/config.rs", "audit.sinks"),
    ("OpenbaoConfig", "src/kms/openbao/config.rs", "wrapper.openbao"),
    ("Pkcs11Config", "src/kms/pkcs11/config.rs", "wrapper.pkcs11"),
    ("GcpKmsConfig", "src/kms/gcp_kms/config.rs", "wrapper.gcp_kms"),
    ("AzureKeyVaultConfig", "src/kms/azure_key_vault/config.rs", "wrapper.azure_key_vault"),
];

/// Options without a default. The example shows an example value.
const NO_DEFAULT: &[&str] = &[
    "[storage.postgresql]",
    "endpoint",
    "endpoints",
    "crl",
    "high_water_mark",
    "[[wrapper.openbao]]",
    "[[wrapper.pkcs11]]",
    "[wrapper.gcp_kms]",
    "[[wrapper.azure_key_vault]]",
    "[[audit.witnesses]]",
    "[[audit.sinks]]",
    "[traces]",
];

#[test]
fn the_example_is_valid() {
    let config = parse(&example()).unwrap();
    assert_eq!(config.file(), Path::new("/etc/canton-keyvault/keyvault.toml"));
    assert!(config.wrapper.warning().is_none(), "an example for production has no wrapper key in a file");
}

#[test]
fn each_commented_line_is_an_option_with_its_default() {
    let shown = parse(&example()).unwrap();
    // A store is a file or a database.
    assert!(parse(&uncommented(|_| true).replace("path = \"/var/lib/canton-keyvault/keyvault.db\"\n", "")).is_ok());
    let mut all = parse(&uncommented(|option| !NO_DEFAULT.contains(&option))).unwrap();
    assert_eq!(all.vault.instance(), shown.vault.instance());
    all.vault.instance = None;
    assert_eq!(all, shown);
}

#[test]
fn every_option_is_in_the_example() {
    let whole: toml::Table = uncommented(|_| true).parse().unwrap();
    for (name, file, section) in SECTIONS {
        let present = options(&whole, section);
        let expected = fields(name, file);
        assert!(!expected.is_empty(), "{name} in {file} has no options");
        let missing: Vec<_> = expected.difference(&present).collect();
        assert!(missing.is_empty(), "deploy/keyvault.toml says nothing of {missing:?} in [{section}]");
    }
}

/// A section that is added is a struct that refuses unknown fields: it must be in the list above.
#[test]
fn every_section_is_known_here() {
    let files: BTreeSet<&str> = SECTIONS.iter().map(|(_, file, _)| *file).collect();
    for file in files {
        let strict = source(file).matches("deny_unknown_fields").count();
        let known = SECTIONS.iter().filter(|(_, of, _)| *of == file).count();
        assert_eq!(strict, known, "{file}");
    }
}

fn parse(text: &str) -> Result<Config, canton_keyvault::config::ConfigError> {
    Config::parse(text, Path::new("/etc/canton-keyvault/keyvault.toml"))
}

fn example() -> String {
    source("deploy/keyvault.toml")
}

/// The example with its commented options put in force: lines such as `# retries = 2`. A section such as `# [[wrapper.openbao]]` reaches
/// to the next empty line, and is wanted or not as a whole.
fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
    let mut left_out = false;
    let line = |line: &str| {
        left_out &= !line.is_empty();
        if let Some(section) = line.strip_prefix("# ").filter(|rest| rest.starts_with('[')) {
            left_out = !wanted(section);
            return if left_out { line } else { section }.to_owned();
        }
        let option = line.strip_prefix("# ").and_then(|rest| Some((rest, rest.split_once(" = ")?.0)));
        match option {
            Some((rest, name)) if is_option(name) && wanted(name) && !left_out => rest.to_owned(),
            _ => line.to_owned(),
        }
    };
    example().lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_option(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// The names that a section of the example has, over all its tables where it is a list.
fn options(whole: &toml::Table, section: &str) -> BTreeSet<String> {
    let mut tables = vec![whole];
    for part in section.split('.').filter(|part| !part.is_empty()) {
        tables = tables
            .iter()
            .flat_map(|table| match &table[part] {
                toml::Value::Table(table) => vec![table],
                toml::Value::Array(items) => items.iter().map(|item| item.as_table().unwrap()).collect(),
                other => panic!("[{section}] is {other:?}"),
            })
            .collect();
    }
    tables.iter().flat_map(|table| table.keys().cloned()).collect()
}

/// The options of a struct, read from its source: its public fields, but for those that serde skips.
fn fields(name: &str, file: &str) -> BTreeSet<String> {
    let source = source(file);
    let (_, body) = source.split_once(&format!("\npub struct {name} {{\n")).unwrap_or_else(|| panic!("{file} has no struct {name}"));
    let (body, _) = body.split_once("\n}").unwrap();
    let field = |line: &str| line.trim().strip_prefix("pub ").and_then(|line| Some(line.split_once(':')?.0.to_owned()));
    let (mut fields, mut skipped) = (BTreeSet::new(), false);
    for line in body.lines() {
        let is_field = field(line);
        fields.extend(is_field.clone().filter(|_| !skipped));
        skipped = line.trim().starts_with("#[serde(skip") || skipped && is_field.is_none();
    }
    fields
}

fn source(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}
