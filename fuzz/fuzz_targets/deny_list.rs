//! A deny-list, and a file of revocation lists, are accepted as a whole or refused.
#![no_main]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use canton_keyvault::{
    mtls::{ClientCaConfig, DenyConfig, Files, TlsMaterial, TlsConfig, TlsVersion},
    cli::pki::ensure_pki,
    domain::{Clock, Timestamp},
};
use libfuzzer_sys::fuzz_target;

/// Some day in 2026, and certificates of that day.
static NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("canton-keyvault-fuzz-{}", std::process::id()));
    ensure_pki(&folder, NOW).expect("certificates can be made")
});

fuzz_target!(|data: (&str, &[u8])| {
    let (deny, crl) = data;
    let file = |name: &str| FOLDER.join(name);
    let mut ca = ClientCaConfig { file: file("ca.pem"), trust_domains: vec!["example.org".into()], dns: vec![], crl: vec![] };
    if !crl.is_empty() {
        std::fs::write(file("client.crl"), crl).expect("the folder is ours");
        ca.crl.push(file("client.crl"));
    }
    let deny = DenyConfig::Entries(deny.lines().map(str::to_owned).collect());
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let config = TlsConfig { certificate, key, min_version: TlsVersion::Tls13, client_cas: vec![ca], deny };
    let files = Files::read(config.files()).expect("the files are there");
    let clock: Clock = Arc::new(|| NOW);
    let _ = TlsMaterial::new(&config, &files, &clock);
});
