//! Security settings take effect however they are spelled, and those without effect are reported at start, at a reload and by `check`.

use std::fs;

use axum::http::StatusCode;
use canton_keyvault::cli::pki;
use rcgen::DnType;
use serde_json::Value;

use crate::support::{
    listener::Vault,
    openssl::openssl,
    pki::{Ca, Spec, uri},
    vault::{TestVault, until},
};

#[tokio::test]
async fn a_deny_entry_takes_effect_as_openssl_prints_it() {
    let mut vault = Vault::start().await;
    let ca = Ca::with_name(&[
        (DnType::CountryName, "CH"),
        (DnType::OrganizationName, "Exämple, Inc."),
        (DnType::OrganizationalUnitName, "A+B"),
        (DnType::CommonName, "Client CA"),
    ]);
    vault.write("partner.pem", &ca.pem);
    vault.reload();
    let client = |serial| ca.issue(Spec::client(vec![uri("spiffe://partner.org/p1")]).serial(serial));
    let (denied, other) = (client(0xa0_01_02), client(0xa0_01_03));
    for format in [
        "oneline",
        "oneline,utf8,-esc_msb",
        "compat",
        "RFC2253",
        "RFC2253,utf8,-esc_msb",
        "sep_comma_plus_space,esc_msb",
        "oneline,lname",
        "oneline,oid",
    ] {
        vault.write("deny.txt", "");
        vault.reload_if_changed();
        let mut open = vault.http2(&denied).await;
        assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
        let print = |what: &str| {
            let printed = openssl(&["x509", "-noout", what, "-nameopt", format], denied.chain_pem.as_bytes());
            String::from_utf8(printed).unwrap().trim().to_owned()
        };
        let entry = format!("{} {}", print("-serial"), print("-issuer"));
        vault.write("deny.txt", &format!("{entry}  # stolen\n"));
        assert_eq!(vault.reload(), ["deny"], "{entry}");
        open.is_closed().await;
        let refused = vault.refused_handshake(Some(&denied)).await;
        assert!(refused.contains("CertificateRevoked"), "{entry}: {refused}");
        assert_eq!(vault.http1(&other).await.whoami().await.unwrap().0, StatusCode::OK, "{entry}");
        assert_eq!(vault.trust.warnings(), Vec::<String>::new(), "{entry}");
    }
    // Serial numbers as `openssl x509 -text` prints them.
    vault.write("deny.txt", "00:A0:01:02 CN=client ca, OU=A+B, O=Exämple, Inc., C=CH");
    vault.reload();
    assert!(vault.refused_handshake(Some(&denied)).await.contains("CertificateRevoked"));
    vault.write("deny.txt", "a00102 CN=Client CA, OU=A+B, O=Example, C=CH");
    vault.reload();
    assert_eq!(vault.http1(&denied).await.whoami().await.unwrap().0, StatusCode::OK, "another CA");
    assert!(vault.trust.warnings()[0].contains("a00102 CN=Client CA, OU=A+B, O=Example, C=CH"), "{:?}", vault.trust.warnings());
}

/// The settings without effect, and a part of the warning about each.
const INEFFECTIVE: [&str; 6] = [
    "\"0a CN=Nobody\" of [tls] deny names an issuer",
    "the grant of the role auditor to spiffe://other.org/a has no effect",
    "may issue certificates for the trust domain unused.org, but no grant",
    "may issue certificates for the DNS name *.unused.org, but no grant",
    "the pattern \"/nowhere/*.key\" of [wrapper] allowed",
    "the pattern \"local:00*\" of [wrapper] prefer",
];

fn with_ineffective_settings(config: &str) -> String {
    let domain = format!("trust_domains = [\"{}\"", pki::TRUST_DOMAIN);
    assert!(config.contains(&domain) && config.contains("allowed = [\""), "{config}");
    config
        .replace(&domain, &format!("dns = [\"*.unused.org\"], {domain}, \"unused.org\""))
        .replace("[tls]\n", "[tls]\ndeny = [\"0a CN=Nobody\"]\n")
        .replace("allowed = [\"", "prefer = [\"local:00*\"]\nallowed = [\"/nowhere/*.key\", \"")
        + "\n[[grants]]\nprincipal = \"spiffe://other.org/a\"\nrole = \"auditor\"\nnodes = [\"*\"]\n"
}

/// The warning about the wrapper key of these tests.
const FILE: &str = "THE WRAPPER KEY IS A FILE";

fn warnings(log: &[Value]) -> Vec<String> {
    let warnings = log.iter().filter(|line| line["level"] == "WARN").filter_map(|line| line["message"].as_str());
    warnings.filter(|message| !message.starts_with(FILE)).map(str::to_owned).collect()
}

fn assert_all(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for text in expected {
        assert!(found.iter().any(|warning| warning.contains(text)), "{text}: {found:#?}");
    }
}

/// The lines about the wrapper key itself: one in a file always has warnings.
const POSTURE: &str = "wrapper key posture";

#[tokio::test]
async fn what_matches_nothing_is_reported_at_start_at_a_reload_and_by_check() {
    let checked = |vault: &TestVault| {
        let output = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
        let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
        let warnings = lines.as_array().unwrap().iter().filter(|line| line["status"] == "warn" && line["check"] != POSTURE);
        let details = warnings.map(|line| line["detail"].as_str().unwrap().to_owned());
        (output.status.success(), details.filter(|detail| !detail.starts_with(FILE)).collect::<Vec<_>>())
    };
    let mut vault = TestVault::start();
    // The configuration of dev also allows the wrapper keys that are created later.
    let created = "/wrapper-*.key\" of [wrapper] allowed";
    assert_all(&warnings(&vault.log()), &[created]);
    assert_all(&checked(&vault).1, &[created]);

    let good = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    let bad = with_ineffective_settings(&good);
    fs::write(vault.path("keyvault.toml"), &bad).unwrap();
    // The section [wrapper] is not reloaded.
    until("the reload", || async { warnings(&vault.log()).len() >= 6 }).await;
    assert_all(&warnings(&vault.log()), &[&INEFFECTIVE[..4], &["restart the vault to apply them", created]].concat());

    vault.restart();
    let expected = [&INEFFECTIVE[..], &[created]].concat();
    assert_all(&warnings(&vault.log()), &expected);
    let (ok, found) = checked(&vault);
    assert!(ok, "a warning is no failure");
    assert_all(&found, &expected);
    let text = vault.command(&["check", "--config", "keyvault.toml"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&text.stdout).lines().filter(|line| line.starts_with("warn  ") && !line.contains(POSTURE)).count() == 8
    );
}
