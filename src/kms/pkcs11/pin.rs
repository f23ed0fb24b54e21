//! The PIN of a token, in a file. A PIN that the token refused is not tried again until the file changes, because tokens lock after a few
//! wrong PINs.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::error::Pkcs11Error;
use crate::{
    files,
    kms::{CredentialFault, Denial},
};

/// The file of a PIN, and the refused PIN in it.
pub(super) struct PinFile {
    path: PathBuf,
    refused: Mutex<Option<Pin>>,
}

/// A PIN as its file had it at that time.
#[derive(PartialEq)]
pub(super) struct Pin {
    bytes: Zeroizing<Vec<u8>>,
    written: Option<SystemTime>,
}

impl PinFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, refused: Mutex::new(None) }
    }

    /// Reads the PIN.
    ///
    /// # Errors
    /// `PinRefused` if the token refused this PIN, and the file was not written since. `Misconfigured` for a file that cannot be used.
    pub(super) fn read(&self) -> Result<Pin, Pkcs11Error> {
        let pin = read_pin(&self.path).map_err(Pkcs11Error::Misconfigured)?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref() == Some(&pin) { Err(Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinRefused))) } else { Ok(pin) }
    }

    /// Records that the token refused this PIN.
    pub(super) fn refuse(&self, pin: Pin) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
    }
}

impl Pin {
    /// A copy for the library, which is wiped too.
    pub(super) fn for_login(&self) -> RawAuthPin {
        RawAuthPin::new(Box::new(self.bytes.to_vec()))
    }
}

fn read_pin(path: &Path) -> Result<Pin, String> {
    let wrong = |what: String| format!("pin_file {}: {what}", path.display());
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let file = files::open(path).map_err(|error| wrong(error.to_string()))?;
    // Checks the open file, not the path, which could be replaced in between.
    let mode = file.mode();
    if mode & 0o007 != 0 {
        return Err(wrong(format!("every user can read it (mode {mode:03o}); run chmod 600 on it, or 640 for a group of the vault")));
    }
    let mut bytes = file.read(MAX_FILE).map_err(|error| wrong(error.to_string()))?;
    let length = bytes.trim_ascii_end().len();
    bytes.truncate(length);
    if bytes.is_empty() || bytes.contains(&b'\n') {
        return Err(wrong("contains no PIN: it must contain the PIN alone, in one line".to_owned()));
    }
    Ok(Pin { bytes, written })
}

/// Bytes. Tokens take PINs of up to 255.
const MAX_FILE: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_pin_file_is_private_and_has_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        for (text, mode) in [("s3cret", 0o600), ("s3cret\n", 0o640), ("s3cret \r\n", 0o400)] {
            write(&path, text, mode);
            assert_eq!(read_pin(&path).unwrap().bytes.as_slice(), b"s3cret");
        }
        for (text, mode, says) in
            [("", 0o600, "no PIN"), ("\n", 0o600, "no PIN"), ("s3cret\nother", 0o600, "no PIN"), ("s3cret", 0o604, "chmod 600")]
        {
            write(&path, text, mode);
            let error = read_pin(&path).err().unwrap();
            assert!(error.contains(says) && !error.contains("cret"), "{text}: {error}");
        }
        assert!(read_pin(&directory.path().join("missing")).err().unwrap().contains("missing"));
    }

    #[test]
    fn a_refused_pin_is_not_given_again_until_the_file_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        let file = PinFile::new(path.clone());
        write(&path, "1234", 0o600);
        file.refuse(file.read().ok().unwrap());
        assert_eq!(file.read().err(), Some(Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinRefused))));
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(file.read().is_ok(), "the same PIN may be right by now");
        file.refuse(file.read().ok().unwrap());
        write(&path, "5678", 0o600);
        assert!(file.read().is_ok());
    }
}
