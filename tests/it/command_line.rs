//! What is generated from the definition of the command line: completions and manual pages.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

fn program(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_canton-keyvault")).args(arguments).output().unwrap()
}

fn completions(shell: &str) -> String {
    let output = program(&["completions", shell]);
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What bash offers for the last word of a line.
fn offered(words: &[&str]) -> BTreeSet<String> {
    let script = completions("bash");
    let function = script.split("complete -F ").nth(1).unwrap().split_whitespace().next().unwrap();
    let script = format!(
        "set -u\n{}\nCOMP_WORDS=({}) COMP_CWORD={}\nCOMPREPLY=()\n{function} canton-keyvault '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        script,
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let mut bash = Command::new("bash").arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    for (words, expected) in [
        (&["canton-keyvault", "wrap"][..], "wrapper"),
        (&["canton-keyvault", "keys", "ver"], "verify"),
        (&["canton-keyvault", "wrapper", "rotation", "st"], "start"),
        (&["canton-keyvault", "keys", "list", "--na"], "--name"),
        (&["canton-keyvault", "keys", "list", "--state", "pend"], "pending-deletion"),
        (&["canton-keyvault", "keys", "list", "--output", "j"], "json"),
    ] {
        assert_eq!(offered(words), BTreeSet::from([expected.to_owned()]), "{words:?}");
    }
}

#[test]
fn the_scripts_of_other_shells_name_every_command() {
    for shell in ["zsh", "fish"] {
        let script = completions(shell);
        for word in ["canton-keyvault", "sign-topology", "restrict-signing", "--profile"] {
            let long = word.trim_start_matches('-');
            assert!(script.contains(long), "{shell}: {word}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(&["man", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("canton-keyvault.1").contains("Exit codes"));
    assert!(page("canton-keyvault-keys-verify.1").contains("stored form") || page("canton-keyvault-keys-verify.1").contains("open"));
    assert!(page("canton-keyvault-wrapper-rotation-start.1").contains("active"));
    // Where mandoc is installed, it reads every page without a complaint.
    let pages: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Ok(checked) = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).args(&pages).output() {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    let missing = program(&["man", "/nowhere/at/all"]);
    assert_eq!(missing.status.code(), Some(2));
}
