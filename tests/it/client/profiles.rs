//! Profiles and the output format: which value wins, and what is said about a file that cannot be used.

use std::process::Output;

use serde_json::{Value, json};

use super::{
    agreeable, assert_done,
    fake::{FakeVault, Reply},
    text,
};

/// The program without the connection variables, with these instead.
fn run(vault: &FakeVault, line: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = vault.command(line.split_whitespace());
    for name in ["KEYVAULT_URL", "KEYVAULT_CA", "KEYVAULT_CERT", "KEYVAULT_KEY", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", vault.folder.path()).envs(variables.iter().copied()).output().unwrap()
}

/// A fake, and a file of profiles in the folder `folder` of it: `good` reaches it, `away` reaches nothing.
fn with_profiles(folder: &str) -> FakeVault {
    let vault = FakeVault::start(|_| Reply::Json(200, json!({ "principal": "dns:p1" })));
    std::fs::create_dir_all(vault.file(folder)).unwrap();
    let up = "../".repeat(folder.split('/').count());
    let files = format!("ca = '{up}ca.pem'\ncert = '{up}client.pem'\nkey = '{up}client.key'\n");
    let profiles = format!("[good]\nurl = '{}'\noutput = 'json'\n{files}\n[away]\nurl = 'https://127.0.0.1:1'\n{files}", vault.url());
    std::fs::write(vault.file(folder).join("profiles.toml"), profiles).unwrap();
    vault
}

#[test]
fn a_profile_replaces_defaults_and_loses_to_variables_and_options() {
    let vault = with_profiles(".config/canton-keyvault");
    let answered = |line: &str, variables: &[(&str, &str)]| {
        let output = run(&vault, line, variables);
        assert_done(line, &output);
        text(&output.stdout).to_owned()
    };
    // The paths in the file are relative to its folder, the output format too is from it.
    let json = json!({ "principal": "dns:p1" });
    assert_eq!(serde_json::from_str::<Value>(&answered("whoami --profile good", &[])).unwrap(), json);
    assert_eq!(serde_json::from_str::<Value>(&answered("whoami", &[("KEYVAULT_PROFILE", "good")])).unwrap(), json);
    assert_eq!(answered("whoami --output table", &[("KEYVAULT_PROFILE", "good")]), "principal: dns:p1\n");
    assert_eq!(answered("whoami --profile good", &[("KEYVAULT_OUTPUT", "table")]), "principal: dns:p1\n");
    assert_eq!(run(&vault, "whoami --profile away", &[]).status.code(), Some(3));
    let url = vault.url();
    answered(&format!("whoami --profile away --url {url}"), &[]);
    answered("whoami --profile away", &[("KEYVAULT_URL", &url)]);
    assert_eq!(run(&vault, "whoami --profile good", &[("KEYVAULT_URL", "https://127.0.0.1:1")]).status.code(), Some(3));
    assert_eq!(run(&vault, "whoami", &[]).status.code(), Some(2), "without a profile nothing of the file counts");
    // Another place of the file.
    let file = vault.file(".config/canton-keyvault/profiles.toml");
    let named = format!("whoami --profile good --profiles {}", file.display());
    answered(&named, &[("HOME", "/nowhere")]);
    answered("whoami --profile good", &[("HOME", "/nowhere"), ("KEYVAULT_PROFILES", file.to_str().unwrap())]);
    answered("whoami --profile good", &[("HOME", "/nowhere"), ("XDG_CONFIG_HOME", vault.file(".config").to_str().unwrap())]);
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let vault = FakeVault::start(agreeable);
    std::fs::write(vault.file("good.toml"), "[one]\n[two]\n").unwrap();
    std::fs::write(vault.file("secret.toml"), "[one]\npassword = 'x'\n").unwrap();
    std::fs::write(vault.file("output.toml"), "[one]\noutput = 'xml'\n").unwrap();
    std::fs::write(vault.file("none.toml"), "one\n").unwrap();
    for (file, profile, told) in [
        ("good.toml", "three", "It has: one, two"),
        ("secret.toml", "one", "password"),
        ("output.toml", "one", "xml"),
        ("none.toml", "one", "none.toml"),
        ("missing.toml", "one", "missing.toml"),
    ] {
        let output = vault.run(&format!("whoami --profile {profile} --profiles {file}"));
        assert_eq!(output.status.code(), Some(2), "{file}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(told), "{file}: {}", text(&output.stderr));
    }
    assert!(vault.take_seen().is_empty());
}

#[test]
fn the_output_format_is_that_of_the_variable_unless_an_option_says_otherwise() {
    let vault = FakeVault::start(|_| Reply::Json(200, json!({ "principal": "dns:p1" })));
    let text_of = |line: &str| {
        let output = vault.command(line.split_whitespace()).env("KEYVAULT_OUTPUT", "json").output().unwrap();
        assert_done(line, &output);
        text(&output.stdout).to_owned()
    };
    assert!(text_of("whoami").starts_with('{'));
    assert_eq!(text_of("whoami --output text"), "principal: dns:p1\n");
}
