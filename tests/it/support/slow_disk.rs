//! A disk that is slow for one process: `tests/slow_disk/` delays its syncs.

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use tempfile::TempDir;

use super::vault::TestVault;

/// The control of the disk of one vault.
pub(crate) struct SlowDisk {
    control: PathBuf,
}

impl SlowDisk {
    /// A vault on a disk that can be made slow. It starts fast.
    pub(crate) fn vault(edit: impl FnOnce(String) -> String) -> (TestVault, Self) {
        let mut vault = TestVault::prepare(edit);
        let disk = Self { control: vault.path("slow-disk") };
        disk.set_delay(Duration::ZERO);
        vault.env("LD_PRELOAD", library().to_str().unwrap());
        vault.env("SLOW_DISK_FILE", disk.control.to_str().unwrap());
        vault.serve();
        (vault, disk)
    }

    /// Every sync takes so long from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        // Renamed into place, so that it is never read half written.
        let new = self.control.with_extension("new");
        std::fs::write(&new, delay.as_millis().to_string()).unwrap();
        std::fs::rename(new, &self.control).unwrap();
    }
}

/// The library, compiled once.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slow_disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slow_disk/slow_disk.c");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).arg("-ldl").status().unwrap();
        assert!(compiled.success(), "cc cannot compile {source}");
        (folder, path)
    });
    path
}
