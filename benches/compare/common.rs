//! What the benchmarks over several servers share: the call that is made, the client, medians, and the folder of a run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;

use crate::load::{Cell, Target};

/// 32 bytes.
pub(crate) const MESSAGE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A signature by this key of a vault.
pub(crate) fn signature(url: &str, pid: u32, key: &str, tls: &Arc<ClientConfig>) -> anyhow::Result<Target> {
    Ok(Target {
        address: url.strip_prefix("https://").context("no address")?.parse()?,
        pid,
        path: format!("/v1/keys/{key}/sign"),
        token: None,
        body: json!({ "algorithm": "ed25519", "message": MESSAGE }).to_string(),
        expected: "\"signature\"",
        tls: Arc::clone(tls),
        resuming: resuming(tls),
    })
}

pub(crate) fn median(cells: &[Cell]) -> Cell {
    let of = |part: fn(&Cell) -> f64| {
        let mut numbers: Vec<f64> = cells.iter().map(part).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    };
    Cell { throughput: of(|cell| cell.throughput), p50: of(|cell| cell.p50), p99: of(|cell| cell.p99), cpu: of(|cell| cell.cpu) }
}

/// The processor and the kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).map_or("", |rest| rest.trim_start_matches([':', '\t', ' ']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// The same with a session cache.
pub(crate) fn resuming(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.resumption = Resumption::in_memory_sessions(64);
    Arc::new(tls)
}

/// The client of the load, without a session cache.
pub(crate) fn tls(pki: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(pki.join("ca.pem"))? {
        roots.add(ca?)?;
    }
    let chain = CertificateDer::pem_file_iter(pki.join("participant1.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(pki.join("participant1.key"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A folder that goes away with the benchmark.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A server that is still writing may need a moment.
        std::thread::sleep(Duration::from_millis(100));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
