//! The certificates and the configuration of `dev`. For one machine; never for production.
//!
//! Created once, and kept while valid. A file that is missing, damaged or about to expire is created again. Every file is readable only by
//! the user, and written so that a crash leaves either the old or the new one.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    domain::{Role, Timestamp},
    files::{self, MAX_FILE},
};

/// The trust domain of every `dev` principal.
pub const TRUST_DOMAIN: &str = "dev.keyvault";

/// The principals of `dev`: name, role, and node if the role is limited to one (the others have their role on all nodes).
pub const PRINCIPALS: &[(&str, Role, Option<&str>)] = &[
    ("participant1", Role::Node, Some("participant1")),
    ("participant2", Role::Node, Some("participant2")),
    ("key-admin", Role::KeyAdmin, None),
    ("wrapper-admin", Role::WrapperAdmin, None),
    ("auditor", Role::Auditor, None),
    ("exporter", Role::Exporter, None),
];

/// Creates `<dir>/pki`: `ca`, `server` and a `.pem` and `.key` for each of [`PRINCIPALS`]. Idempotent.
///
/// # Errors
/// What the file system says, with the path.
pub fn ensure_pki(dir: &Path, now: Timestamp) -> Result<PathBuf, PkiError> {
    let pki = dir.join("pki");
    for folder in [dir, &pki] {
        private_dir(folder).map_err(|error| PkiError::File(folder.to_owned(), error))?;
    }
    let ca = Ca::ensure(&pki, now)?;
    ca.ensure_leaf(&pki, "server", &Leaf::Server, now)?;
    for (name, ..) in PRINCIPALS {
        ca.ensure_leaf(&pki, name, &Leaf::Client(principal(name)), now)?;
    }
    Ok(pki)
}

/// The principal's name of a `dev` certificate.
pub fn principal(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{name}")
}

/// The `keyvault.toml` of `dev`. Paths are relative to its folder. Other code creates the wrapper key `wrapper.key` and `keyvault.db`.
pub fn dev_config(api: SocketAddr, ops: SocketAddr) -> String {
    let nodes = PRINCIPALS.iter().filter_map(|(_, _, node)| *node).map(|node| format!("{node:?}")).collect::<Vec<_>>().join(", ");
    let grants = PRINCIPALS.iter().map(|(name, role, node)| {
        let on = node.unwrap_or("*");
        format!("\n[[grants]]\nprincipal = \"{}\"\nrole = \"{role}\"\nnodes = [\"{on}\"]\n", principal(name))
    });
    format!(
        r#"# Made by `canton-keyvault dev`, for development on one machine. Not for production: its CA and its wrapper key are files here.
nodes = [{nodes}]

[vault]
id = "dev"

[listen]
api = "{api}"
ops = "{ops}"

[tls]
certificate = "pki/server.pem"
key = "pki/server.key"
client_cas = [{{ file = "pki/ca.pem", trust_domains = ["{TRUST_DOMAIN}"] }}]

[storage]
path = "keyvault.db"

[wrapper]
provider = "local"
reference = "wrapper.key"
allowed = ["wrapper.key", "wrapper-*.key"]

[log]
format = "text"
{}"#,
        grants.collect::<String>()
    )
}

/// Why the certificates of `dev` could not be created.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system refuses.
    #[error("{}: {_1}", _0.display())]
    File(PathBuf, io::Error),
    /// A certificate could not be created.
    #[error("cannot create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Writes a file of mode 0600 atomically: to a temporary file, synced, then renamed over it.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().ok_or_else(|| io::Error::other("names no file"))?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let written = (|| {
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Creates a folder of mode 0700, or removes the permissions of others.
///
/// # Errors
/// What the file system says.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))
}

enum Leaf {
    Server,
    Client(String),
}

struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn ensure(pki: &Path, now: Timestamp) -> Result<Self, PkiError> {
        if let Some(ca) = Self::read(pki, now) {
            return Ok(ca);
        }
        let mut params = params("Canton Key Vault dev CA", now, CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write_pair(pki, "ca", &certificate.pem(), &key)?;
        Ok(Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// The CA of an earlier run, if its files belong together and it outlives a new leaf.
    fn read(pki: &Path, now: Timestamp) -> Option<Self> {
        let (certificate, key) = read_pair(pki, "ca")?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let long_enough = parsed.validity().not_after.timestamp() > now.plus(LEAF_LIFE).seconds();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).ok()?;
        long_enough.then_some(Self { certificate: certificate.clone(), issuer })
    }

    fn ensure_leaf(&self, pki: &Path, name: &str, leaf: &Leaf, now: Timestamp) -> Result<(), PkiError> {
        if self.is_good(pki, name, leaf, now) {
            return Ok(());
        }
        let mut params = params(name, now, LEAF_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match leaf {
            Leaf::Server => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
                params.subject_alt_names = vec![SanType::DnsName("localhost".try_into()?), SanType::IpAddress(v4), SanType::IpAddress(v6)];
            }
            Leaf::Client(uri) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
            }
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_pair(pki, name, &certificate.pem(), &key)
    }

    /// Whether the pair belongs together, was issued by this CA, and is valid for another month.
    fn is_good(&self, pki: &Path, name: &str, leaf: &Leaf, now: Timestamp) -> bool {
        let Some((certificate, _)) = read_pair(pki, name) else { return false };
        let in_a_month = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.plus(RENEW).seconds()).unwrap_or(0)));
        self.verifies(&certificate, leaf, in_a_month).is_ok()
    }

    fn verifies(&self, certificate: &CertificateDer<'_>, leaf: &Leaf, at: UnixTime) -> Result<(), Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
        match leaf {
            Leaf::Server => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
                verifier.verify_server_cert(certificate, &[], &ServerName::try_from("localhost")?, &[], at)?;
            }
            Leaf::Client(_) => {
                WebPkiClientVerifier::builder_with_provider(roots, provider).build()?.verify_client_cert(certificate, &[], at)?;
            }
        }
        Ok(())
    }
}

fn params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // One hour back, for clocks that differ a little.
    params.not_before = at(now.seconds() - 3600);
    params.not_after = at(now.plus(life).seconds());
    params
}

fn write_pair(pki: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<(), PkiError> {
    let key = Zeroizing::new(key.serialize_pem());
    for (suffix, bytes) in [("key", key.as_bytes()), ("pem", certificate.as_bytes())] {
        let path = pki.join(format!("{name}.{suffix}"));
        write_private(&path, bytes).map_err(|error| PkiError::File(path.clone(), error))?;
    }
    Ok(())
}

/// A certificate and its key, if both can be read and belong together.
fn read_pair(pki: &Path, name: &str) -> Option<(CertificateDer<'static>, KeyPair)> {
    let read = |suffix: &str| files::read(&pki.join(format!("{name}.{suffix}")), MAX_FILE).ok();
    let certificate = CertificateDer::from_pem_slice(&read("pem")?).ok()?;
    let key = KeyPair::from_pem(std::str::from_utf8(&read("key")?).ok()?).ok()?;
    let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
    let together = parsed.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
    together.then_some((certificate.clone(), key))
}

const DAY: u64 = 24 * 3600;
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * DAY);
const LEAF_LIFE: Duration = Duration::from_secs(365 * DAY);
const RENEW: Duration = Duration::from_secs(30 * DAY);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::Config,
        domain::Clock,
        mtls::{Files, Peer, TlsMaterial},
    };

    const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    fn contents(pki: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = std::fs::read_dir(pki).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
    }

    fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
        let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
        after.keys().filter(differs).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn makes_everything_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ensure_pki(&dir.path().join("new"), NOW).unwrap();
        let before = contents(&pki);
        assert_eq!(before.len(), 2 * (PRINCIPALS.len() + 2));
        for path in before.keys() {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        assert_eq!(pki.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        ensure_pki(&dir.path().join("new"), NOW.plus(Duration::from_secs(300 * DAY))).unwrap();
        assert!(changed(&before, &contents(&pki)).is_empty());
    }

    #[test]
    fn mends_what_is_missing_damaged_or_about_to_expire() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ensure_pki(dir.path(), NOW).unwrap();
        let before = contents(&pki);
        // As after a crash between the two files of a pair.
        std::fs::copy(pki.join("auditor.key"), pki.join("exporter.key")).unwrap();
        std::fs::remove_file(pki.join("key-admin.pem")).unwrap();
        std::fs::write(pki.join("server.pem"), "").unwrap();
        ensure_pki(dir.path(), NOW).unwrap();
        let after = contents(&pki);
        assert_eq!(
            changed(&before, &after),
            ["exporter.key", "exporter.pem", "key-admin.key", "key-admin.pem", "server.key", "server.pem"]
        );
        ensure_pki(dir.path(), NOW.plus(Duration::from_secs(340 * DAY))).unwrap();
        assert_eq!(changed(&after, &contents(&pki)).len(), 2 * (PRINCIPALS.len() + 1), "all leaves, not the CA");
        std::fs::remove_file(pki.join("ca.key")).unwrap();
        ensure_pki(dir.path(), NOW).unwrap();
        assert_eq!(changed(&after, &contents(&pki)).len(), after.len(), "a new CA, so new leaves");
    }

    #[test]
    fn its_configuration_and_certificates_are_accepted_by_the_vault_itself() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ensure_pki(dir.path(), NOW).unwrap();
        let text = dev_config("127.0.0.1:8443".parse().unwrap(), "127.0.0.1:9443".parse().unwrap());
        let config = Config::parse(&text, &dir.path().join("keyvault.toml")).unwrap();
        let policy = config.policy().unwrap();
        let files = Files::read(config.tls.files()).unwrap();
        let clock: Clock = Arc::new(|| NOW);
        let trust = crate::mtls::Trust::new(TlsMaterial::new(&config.tls, &files, &clock).unwrap(), clock);
        for (name, role, _) in PRINCIPALS {
            let certificate = CertificateDer::from_pem_file(pki.join(format!("{name}.pem"))).unwrap();
            let who = trust.admit(&Peer::read(&[certificate]).unwrap()).unwrap();
            assert_eq!(*who.name, *principal(name));
            assert_eq!(policy.grants_of(&who.name).iter().map(|grant| grant.role).collect::<Vec<_>>(), [*role]);
        }
        let server = CertificateDer::from_pem_file(pki.join("server.pem")).unwrap();
        assert!(trust.admit(&Peer::read(&[server]).unwrap()).is_err(), "the server's certificate is no client's");
    }

    #[test]
    fn a_private_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
