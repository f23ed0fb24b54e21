//! The layers of the design, held: an import against the arrow fails here, with its file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each layer, and the layers that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("crypto", &["domain"]),
    ("audit", &["domain", "crypto"]),
    ("client", &["domain", "crypto"]),
    ("storage", &["domain", "crypto", "audit"]),
    ("kms", &["domain", "crypto", "audit", "client"]),
    ("vault", &["domain", "crypto", "audit", "storage", "kms"]),
    ("mtls", &["domain", "crypto"]),
    ("api", &["domain", "crypto", "audit", "vault", "mtls"]),
    ("config", &["domain", "crypto", "audit", "storage", "kms", "vault", "mtls"]),
    ("server", &["domain", "crypto", "audit", "storage", "kms", "vault", "mtls", "api", "config"]),
    ("cli", &["domain", "crypto", "audit", "client", "storage", "kms", "vault", "mtls", "api", "config", "server"]),
];

/// What a layer must not name, whatever it imports.
const FOREIGN: &[(&str, &[&str])] = &[
    ("domain", &["tokio", "std::fs", "std::net", "SystemTime::now", "Instant::now", "tracing::", "async fn"]),
    ("crypto", &["tokio", "std::fs", "std::net", "tracing::", "async fn"]),
    ("audit", &["crate::storage", "rusqlite"]),
    ("storage", &["SecretBytes", "axum", "hyper"]),
    ("kms", &["rusqlite", "axum"]),
    ("vault", &["axum", "rusqlite", "aws_sdk", "StatusCode", "http::"]),
    ("mtls", &["rusqlite", "aws_sdk"]),
    ("api", &["rusqlite", "aws_sdk"]),
];

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
fn every_module_opens_with_a_sentence() {
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

/// The code lines of a layer, without comments and the tests at the foot of a file. In `use crate::{` every line of the group gets
/// the `crate::` that it is under.
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
