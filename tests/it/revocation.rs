//! Revocation lists and the deny-list over whole chains: which list counts, whatever the order, and which lists are reported as unusable.

use axum::http::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::{
    known_bytes::hex,
    support::{
        listener::Vault,
        openssl::openssl,
        pki::{Ca, Leaf, Spec, at, uri},
    },
};

const P1: &str = "spiffe://example.org/p1";

async fn assert_refused(vault: &Vault, leaf: &Leaf, alert: &str) {
    let refused = vault.refused_handshake(Some(leaf)).await;
    assert!(refused.contains(alert), "{alert}: {refused}");
}

async fn assert_admitted(vault: &Vault, leaf: &Leaf) {
    assert_eq!(vault.http1(leaf).await.whoami().await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn the_newest_list_counts_whatever_the_order() {
    let mut vault = Vault::start().await;
    let (seven, eight) = (vault.client(7, P1), vault.client(8, P1));
    let (older, newer) = (vault.ca.crl(&[8], at(3600)), vault.ca.crl_of(&[7], at(-60), at(7200), 2));
    // Of the same second, the one with the higher number is newer: 256 is more than 2, although its first byte is less.
    let same = vault.ca.crl_of(&[7], at(-3600), at(3600), 256);
    vault.edit("crl = [\"ca.crl\"]", "crl = [\"ca.crl\", \"more.crl\"]");
    for (first, second) in [(&older, &newer), (&newer, &older), (&older, &same), (&same, &older)] {
        vault.write("ca.crl", &format!("{first}{second}"));
        vault.write("more.crl", first);
        vault.reload();
        assert_refused(&vault, &seven, "CertificateRevoked").await;
        assert_admitted(&vault, &eight).await;
        // In two files.
        vault.write("ca.crl", first);
        vault.write("more.crl", second);
        vault.reload();
        assert_refused(&vault, &seven, "CertificateRevoked").await;
        assert_admitted(&vault, &eight).await;
        assert_eq!(vault.trust.warnings(), Vec::<String>::new(), "an older list beside the newest one is usual");
    }
    // The expiry that is watched is that of the list in use.
    vault.write("ca.crl", &older);
    vault.write("more.crl", &newer);
    vault.reload();
    assert_eq!(vault.trust.expiries().iter().find(|expiry| expiry.kind.as_str() == "crl").unwrap().seconds, 7200);
    vault.pass(3601);
    assert_admitted(&vault, &eight).await;
    vault.pass(3600);
    assert_refused(&vault, &eight, "alert").await;
    assert!(vault.trust.warnings()[0].contains("has passed its next update"), "{:?}", vault.trust.warnings());
}

#[tokio::test]
async fn appending_a_newer_list_revokes_an_open_connection() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let mut open = vault.http2(&leaf).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    vault.write("ca.crl", &format!("{}{}", vault.ca.crl(&[], at(3600)), vault.ca.crl_of(&[7], at(-60), at(3600), 2)));
    assert_eq!(vault.reload(), ["crl"]);
    open.is_closed().await;
}

#[tokio::test]
async fn a_list_with_a_wrong_signature_never_counts_and_is_reported() {
    let mut vault = Vault::start().await;
    let (seven, eight) = (vault.client(7, P1), vault.client(8, P1));
    let genuine = vault.ca.crl(&[7], at(3600));
    let mut forged = pem_der(&vault.ca.crl_of(&[], at(-60), at(3600), 2));
    *forged.last_mut().unwrap() ^= 1;
    vault.write("ca.crl", &format!("{}{genuine}", pem(&forged)));
    vault.reload();
    assert_refused(&vault, &seven, "CertificateRevoked").await;
    assert_admitted(&vault, &eight).await;
    assert!(vault.trust.warnings()[0].contains("its signature is not by this CA"), "{:?}", vault.trust.warnings());
    // Alone, it is as good as none.
    vault.write("ca.crl", &pem(&forged));
    vault.reload();
    assert_refused(&vault, &eight, "alert").await;
    assert!(vault.trust.warnings().iter().any(|warning| warning.contains("has no usable revocation list")), "{:?}", vault.trust.warnings());
}

#[tokio::test]
async fn the_signature_decides_about_the_issuer_of_a_list_and_not_its_key_id() {
    let mut vault = Vault::start().await;
    let (seven, eight) = (vault.client(7, P1), vault.client(8, P1));
    vault.write("ca.crl", &vault.ca.crl_with_key_id(&[7], at(-60), at(3600), 2, rcgen::KeyIdMethod::Sha384));
    vault.reload();
    assert_refused(&vault, &seven, "CertificateRevoked").await;
    assert_admitted(&vault, &eight).await;
    assert_eq!(vault.trust.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn a_revoked_intermediate_admits_nobody() {
    let mut vault = Vault::start().await;
    let team = vault.ca.intermediate_with_serial("Team CA", 77);
    let (leaf, direct) = (team.issue_with_chain(Spec::client(vec![uri(P1)])), vault.client(8, P1));
    let of_team = team.crl(&[], at(3600));
    vault.write("ca.crl", &format!("{}{of_team}", vault.ca.crl(&[], at(3600))));
    vault.reload();
    let mut open = vault.http2(&leaf).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    vault.write("ca.crl", &format!("{}{of_team}", vault.ca.crl(&[77], at(3600))));
    assert_eq!(vault.reload(), ["crl"]);
    open.is_closed().await;
    assert_refused(&vault, &leaf, "CertificateRevoked").await;
    assert_admitted(&vault, &direct).await;
    // Nor does it as a client CA of its own beside the root that revoked it.
    vault.write("ca.pem", &format!("{}{}", vault.ca.pem, team.pem));
    vault.reload();
    assert_refused(&vault, &team.issue(Spec::client(vec![uri(P1)])), "CertificateRevoked").await;
}

#[tokio::test]
async fn a_denied_intermediate_or_client_ca_admits_nobody() {
    let mut vault = Vault::start().await;
    let team = vault.partner.intermediate_with_serial("Team CA", 77);
    let name = vec![uri("spiffe://partner.org/p1")];
    let (leaf, direct) = (team.issue_with_chain(Spec::client(name.clone())), vault.partner.issue(Spec::client(name)));
    for line in [hex(&Sha256::digest(&team.der)), "4d CN=Partner CA".to_owned()] {
        vault.write("deny.txt", "");
        vault.reload_if_changed();
        let mut open = vault.http2(&leaf).await;
        assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
        vault.write("deny.txt", &line);
        assert_eq!(vault.reload(), ["deny"]);
        open.is_closed().await;
        assert_refused(&vault, &leaf, "CertificateRevoked").await;
        assert_admitted(&vault, &direct).await;
    }
    vault.write("deny.txt", &hex(&Sha256::digest(&vault.partner.der)));
    vault.reload();
    assert_refused(&vault, &direct, "CertificateRevoked").await;
}

#[tokio::test]
async fn lists_that_cannot_be_used_are_reported_and_do_not_stop_the_others() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let genuine = vault.ca.crl(&[], at(3600));
    for (extension, complaint) in [
        ("2.5.29.27=critical,DER:02:01:01", "it is a delta CRL"),
        ("issuingDistributionPoint=critical,@point\n[point]\nfullname=URI:http://example.org/a\nindirectCRL=TRUE", "it is an indirect CRL"),
        (
            "issuingDistributionPoint=critical,@point\n[point]\nfullname=URI:http://example.org/a\nonlysomereasons=keyCompromise",
            "it covers some revocation reasons only",
        ),
    ] {
        vault.write("ca.crl", &format!("{}{genuine}", openssl_crl(&vault.ca, extension)));
        vault.reload();
        let warnings = vault.trust.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(complaint) && warnings[0].contains("CN=Client CA"), "{warnings:?}");
        assert_admitted(&vault, &leaf).await;
    }
    let stranger = Ca::new("Stranger CA");
    vault.write("ca.crl", &format!("{}{genuine}", stranger.crl(&[], at(3600))));
    vault.reload();
    let warnings = vault.trust.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("CN=Stranger CA") && warnings[0].contains("no CA of this entry"), "{warnings:?}");
}

#[tokio::test]
async fn the_lists_of_two_distribution_points_do_not_supersede_each_other() {
    let mut vault = Vault::start().await;
    let (seven, eight) = (vault.client(7, P1), vault.client(8, P1));
    let list = |point: &str| {
        openssl_crl(&vault.ca, &format!("issuingDistributionPoint=critical,@point\n[point]\nfullname=URI:http://example.org/{point}"))
    };
    vault.write("ca.crl", &format!("{}{}{}", list("a"), vault.ca.crl(&[7], at(3600)), list("b")));
    vault.reload();
    assert_refused(&vault, &seven, "CertificateRevoked").await;
    assert_admitted(&vault, &eight).await;
}

/// A list by `openssl`, newer than any other here, which revokes nothing.
fn openssl_crl(ca: &Ca, extensions: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (certificate, key, index, number) =
        (file("ca.pem", &ca.pem), file("ca.key", &ca.key_pem()), file("index", ""), file("number", "63\n"));
    let config = file(
        "openssl.cnf",
        &format!(
            "[ca]\ndefault_ca=c\n[c]\ndatabase={index}\ncrlnumber={number}\ndefault_md=sha256\ncrl_extensions=e\n[e]\n\
             authorityKeyIdentifier=keyid\n{extensions}\n"
        ),
    );
    let dates = ["-crl_lastupdate", "20270115075900Z", "-crl_nextupdate", "20270116000000Z"];
    let arguments = [&["ca", "-gencrl", "-config", &config, "-cert", &certificate, "-keyfile", &key][..], &dates].concat();
    String::from_utf8(openssl(&arguments, b"")).unwrap()
}

fn pem_der(text: &str) -> Vec<u8> {
    openssl(&["crl", "-outform", "DER"], text.as_bytes())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", base64::engine::general_purpose::STANDARD.encode(der))
}
