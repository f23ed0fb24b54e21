//! The README: its example executed (a key is created and signs, openssl verifies, other principals see what they may), and its tables complete.

use std::{fs, path::Path, process::Command};

use crate::support::vault::TestVault;

#[test]
fn the_example_does_what_it_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, after) = readme.split_once("<!-- tests/it/readme.rs pastes the next block -->\n```sh\n").unwrap();
    let (block, _) = after.split_once("```").unwrap();
    let vault = TestVault::start();
    let script = block.replace("https://127.0.0.1:8443", vault.url()).replace(".keyvault-dev/pki", vault.path("pki").to_str().unwrap());
    assert!(script.contains(vault.url()), "the example names the address that dev listens on");
    let output = Command::new("bash").args(["-euc", &script]).current_dir(vault.folder()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("Signature Verified Successfully"), "{out}{err}");
    assert!(out.contains("\"code\":\"not_found\""), "{out}");
    assert!(out.contains("\"operation\":\"keys.sign\"") && out.contains("\"operation\":\"keys.create\""), "{out}");
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn the_table_of_calls_names_every_call() {
    let readme = readme();
    let (_, after) = readme.split_once("| call | permitted roles").unwrap();
    let (table, _) = after.split_once("\n\n").unwrap();
    let document = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        let name = path.rsplit('/').find(|part| !part.starts_with('{')).unwrap();
        let named = table.split('`').skip(1).step_by(2).any(|code| code.split(['/', ' ', '?']).any(|part| part == name));
        assert!(named, "README.md does not name {path}");
    }
}

#[test]
fn the_map_names_every_folder() {
    let (root, readme) = (Path::new(env!("CARGO_MANIFEST_DIR")), readme());
    let (_, after) = readme.split_once("## Map of the code").unwrap();
    let (map, _) = after.split_once("\n## ").unwrap();
    let folders = |of: &str| -> Vec<String> {
        let entries = fs::read_dir(root.join(of)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let own = folders("").into_iter().filter(|name| !name.starts_with('.') && name != "target" && name != "src");
    for folder in folders("src").into_iter().map(|name| format!("src/{name}")).chain(own) {
        assert!(map.contains(&format!("`{folder}`")) || map.contains(&format!("`{folder}/")), "README.md does not name {folder}");
    }
    for folder in map.split('`').skip(1).step_by(2).filter(|code| !code.contains('.')) {
        assert!(root.join(folder).is_dir(), "README.md names {folder}");
    }
}
