//! Certificates of the form that SPIRE gives to workloads, as files that `spiffe-helper` writes: the vault serves with them, knows its clients by them,
//! and takes a rotation of the bundle and of the SVIDs while it runs. The certificates are made by openssl, so that this runs everywhere.
//! `scripts/test-spire` runs SPIRE itself: its attestation, its files, and a rotation of its authority by its own commands.

use std::{
    fs,
    path::{Path, PathBuf},
};

use canton_keyvault::client::{Client, ClientError, ConnectOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, date_time_ymd};
use serde_json::Value;

use crate::support::{
    openssl::openssl,
    vault::{TestVault, until},
};

const TRUST_DOMAIN: &str = "spiffe://dev.keyvault";

/// A server of SPIRE with an upstream authority: the bundle has the root, and each SVID brings the certificate of the intermediate.
struct Server {
    folder: PathBuf,
}

impl Server {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let authority = format!(
            "basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\nsubjectAltName = URI:{TRUST_DOMAIN}\n"
        );
        let server = Self { folder };
        server.issue("root", "/C=US/O=SPIFFE", &authority, None);
        server.issue("intermediate", "/C=US/O=SPIFFE", &authority, Some("root"));
        server
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A key and a certificate with these extensions, signed by an issuer or by itself.
    fn issue(&self, name: &str, subject: &str, extensions: &str, issuer: Option<&str>) {
        let [key, request, extension_file, certificate] = ["key", "csr", "ext", "pem"].map(|ending| self.file(&format!("{name}.{ending}")));
        fs::write(self.file("req.cnf"), "[req]\ndistinguished_name = name\n[name]\n").unwrap();
        fs::write(&extension_file, extensions).unwrap();
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key], b"");
        openssl(&["req", "-new", "-config", &self.file("req.cnf"), "-key", &key, "-subj", subject, "-out", &request], b"");
        let issuer = issuer.map(|issuer| [self.file(&format!("{issuer}.pem")), self.file(&format!("{issuer}.key"))]);
        let mut sign = vec!["x509", "-req", "-in", &request, "-days", "1", "-extfile", &extension_file, "-out", &certificate];
        match &issuer {
            Some([issuer, issuer_key]) => sign.extend(["-CA", issuer, "-CAkey", issuer_key, "-CAcreateserial"]),
            None => sign.extend(["-signkey", &key]),
        }
        openssl(&sign, b"");
    }

    fn root(&self) -> String {
        fs::read_to_string(self.file("root.pem")).unwrap()
    }

    /// Writes an SVID and its key as `spiffe-helper` does: the leaf first, then the intermediate.
    fn write_svid(&self, folder: &Path, path: &str, dns: &str) {
        let extensions = format!(
            "basicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature, keyEncipherment, keyAgreement\n\
             extendedKeyUsage = serverAuth, clientAuth\nauthorityKeyIdentifier = keyid\nsubjectAltName = URI:{TRUST_DOMAIN}/{path}{dns}\n"
        );
        self.issue(path, "/C=US/O=SPIRE", &extensions, Some("intermediate"));
        let read = |name: &str| fs::read_to_string(self.file(name)).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("svid.pem"), read(&format!("{path}.pem")) + &read("intermediate.pem")).unwrap();
        fs::write(folder.join("svid_key.pem"), read(&format!("{path}.key"))).unwrap();
    }
}

/// An authority of the trust domain that has expired. SPIRE leaves it in the bundle for a day.
fn expired_authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::URI(TRUST_DOMAIN.try_into().unwrap())];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 2));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// Who the vault says that a workload is. The workload knows the vault by its bundle and its DNS name.
async fn whoami(vault: &TestVault, workload: &Path, bundle: &Path) -> Result<String, ClientError> {
    let url = vault.url().replace("127.0.0.1", "localhost");
    let options = ConnectOptions { url, ca: bundle.to_owned(), cert: workload.join("svid.pem"), key: workload.join("svid_key.pem") };
    let answer = Client::new(&options)?.get("/v1/whoami").await?;
    Ok(answer["principal"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn svids_identify_both_sides_and_are_replaced_while_the_vault_runs() {
    let mut vault = TestVault::prepare(|config| {
        let of_helper =
            [("pki/server.pem", "svid/svid.pem"), ("pki/server.key", "svid/svid_key.pem"), ("pki/ca.pem", "svid/svid_bundle.pem")];
        of_helper.iter().fold(config, |config, (from, to)| config.replace(from, to))
    });
    let (own, old, new) = (vault.path("svid"), vault.path("old"), vault.path("new"));
    let (first, second) = (Server::new(vault.path("first")), Server::new(vault.path("second")));
    // An SVID has no DNS name unless its entry says so, and clients look for one in the certificate of a server.
    first.write_svid(&own, "vault", ", DNS:localhost");
    fs::write(own.join("svid_bundle.pem"), expired_authority() + &first.root()).unwrap();
    first.write_svid(&old, "participant1", "");
    vault.serve();
    let participant = format!("{TRUST_DOMAIN}/participant1");
    let bundle = own.join("svid_bundle.pem");
    assert_eq!(whoami(&vault, &old, &bundle).await.unwrap(), participant);
    let checked = vault.command(&["check", "--output", "json", "--config"]).arg(vault.path("keyvault.toml")).output().unwrap();
    let lines: Vec<Value> = serde_json::from_slice(&checked.stdout).unwrap();
    let status = |check: &str| &lines.iter().find(|line| line["check"] == check).unwrap()["status"];
    for check in ["certificates", "server certificate", "expiry"] {
        assert_eq!(status(check), "ok", "{check}: {lines:?}");
    }

    // The next authority is in the bundle before it issues anything.
    second.write_svid(&new, "participant1", "");
    assert!(whoami(&vault, &new, &bundle).await.is_err(), "the bundle does not have its root yet");
    fs::write(&bundle, first.root() + &second.root()).unwrap();
    until("the client of the next authority is accepted", || async { whoami(&vault, &new, &bundle).await.is_ok() }).await;
    assert_eq!(whoami(&vault, &old, &bundle).await.unwrap(), participant);

    // Then the vault gets its SVID from it, and the former root goes.
    second.write_svid(&own, "vault", ", DNS:localhost");
    fs::write(&bundle, second.root()).unwrap();
    until("the vault serves with its new SVID", || async { whoami(&vault, &new, &bundle).await.is_ok_and(|found| found == participant) })
        .await;
    assert!(whoami(&vault, &old, &bundle).await.is_err(), "the former authority vouches for nobody any more");
}
