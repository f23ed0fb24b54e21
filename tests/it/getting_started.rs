//! `docs/getting-started.md`: its blocks run in their order in an empty folder, with nothing but the binary, openssl and curl.

use std::{fs, net::TcpListener, path::Path, process::Command};

const MARK: &str = "<!-- tests/it/getting_started.rs runs the blocks from here on -->";

/// The shell blocks after the mark, as one script.
fn script() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/getting-started.md")).unwrap();
    let (_, after) = page.split_once(MARK).unwrap();
    let blocks: Vec<_> = after.split("```sh\n").skip(1).map(|block| block.split_once("\n```").unwrap().0).collect();
    assert_eq!(blocks.len(), 6, "the blocks of the page");
    blocks.join("\n")
}

#[test]
fn every_block_works_in_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_canton-keyvault"));
    let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> = free.iter().map(|listener| listener.local_addr().unwrap().port().to_string()).collect();
    drop(free);
    let script = script().replace(":8443", &format!(":{}", ports[0]));
    let script = script.replace(":9443", &format!(":{}", ports[1]));
    // The vault of the page ends with the script.
    let script = format!("trap 'kill -TERM $(jobs -p); wait' EXIT\n{script}\necho the last line\n");
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("timeout").args(["120", "bash", "-euo", "pipefail", "-c", &script]).env("PATH", path).current_dir(&folder).output();
    let output = output.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = fs::read_to_string(folder.path().join("vault.log")).unwrap_or_default();
    assert!(output.status.success() && out.ends_with("the last line\n"), "{out}{err}{log}");
    for shown in ["spiffe://example.org/participant1", "draining", "keys.sign"] {
        assert!(out.contains(shown), "{shown}: {out}");
    }
    assert!(!out.contains("FAIL"), "{out}");
    for report in ["report.html", "rotation.html"] {
        let page = fs::read_to_string(folder.path().join(report)).unwrap();
        assert!(page.contains("getting-started"), "{report} names the vault");
    }
    assert!(log.contains("\"stopped\""), "it ends in good order: {log}");
}
