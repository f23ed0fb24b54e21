//! Files with secrets of the vault, read at each use: one that everybody may read is refused, unless it holds a token of another issuer.

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

/// Reads a file with a token on a blocking thread. Kubernetes writes projected tokens so that every user in the container can read them. They live for an
/// hour, and only in the pod. `option` is the option that names it.
///
/// # Errors
/// `Misconfigured`, naming the option and the file.
pub(in crate::kms) async fn token_in(option: &'static str, file: PathBuf) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let path = file.clone();
    let read = tokio::task::spawn_blocking(move || files::read(&path, MAX_SECRET)).await;
    let wrong = |what: String| CallError::Misconfigured(format!("{option} {}: {what}", file.display()));
    read.map_err(|error| wrong(error.to_string()))?.map_err(|error| wrong(error.to_string()))
}

/// The one line of a file or answer. `place` is for the error.
///
/// # Errors
/// `Misconfigured`, naming the place.
pub(in crate::kms) fn one_line(place: &str, bytes: &[u8]) -> Result<Zeroizing<String>, CallError> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CallError::Misconfigured(format!("{place}: it needs the token or secret alone, in one line")));
    }
    Ok(Zeroizing::new(text.to_owned()))
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

/// Bytes; a key file of a service account has about 2400, a token about 1000.
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
