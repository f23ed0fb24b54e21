//! A file with a secret of the vault: read at each use, and refused if everybody may read it.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::{files, kms::call_error::CallError};

/// Reads the file on a blocking thread. `option` is the option that names it.
///
/// # Errors
/// `Misconfigured`, naming the option and the file.
pub(in crate::kms) async fn secret_in(option: &'static str, file: PathBuf) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let read = tokio::task::spawn_blocking(move || read_secret(option, &file)).await;
    read.unwrap_or_else(|_| Err("the service is shutting down".to_owned())).map_err(CallError::Misconfigured)
}

/// The content of a file that only its owner and group may read.
///
/// # Errors
/// What is wrong with the file, and how to fix it.
fn read_secret(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let wrong = |what: String| format!("{option} {}: {what}", path.display());
    let file = files::open(path).map_err(|error| wrong(error.to_string()))?;
    // Checks the open file, not the path, which could be replaced in between.
    let mode = file.mode();
    if mode & 0o007 != 0 {
        return Err(wrong(format!("everybody may read it (mode {mode:03o}); chmod 600 it, or 640 for another user of the same group")));
    }
    file.read(MAX_SECRET).map_err(|error| wrong(error.to_string()))
}

/// Bytes; a key file of a service account has about 2400.
const MAX_SECRET: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_everybody_may_read_is_refused_by_its_option() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hidden").unwrap();
        for (mode, fits) in [(0o600, true), (0o640, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = read_secret("credentials_file", &path);
            assert_eq!(read.is_ok(), fits, "{mode:o}");
            let error = read.err().unwrap_or_default();
            assert!(fits || error.contains("credentials_file") && error.contains("chmod 600") && !error.contains("hidden"), "{error}");
        }
    }
}
