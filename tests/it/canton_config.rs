//! `canton config` without a vault: its environment read by a shell, its values read by a YAML parser. What Canton and the driver read of it is
//! tested by `PrintedConfigSuite` of the driver.

use std::{fs, process::Command};

use serde_json::{Value, json};

/// A file name with what HOCON, YAML, a shell or Kubernetes could take for something else.
const ODD: &str = r#"C:\a "b" $(c) ${d} $$ 'e' `f` # g // h: i, é.pem"#;

/// Runs the binary with an empty environment, as on a machine without a vault: exit code, standard output, standard error.
fn config(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canton-keyvault"));
    let output = command.args(["canton", "config"]).args(arguments).env_clear().output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn printed(arguments: &[&str]) -> String {
    let (code, out, err) = config(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

/// Reads YAML with `PyYAML`, which knows the words that YAML 1.1 takes for other types, as Helm does.
fn yaml(text: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    fs::write(&file, text).unwrap();
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))";
    let output = Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
    assert!(output.status.success(), "python3 with PyYAML (Debian: python3-yaml): {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The lines of a file without comments, as name and value.
fn variables(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap()).collect()
}

#[test]
fn a_shell_reads_the_same_environment_as_docker() {
    let common = ["--node", "node-1", "--trust-collection-file", ODD, "--driver-jar", "/a 'b'/driver.jar"];
    let with = |form| printed(&[&common[..], &[form]].concat());
    let (quoted, plain) = (with("--env"), with("--env-file"));
    let plain = variables(&plain);
    assert_eq!(plain.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["EXTRA_CLASSPATH", "ADDITIONAL_CONFIG_KEYVAULT_NODE_1"]);
    assert_eq!(plain[0].1, "/a 'b'/driver.jar");
    assert!(plain[1].1.starts_with("canton.participants.node-1.crypto { provider = kms, kms { type = driver, "), "{}", plain[1].1);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("environment");
    fs::write(&file, quoted).unwrap();
    for (name, value) in plain {
        let script = format!("set -aeu; . {}; printenv {name}", file.display());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}\n"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_values_of_a_participant_have_the_shape_of_the_chart() {
    let values = yaml(&printed(&[
        "--node",
        "On",
        "--vault",
        "https://vault1:8443",
        "--vault",
        "https://vault2:8443",
        "--splice",
        "--private-key-file",
        ODD,
        "--driver-secret",
        "driver.jar-1",
        "--tls-secret",
        "yes.no",
    ]));
    // The chart writes a value as it is, and Kubernetes reads `$$` as `$`.
    let odd = ODD.replace('\\', r"\\").replace('"', r#"\""#).replace('$', "$$");
    assert_eq!(
        values["kms"],
        json!({
            "type": "driver",
            "name": "canton-keyvault",
            "config": {
                "urls": r#"["https://vault1:8443", "https://vault2:8443"]"#,
                "node": r#""On""#,
                "tls": {
                    "trustCollectionFile": r#""/keyvault/tls/ca.crt""#,
                    "certChainFile": r#""/keyvault/tls/tls.crt""#,
                    "privateKeyFile": format!("\"{odd}\""),
                },
            },
        })
    );
    assert_eq!(
        values["additionalEnvVars"][0],
        json!({ "name": "EXTRA_CLASSPATH", "value": "/keyvault/driver/canton-keyvault-driver.jar" })
    );
    let schemes = values["additionalEnvVars"][1]["value"].as_str().unwrap();
    assert!(schemes.starts_with("canton.participants.participant.crypto { signing { algorithms.default = ed-25519, "), "{schemes}");
    assert_eq!(
        values["extraVolumes"],
        json!([
            { "name": "keyvault-driver", "secret": { "secretName": "driver.jar-1" } },
            { "name": "keyvault-tls", "secret": { "secretName": "yes.no" } },
        ])
    );
    assert_eq!(
        values["extraVolumeMounts"],
        json!([
            { "name": "keyvault-driver", "mountPath": "/keyvault/driver", "readOnly": true },
            { "name": "keyvault-tls", "mountPath": "/keyvault/tls", "readOnly": true },
        ])
    );
}

#[test]
fn a_sequencer_and_a_mediator_get_variables_as_values_and_volumes_as_a_patch() {
    for kind in ["sequencer", "mediator"] {
        let common = ["--node", "SV_1", "--kind", kind, "--vault", "https://vault:8443"];
        let with = |form| yaml(&printed(&[&common[..], &[form]].concat()));
        let values = with("--splice");
        let variable = &values[kind]["additionalEnvVars"][1];
        assert_eq!(variable["name"], "ADDITIONAL_CONFIG_KEYVAULT");
        let start = format!("canton.{kind}s.{kind}.crypto {{ provider = kms, ");
        assert!(variable["value"].as_str().unwrap().starts_with(&start), "{variable}");

        let kustomization = with("--splice-patch");
        assert_eq!(kustomization["patches"][0]["target"]["labelSelector"], format!("splice-component={kind}"));
        let pod = &yaml(kustomization["patches"][0]["patch"].as_str().unwrap())["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["name"], kind);
        let mounted = |list: &Value| list.as_array().unwrap().iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
        assert_eq!(mounted(&pod["volumes"]), mounted(&pod["containers"][0]["volumeMounts"]));
        assert_eq!(pod["volumes"][1]["secret"]["secretName"], "sv-1-keyvault-tls");
    }
}

#[test]
fn the_callers_own_certificate_is_never_the_nodes() {
    let caller = ["--url", "https://vault:1", "--ca", "ca.pem", "--cert", "admin.pem", "--key", "admin.key"];
    for form in [&[][..], &["--env"], &["--splice"]] {
        let text = printed(&[&["--node", "n"], &caller[..], form].concat());
        assert!(text.contains("https://vault:1") && !text.contains("admin"), "{text}");
        assert_eq!(text.contains("\"ca.pem\""), form.is_empty(), "a path of this machine is not one of a container: {text}");
    }
}

#[test]
fn what_canton_or_kubernetes_would_refuse_is_refused_with_the_option_to_use() {
    for (arguments, hint) in [
        (&["--node", "a.b"][..], "--canton-name"),
        (&["--node", "n", "--splice"], "--vault"),
        (&["--node", "a..b", "--splice", "--vault", "https://v:1"], "--tls-secret"),
        (&["--node", "1", "--splice", "--vault", "https://v:1"], "--tls-secret"),
        (&["--node", "n", "--splice-patch", "--vault", "https://v:1"], "--splice"),
        (&["--node", "n", "--url", "http://v:1"], "https://host:port"),
        (&["--node", "a/b"], "--node"),
    ] {
        let (code, out, err) = config(arguments);
        assert!(code == 2 && out.is_empty() && err.contains(hint), "{arguments:?}: {code} {out} {err}");
    }
    assert!(printed(&["--node", "a.b", "--canton-name", "1"]).contains("canton.participants.\"1\".crypto {"));
}

#[test]
fn json_contains_the_same_text() {
    let answer: Value = serde_json::from_str(&printed(&["--node", "n", "--output", "json"])).unwrap();
    assert_eq!(answer, json!({ "configuration": printed(&["--node", "n"]) }));
}
