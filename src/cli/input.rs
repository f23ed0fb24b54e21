//! Files in and out: material, passwords and messages are read, plaintexts and exported keys are written. Secrets are wiped when dropped,
//! and are never command-line arguments.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use zeroize::{Zeroize as _, Zeroizing};

use super::Failure;
use crate::crypto::read_pkcs8_file;

/// The longest file that is read, in bytes. Keys, passwords and messages are much shorter.
const LONGEST_FILE: u64 = 1 << 20;

/// A file, or `-` for standard input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Standard input or output.
    Standard,
    /// A file.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::Standard } else { Self::File(text.into()) })
    }
}

impl Place {
    /// The whole content, at most 1 MiB.
    pub(super) fn read(&self, flag: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let unreadable = |error: std::io::Error| Failure::Usage(format!("{flag} {}: {error}", self.name()));
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
        let source = match self {
            // Not through `stdin()`, whose buffer is never wiped.
            Self::Standard => File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?),
            Self::File(path) => File::open(path).map_err(unreadable)?,
        };
        source.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LONGEST_FILE {
            return Err(Failure::Usage(format!("{flag} {}: longer than {LONGEST_FILE} bytes", self.name())));
        }
        Ok(bytes)
    }

    /// A password: the content without the line end.
    pub(super) fn read_password(&self, flag: &str) -> Result<Zeroizing<String>, Failure> {
        let bytes = self.read(flag)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Failure::Usage(format!("{flag} {}: not UTF-8", self.name())))?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Zeroizing::new(line.to_owned()))
    }

    fn name(&self) -> String {
        match self {
            Self::Standard => "-".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The bytes of PKCS#8 in DER, read from DER or PEM.
pub(super) fn pkcs8_der(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut der = read_pkcs8_file(bytes).map_err(|problem| Failure::Usage(format!("--material-file: {problem}")))?;
    let copy = Zeroizing::new(der.secret_pkcs8_der().to_vec());
    der.zeroize();
    Ok(copy)
}

/// Standard base64 of a secret.
pub(super) fn base64_secret(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// Reads base64 from an answer.
pub(super) fn from_base64(text: &str, field: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| Failure::Unexpected(format!("the answer's {field} is not base64")))
}

/// Bytes that are not secret: from a file, or from an argument.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct MessageArgs {
    /// The message is in this file; - for standard input
    #[arg(long = "message-file", value_name = "FILE|-")]
    file: Option<Place>,
    /// The message in hexadecimal
    #[arg(long = "message-hex", value_name = "HEX")]
    hex: Option<String>,
    /// The message in base64
    #[arg(long = "message-base64", value_name = "BASE64")]
    base64: Option<String>,
    /// The message as text
    #[arg(long = "message-text", value_name = "TEXT")]
    text: Option<String>,
}

impl MessageArgs {
    /// The message.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        encoded("--message", self.file.as_ref(), self.hex.as_deref(), self.base64.as_deref())
            .unwrap_or_else(|| Ok(Zeroizing::new(self.text.as_deref().unwrap_or_default().as_bytes().to_vec())))
    }
}

/// A ciphertext: from a file, or from an argument.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct CiphertextArgs {
    /// The ciphertext is in this file; - for standard input
    #[arg(long = "ciphertext-file", value_name = "FILE|-")]
    file: Option<Place>,
    /// The ciphertext in hexadecimal
    #[arg(long = "ciphertext-hex", value_name = "HEX")]
    hex: Option<String>,
    /// The ciphertext in base64
    #[arg(long = "ciphertext-base64", value_name = "BASE64")]
    base64: Option<String>,
}

impl CiphertextArgs {
    /// The ciphertext.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        encoded("--ciphertext", self.file.as_ref(), self.hex.as_deref(), self.base64.as_deref()).unwrap_or_else(|| Ok(Zeroizing::default()))
    }
}

fn encoded(flag: &str, file: Option<&Place>, hex: Option<&str>, base64: Option<&str>) -> Option<Result<Zeroizing<Vec<u8>>, Failure>> {
    let file = file.map(|file| file.read(&format!("{flag}-file")));
    let hex = hex.map(|text| from_hex(text).ok_or_else(|| Failure::Usage(format!("{flag}-hex: not hexadecimal"))));
    let base64 = base64.map(|text| STANDARD.decode(text).map_err(|_| Failure::Usage(format!("{flag}-base64: not base64"))));
    file.or(hex.map(|result| result.map(Zeroizing::new))).or(base64.map(|result| result.map(Zeroizing::new)))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    base16ct::mixed::decode_vec(text).ok()
}

/// A new file, readable only by its owner. Removed unless it is finished.
pub(super) enum NewFile {
    /// Standard output.
    Standard,
    /// The unfinished file.
    Open(File, PathBuf),
    /// Finished.
    Done,
}

impl NewFile {
    /// Creates the file before the call, so that nothing leaves the vault that could not be stored.
    pub(super) fn create(place: &Place) -> Result<Self, Failure> {
        let Place::File(path) = place else { return Ok(Self::Standard) };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.map(|file| Self::Open(file, path.clone())).map_err(|error| Failure::Usage(format!("--out {}: {error}", path.display())))
    }

    /// Writes the content and keeps the file. Returns its path; `None` for standard output.
    pub(super) fn finish(mut self, bytes: &[u8]) -> Result<Option<PathBuf>, Failure> {
        match &mut self {
            Self::Standard | Self::Done => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())?;
                Ok(None)
            }
            Self::Open(file, path) => {
                file.write_all(bytes).and_then(|()| file.sync_all())?;
                let path = std::mem::take(path);
                self = Self::Done;
                drop(self);
                Ok(Some(path))
            }
        }
    }

    /// Whether it is standard output.
    pub(super) const fn is_standard(&self) -> bool {
        matches!(self, Self::Standard)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Self::Open(_, path) = self {
            // An error of the removal cannot be handled here.
            drop(std::fs::remove_file(Path::new(path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_file_is_private_never_overwrites_and_vanishes_unless_finished() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::File(folder.path().join("key"));
        let Place::File(path) = &place else { unreachable!() };

        drop(NewFile::create(&place).unwrap_or_else(|_| panic!("a new file")));
        assert!(!path.exists());

        let file = NewFile::create(&place).unwrap_or_else(|_| panic!("a new file"));
        assert_eq!(file.finish(b"secret").unwrap().as_ref(), Some(path));
        assert_eq!(std::fs::read(path).unwrap(), b"secret");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        assert!(NewFile::create(&place).is_err());
        assert_eq!(std::fs::read(path).unwrap(), b"secret");
    }

    #[test]
    fn a_password_loses_its_line_end_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, password) in [("a b \n", "a b "), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Place::File(path.clone()).read_password("--password-file").unwrap().as_str(), password);
        }
        std::fs::write(&path, [0xff]).unwrap();
        assert!(Place::File(path).read_password("--password-file").is_err());
    }

    #[test]
    fn pem_becomes_der_and_der_stays() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let der = Zeroizing::new(key.serialize_der());
        assert_eq!(*pkcs8_der(&der).unwrap(), *der);
        assert_eq!(*pkcs8_der(key.serialize_pem().as_bytes()).unwrap(), *der);
        assert!(pkcs8_der(b"-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n").is_err());
    }

    #[test]
    fn hex_digits_come_in_pairs() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(from_hex(""), Some(vec![]));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("+1")), (None, None, None));
    }
}
