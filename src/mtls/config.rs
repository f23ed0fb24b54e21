//! The `[listen]` and `[tls]` sections, and the contents of the files they name. All files are read together, so that a reload is one
//! change.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{identity::Identity, trust_anchors::AllowedNames};
use crate::files::{self, MAX_FILE};

/// `[listen]`: the addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port of the API (mTLS). No default.
    pub api: SocketAddr,
    /// Address and port of `/healthz`, `/readyz` and `/metrics`, which need no client certificate. No default.
    pub ops: SocketAddr,
}

/// `[tls]`: the certificate of the server, and the client CAs. Every file is read again when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file: the server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the private key of `certificate`.
    pub key: PathBuf,
    /// `"1.3"` (default), or `"1.2"` to also admit older clients.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// The client CAs, and the names for which each may issue certificates. At least one.
    pub client_cas: Vec<ClientCaConfig>,
    /// The deny-list: certificates that are always refused. A file, or a list. Default: none.
    #[serde(default)]
    pub deny: DenyConfig,
}

/// The oldest TLS version that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TlsVersion {
    /// 1.2 and 1.3.
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3 alone.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// One entry of `client_cas`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCaConfig {
    /// PEM file of one or more CA certificates (two during a CA change).
    pub file: PathBuf,
    /// SPIFFE trust domains for which this CA may issue certificates. Default: none.
    #[serde(default)]
    pub trust_domains: Vec<String>,
    /// DNS names for which it may issue certificates: exact ones, or `*.example.org` for every name below. Default: none.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Revocation lists (PEM or DER) of the CAs in `file` and of their intermediates. If a list is named, every certificate of a chain below
    /// these CAs needs a current list of its issuer: without one, or past its next update, the client is refused. The newest list of an
    /// issuer counts, whatever the order. Default: none, revocation is not checked.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
}

/// `deny`: a file with one entry per line (`#` comments), or the entries. An entry is the SHA-256 of a certificate in hex, or `<serial in
/// hex> <issuer>`, as `openssl x509 -serial -issuer` or the log shows them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum DenyConfig {
    /// A file with one entry per line.
    File(PathBuf),
    /// The entries.
    Entries(Vec<String>),
}

impl Default for DenyConfig {
    fn default() -> Self {
        Self::Entries(Vec::new())
    }
}

impl ClientCaConfig {
    /// The trust domains and DNS names of the entry that none of these principals has.
    pub fn names_without(&self, principals: &[Identity]) -> Vec<String> {
        let only = |trust_domains: Vec<String>, dns: Vec<String>| Self { file: self.file.clone(), trust_domains, dns, crl: Vec::new() };
        let domains = self.trust_domains.iter().map(|name| (format!("the trust domain {name}"), only(vec![name.clone()], vec![])));
        let hosts = self.dns.iter().map(|name| (format!("the DNS name {name}"), only(vec![], vec![name.clone()])));
        let unused = |ca: &Self| AllowedNames::read(ca).is_ok_and(|names| !principals.iter().any(|principal| names.allow(principal)));
        domains.chain(hosts).filter(|(_, ca)| unused(ca)).map(|(name, _)| name).collect()
    }
}

impl TlsConfig {
    /// Every file that the section names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let deny = match &self.deny {
            DenyConfig::File(file) => Some(file),
            DenyConfig::Entries(_) => None,
        };
        let cas = self.client_cas.iter().flat_map(|ca| std::iter::once(&ca.file).chain(&ca.crl));
        [&self.certificate, &self.key].into_iter().chain(cas).chain(deny).map(PathBuf::as_path)
    }

    /// Makes every relative path relative to `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        let cas = self.client_cas.iter_mut().flat_map(|ca| std::iter::once(&mut ca.file).chain(&mut ca.crl));
        let deny = match &mut self.deny {
            DenyConfig::File(file) => Some(file),
            DenyConfig::Entries(_) => None,
        };
        for file in [&mut self.certificate, &mut self.key].into_iter().chain(cas).chain(deny) {
            *file = folder.join(&*file);
        }
    }
}

/// The contents of some files, read at one time. Wiped when dropped, because one of them is a private key.
#[derive(PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Zeroizing<Vec<u8>>>);

impl Files {
    /// Reads files of at most [`MAX_FILE`] bytes each.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn read<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Self, FileError> {
        paths
            .map(|path| Ok((path.to_owned(), files::read(path, MAX_FILE).map_err(|error| FileError::new(path, error))?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The contents of `path`. Empty if it was not read.
    pub fn bytes(&self, path: &Path) -> &[u8] {
        self.0.get(path).map_or(&[], |bytes| bytes.as_slice())
    }

    /// SHA-256 of each file.
    pub fn digests(&self) -> Vec<(PathBuf, [u8; 32])> {
        self.0.iter().map(|(path, bytes)| (path.clone(), Sha256::digest(bytes).into())).collect()
    }

    /// SHA-256 over paths and contents, to detect changes.
    pub fn digest(&self) -> [u8; 32] {
        let all = self.digests().into_iter().fold(Sha256::new(), |all, (path, digest)| {
            all.chain_update(Sha256::digest(path.as_os_str().as_encoded_bytes())).chain_update(digest)
        });
        all.finalize().into()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A file that cannot be used, and why. The message names the file first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct FileError {
    /// Which file.
    pub file: PathBuf,
    /// The fault and its fix.
    pub problem: String,
}

impl FileError {
    pub(crate) fn new(file: &Path, problem: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), problem: problem.to_string() }
    }
}
