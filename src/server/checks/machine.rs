//! Checks of the machine: files, folders, the disk and the limits of the process.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use rustix::{
    fs::{Access, access},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{config::Config, mtls::ConnectionLimits, storage};

/// Files that users outside the owner and the group can access. The group is not examined: Kubernetes (fsGroup) and systemd give files to a
/// group that only the service has.
pub(super) fn file_modes(config: &Config) -> Vec<String> {
    let fault = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o007 != 0).then(|| format!("every user of this machine can access {} (mode {mode:04o})", path.display()))
    };
    // The file of the URL has a password.
    #[cfg(feature = "postgresql")]
    let url = config.storage.postgresql.as_ref().map(|options| &options.url_file);
    #[cfg(not(feature = "postgresql"))]
    let url: Option<&std::path::PathBuf> = None;
    std::iter::once(&config.tls.key).chain(&config.storage.path).chain(url).filter_map(|path| fault(path)).collect()
}

/// A folder or database that this process cannot write. Nothing is created to find it out.
pub(super) fn folder(config: &Config) -> Vec<String> {
    let Some(path) = &config.storage.path else { return Vec::new() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if !folder.is_dir() {
        return vec![format!("the folder {} of [storage] path does not exist", folder.display())];
    }
    if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        return vec![format!("the folder {} of [storage] path cannot be written: {error}", folder.display())];
    }
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Err(error) if error != rustix::io::Errno::NOENT => {
            vec![format!("the database {} cannot be read and written: {error}", path.display())]
        }
        _ => Vec::new(),
    }
}

/// A full disk. The entry of the start could not be written.
pub(super) fn full_disk(config: &Config) -> Vec<String> {
    let full = config.storage.path.iter().filter(|path| storage::free_disk(path) == Some(0));
    full.map(|path| format!("the disk of the store is full ({})", path.display())).collect()
}

/// A disk that is nearly full.
pub(super) fn free_disk(config: &Config) -> Vec<String> {
    let free = |path: &std::path::PathBuf| storage::free_disk(path).filter(|free| (1..LITTLE).contains(free));
    let fault = |path: &std::path::PathBuf| free(path).map(|free| format!("the disk of {} has {} MiB free", path.display(), free / MIB));
    config.storage.path.iter().filter_map(fault).collect()
}

/// A limit of open files that is too low.
pub(super) fn open_files(config: &Config) -> Vec<String> {
    let needed = open_file_limit(&config.connections);
    // `serve` raises its limit to the hard limit.
    let limit = getrlimit(Resource::Nofile).maximum.filter(|limit| *limit < needed);
    let fault = |limit: u64| format!("the limit of open files is {limit}, and [connections] needs {needed}");
    limit.map(fault).into_iter().collect()
}

/// The warning of the provider of the first wrapper key.
pub(super) fn wrapper_key_in_a_file(config: &Config) -> Vec<String> {
    config.wrapper.warning().into_iter().collect()
}

/// The number of open files that the configured connections need.
const fn open_file_limit(limits: &ConnectionLimits) -> u64 {
    limits.total.saturating_add(limits.handshakes).saturating_add(limits.ops).saturating_add(OTHERS) as u64
}

/// Raises the limit of open files to what the system allows: without a file descriptor, a listener serves nobody.
pub(crate) fn raise_open_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // The check reports a limit that is too low.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Files besides connections: the database, connections to the KMS, the files of a reload.
const OTHERS: usize = 256;
const MIB: u64 = 1024 * 1024;
/// Room for about 290,000 entries of signatures.
const LITTLE: u64 = 256 * MIB;
