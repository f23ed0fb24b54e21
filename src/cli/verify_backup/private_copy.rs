//! A private copy of a backup, byte for byte, with the SHA-256 of exactly these bytes. The backup itself is never opened as a database.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::report::Fingerprint;
use crate::cli::Failure;

/// A folder beside the backup for its copy, deleted at the end. It contains ciphertext only.
pub(super) struct PrivateCopy {
    folder: PathBuf,
    file: PathBuf,
}

impl PrivateCopy {
    pub(super) fn beside(backup: &Path) -> Result<Self, Failure> {
        let name = backup.file_name().map_or_else(|| "copy".into(), |name| name.to_string_lossy().into_owned());
        let folder = backup.with_file_name(format!(".{name}.verify-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| anyhow::anyhow!("{}: {error}", folder.display()))?;
        Ok(Self { file: folder.join("keyvault.db"), folder })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Copies a regular file that starts like a database. A pipe or a device is refused without reading it.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<Fingerprint> {
    let failed = |error: std::io::Error| anyhow::anyhow!("{}: {error}", from.display());
    // Without O_NONBLOCK, opening a pipe waits for its writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut source = OpenOptions::new().read(true).custom_flags(nonblocking).open(from).map_err(failed)?;
    if !source.metadata().map_err(failed)?.is_file() {
        anyhow::bail!("{} is not a regular file", from.display());
    }
    for suffix in ["-wal", "-journal"] {
        let mut beside = from.as_os_str().to_owned();
        beside.push(suffix);
        if std::fs::metadata(&beside).is_ok_and(|found| found.len() > 0) {
            anyhow::bail!(
                "{} is beside the file, so that the file alone is not the whole store. Make a copy with: canton-keyvault backup",
                Path::new(&beside).display()
            );
        }
    }
    let mut copied = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    digest_and_copy(&mut source, &mut copied, from)
}

fn digest_and_copy(source: &mut File, copied: &mut File, from: &Path) -> anyhow::Result<Fingerprint> {
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1024 * 1024]);
    loop {
        let read = source.read(&mut buffer).map_err(|error| anyhow::anyhow!("{}: {error}", from.display()))?;
        let part = buffer.get(..read).unwrap_or_default();
        if bytes == 0 && !part.starts_with(b"SQLite format 3\0") {
            anyhow::bail!("{} is not a key vault's database", from.display());
        }
        if read == 0 {
            return Ok(Fingerprint { sha256: digest.finalize().into(), bytes });
        }
        digest.update(part);
        copied.write_all(part)?;
        bytes += read as u64;
    }
}
