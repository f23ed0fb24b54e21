//! The example of the README, executed: a key is created and signs, openssl verifies the signature, and other principals see what they may.

use std::process::Command;

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
