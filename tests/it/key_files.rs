//! Files with keys and certificates as common tools write them: accepted everywhere, or refused with the reason and the fix.

use std::fs;

use serde_json::Value;

use crate::support::{openssl::openssl, vault::TestVault};

fn read(vault: &TestVault, name: &str) -> String {
    fs::read_to_string(vault.path(&format!("pki/{name}"))).unwrap()
}

/// The certificate and key of a principal or server as `openssl pkcs12 -nodes` writes them: one file, with text before each section.
fn bag(vault: &TestVault, name: &str) -> String {
    let pair = read(vault, &format!("{name}.pem")) + &read(vault, &format!("{name}.key"));
    fs::write(vault.path("pair.pem"), pair).unwrap();
    let path = vault.path("pair.pem").display().to_string();
    let packed = openssl(&["pkcs12", "-export", "-passout", "pass:x", "-name", name, "-in", &path], b"");
    let bag = String::from_utf8(openssl(&["pkcs12", "-nodes", "-passin", "pass:x"], &packed)).unwrap();
    assert!(bag.starts_with("Bag Attributes"), "{bag}");
    bag
}

fn encrypted(key: &str) -> String {
    String::from_utf8(openssl(&["pkcs8", "-topk8", "-passout", "pass:x"], key.as_bytes())).unwrap()
}

fn sec1(key: &str) -> String {
    let text = String::from_utf8(openssl(&["ec"], key.as_bytes())).unwrap();
    assert!(text.contains("BEGIN EC PRIVATE KEY"), "{text}");
    text
}

/// `keys list` with these files.
fn list(vault: &TestVault, certificate: &str, key: &str) -> (bool, String) {
    fs::write(vault.path("client.pem"), certificate).unwrap();
    fs::write(vault.path("client.key"), key).unwrap();
    let files = ["--ca", "pki/ca.pem", "--cert", "client.pem", "--key", "client.key"];
    let output = vault.command(&[&["keys", "list", "--url", vault.url()][..], &files].concat()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_server_and_clients_accept_what_common_tools_write() {
    let mut vault = TestVault::prepare(|config| config);
    let (certificate, key, bagged) = (read(&vault, "server.pem"), read(&vault, "server.key"), bag(&vault, "server"));
    let text = String::from_utf8(openssl(&["x509", "-text"], certificate.as_bytes())).unwrap();
    for (certificate, key) in [
        (&bagged, &bagged),
        (&text, &sec1(&key)),
        (&format!("\u{feff}{}", certificate.replace('\n', "\r\n")), &format!("\u{feff}{}", key.replace('\n', "\r\n"))),
    ] {
        fs::write(vault.path("pki/server.pem"), certificate).unwrap();
        fs::write(vault.path("pki/server.key"), key).unwrap();
        vault.serve();
        vault.kill();
    }
    vault.serve();
    let (certificate, key, bagged) = (read(&vault, "key-admin.pem"), read(&vault, "key-admin.key"), bag(&vault, "key-admin"));
    for (certificate, key) in [(&bagged, &bagged), (&certificate, &sec1(&key)), (&certificate, &format!("text before\r\n{key}text after"))]
    {
        let (ok, error) = list(&vault, certificate, key);
        assert!(ok, "{error}");
    }
}

#[tokio::test]
async fn the_server_and_clients_name_what_they_refuse() {
    let mut vault = TestVault::start();
    let other = read(&vault, "participant1.key");
    let (certificate, key) = (read(&vault, "key-admin.pem"), read(&vault, "key-admin.key"));
    for (file, problem) in [
        (encrypted(&key), "is encrypted"),
        (format!("{key}{other}"), "contains 2 private keys"),
        (certificate.clone(), "contains no private key, but CERTIFICATE"),
        (other.clone(), "does not belong to the certificate client.pem"),
    ] {
        let (ok, error) = list(&vault, &certificate, &file);
        assert!(!ok && error.contains("client.key") && error.contains(problem), "{problem}: {error}");
    }
    vault.kill();
    let key = read(&vault, "server.key");
    for (file, problem) in [
        (encrypted(&key), "is encrypted"),
        (format!("{key}{other}"), "contains 2 private keys"),
        (other, "does not belong to the certificate"),
    ] {
        fs::write(vault.path("pki/server.key"), file).unwrap();
        let error = vault.refuses_to_serve();
        assert!(error.contains("server.key") && error.contains(problem), "{problem}: {error}");
    }
}

#[tokio::test]
async fn an_import_accepts_text_around_the_key_and_names_what_it_refuses() {
    let vault = TestVault::start();
    let key = |curve: &str| {
        String::from_utf8(openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")], b"")).unwrap()
    };
    let import = |material: &str| {
        fs::write(vault.path("material"), material).unwrap();
        let files = ["--ca", "pki/ca.pem", "--cert", "pki/key-admin.pem", "--key", "pki/key-admin.key"];
        let import =
            ["keys", "import", "--node", "participant1", "--format", "pkcs8", "--purpose", "signing", "--material-file", "material"];
        let output = vault.command(&[&import[..], &["--url", vault.url(), "--output", "json"], &files].concat()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for material in [
        format!("Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n{}", key("P-256")),
        key("P-256").replace('\n', "\r\n"),
    ] {
        let (ok, answer, error) = import(&material);
        assert!(ok, "{error}");
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["spec"], "ec-p256", "{answer}");
    }
    for (material, problem) in [
        (sec1(&key("P-256")), "openssl pkcs8 -topk8 -nocrypt"),
        (encrypted(&key("P-256")), "is encrypted"),
        (key("P-256") + &key("P-256"), "contains 2 private keys"),
    ] {
        let (ok, _, error) = import(&material);
        assert!(!ok && error.contains(problem), "{problem}: {error}");
    }
}
