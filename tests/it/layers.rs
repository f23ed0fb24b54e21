//! Holds the layers of ARCHITECTURE.md: an import against the arrow fails, and the failure names the file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each layer, and the layers that it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("files", &[]),
    ("crypto", &["domain"]),
    ("topology", &["domain", "crypto"]),
    ("audit", &["domain", "crypto"]),
    ("client", &["domain", "files", "crypto"]),
    ("traces", &["domain", "files", "crypto", "client"]),
    ("storage", &["domain", "files", "crypto", "audit"]),
    ("kms", &["domain", "files", "crypto", "audit", "client", "traces"]),
    ("sinks", &["domain", "files", "client"]),
    ("vault", &["domain", "crypto", "topology", "audit", "traces", "storage", "kms", "sinks"]),
    ("mtls", &["domain", "files", "crypto"]),
    ("api", &["domain", "crypto", "topology", "audit", "traces", "vault", "mtls"]),
    ("config", &["domain", "files", "crypto", "audit", "traces", "storage", "kms", "sinks", "vault", "mtls"]),
    ("server", &["domain", "files", "crypto", "audit", "client", "traces", "storage", "kms", "sinks", "vault", "mtls", "api", "config"]),
    (
        "cli",
        &[
            "domain", "files", "crypto", "topology", "audit", "client", "traces", "storage", "kms", "sinks", "vault", "mtls", "api",
            "config", "server",
        ],
    ),
];

/// Words that the code of a layer must not contain.
const FOREIGN: &[(&str, &[&str])] = &[
    ("domain", &["tokio", "std::fs", "std::net", "SystemTime::now", "Instant::now", "tracing::", "async fn"]),
    ("crypto", &["tokio", "std::fs", "std::net", "tracing::", "async fn"]),
    ("topology", &["tokio", "std::fs", "std::net", "tracing::", "async fn"]),
    ("audit", &["crate::storage", "rusqlite"]),
    ("storage", &["SecretBytes", "axum", "hyper"]),
    ("traces", &["rusqlite", "axum"]),
    ("kms", &["rusqlite", "axum"]),
    ("sinks", &["rusqlite", "axum"]),
    ("vault", &["axum", "rusqlite", "aws_sdk", "StatusCode", "http::"]),
    ("mtls", &["rusqlite", "aws_sdk"]),
    ("api", &["rusqlite", "aws_sdk"]),
];

/// The folders inside `vault/` in their order: each may name only those before it.
const VAULT_PARTS: &[&str] = &["audit_gate", "wrapper_keys", "key_cache", "keys", "checkpoints", "jobs", "background"];

/// The parts of the vault whose fields are private to their folder, and the only files outside that may name the type: those that assemble
/// the vault.
const LIMITS_USERS: &[&str] = &["vault/mod.rs", "vault/start.rs", "vault/limits.rs"];

#[test]
fn no_part_of_the_vault_imports_a_later_part() {
    let mut wrong = Vec::new();
    for (place, part) in VAULT_PARTS.iter().enumerate() {
        for (file, number, line) in lines(&format!("vault/{part}")) {
            for later in VAULT_PARTS.iter().skip(place + 1) {
                let named = [format!("vault::{later}::"), format!("super::super::{later}::"), format!("super::{later}::")];
                let in_group = line.trim_start().starts_with(&format!("{later}::"));
                if in_group || named.iter().any(|name| line.contains(name.as_str())) {
                    wrong.push(format!("{}:{number}: vault/{part} names vault/{later}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_of_the_vault_has_a_place_in_the_order() {
    let folders = fs::read_dir(source().join("vault")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
    for folder in folders.map(|entry| entry.file_name().into_string().unwrap()) {
        assert!(VAULT_PARTS.contains(&folder.as_str()), "{folder}");
    }
}

#[test]
fn only_the_audit_gate_commits_to_the_store() {
    let commits = |line: &str| line.contains("store.commit(");
    let wrong = lines("vault").into_iter().filter(|(file, _, line)| commits(line) && !file.ends_with("audit_gate/commit.rs"));
    assert_eq!(wrong.map(|(file, number, _)| format!("{}:{number}", file.display())).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn background_tasks_cannot_reach_the_limits_of_callers() {
    for (file, number, line) in lines("vault/background") {
        assert!(!line.contains("Limits") && !line.contains(".heavy(") && !line.contains(".cache_miss("), "{}:{number}", file.display());
    }
    for (file, number, line) in lines("vault") {
        let may = LIMITS_USERS.iter().any(|user| file.ends_with(user));
        assert!(may || !line.contains("limits::Limits"), "{}:{number}", file.display());
    }
}

#[test]
fn no_layer_imports_against_the_arrow() {
    let mut wrong = Vec::new();
    for (layer, may) in LAYERS {
        for (file, number, line) in lines(layer) {
            for (other, _) in LAYERS.iter().filter(|(other, _)| other != layer && !may.contains(other)) {
                if names(&line, other) {
                    wrong.push(format!("{}:{number}: {layer} names {other}", file.display()));
                }
            }
            let foreign = FOREIGN.iter().filter(|(of, _)| of == layer).flat_map(|(_, words)| *words);
            for word in foreign.filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {layer} names {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_of_the_source_is_a_layer() {
    let folders: Vec<String> = fs::read_dir(source())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(folders.len(), LAYERS.len(), "{folders:?}");
    for folder in folders {
        assert!(LAYERS.iter().any(|(layer, _)| *layer == folder), "{folder}");
    }
}

#[test]
fn every_module_starts_with_a_doc_comment() {
    for (layer, _) in LAYERS {
        for file in files(&source().join(layer)) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//! "), "{}", file.display());
        }
    }
}

/// Whether a line of code names a layer: `crate::storage::…`, also where it was written inside `use crate::{…}`.
fn names(line: &str, layer: &str) -> bool {
    line.contains(&format!("crate::{layer}::"))
        || line.contains(&format!("crate::{{{layer}::"))
        || line.contains(&format!("crate::{layer};"))
}

/// The code lines of a folder, without comments and unit tests. A line in a `use crate::{` group gets the prefix `crate::`.
fn lines(layer: &str) -> Vec<(PathBuf, usize, String)> {
    let mut all = Vec::new();
    for file in files(&source().join(layer)) {
        let (text, mut in_group) = (fs::read_to_string(&file).unwrap(), false);
        for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
            in_group = line.ends_with("use crate::{") || (in_group && line != "};");
            let under_crate = in_group && line.starts_with("    ") && !line.starts_with("     ");
            let line = if under_crate { format!("crate::{}", line.trim_start()) } else { line.to_owned() };
            if !line.trim_start().starts_with("//") {
                all.push((file.clone(), number + 1, line));
            }
        }
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
    found
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
