//! A wrapper key in a file: AES-256-GCM, for development. The key is real, but it cannot be disabled.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    crypto::{Random, SecretBytes, with_wiped_stack},
    domain::{EncryptionContext, Hex, PostureLine, PostureSubject, VaultId},
    files,
};

use crate::kms::{Denial, Description, KmsReceipt, Unwrapped, Wrapped, Wrapper, WrapperError};

/// The key of one file, ready to use. Wraps to `0x01 ‖ nonce(12) ‖ ciphertext(32) ‖ tag(16)`, AAD = the context's canonical bytes.
pub(super) struct LocalWrapper {
    path: PathBuf,
    identity: String,
    cipher: Aes256Gcm,
    random: Arc<dyn Random>,
}

impl LocalWrapper {
    /// Reads a key file.
    ///
    /// # Errors
    /// `Denied(NotFound)` if there is no such file, or it cannot be read: trying again will not cure it.
    /// `Misconfigured` if others than its owner may read it, or it is no key file.
    pub(super) fn open(path: &Path, random: Arc<dyn Random>) -> Result<Self, WrapperError> {
        let key = read_key(path)?;
        let cipher = Aes256Gcm::new_from_slice(key.expose()).map_err(|_| misconfigured(path, NOT_A_KEY_FILE))?;
        Ok(Self { path: path.to_owned(), identity: identity_of(&key), cipher, random })
    }

    /// `local:` and 16 hex digits.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    fn invalid(&self) -> WrapperError {
        WrapperError::Invalid { reference: self.path.display().to_string(), request_id: None }
    }
}

#[async_trait]
impl Wrapper for LocalWrapper {
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        // A random nonce of 96 bits: NIST SP 800-38D §8.3 allows 2^32 wraps under one key, far more than a vault has keys.
        let mut nonce = [0; NONCE_LENGTH];
        self.random.fill(&mut nonce).map_err(|_| misconfigured(&self.path, "the random number generator of the system failed"))?;
        let payload = Payload { msg: data_key.expose(), aad: &context.canonical_bytes() };
        let sealed = with_wiped_stack(|| self.cipher.encrypt(&Nonce::from(nonce), payload)).map_err(|_| self.invalid())?;
        let bytes = [&[VERSION], nonce.as_slice(), &sealed].concat();
        Ok(Wrapped { bytes, receipt: KmsReceipt::default() })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        let [VERSION, rest @ ..] = wrapped else { return Err(self.invalid()) };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or_else(|| self.invalid())?;
        let payload = Payload { msg: sealed, aad: &context.canonical_bytes() };
        let data_key = with_wiped_stack(|| self.cipher.decrypt(&Nonce::from(*nonce), payload)).map_err(|_| self.invalid())?;
        Ok(Unwrapped { data_key: data_key.into(), receipt: KmsReceipt::default() })
    }

    /// Reads the file again.
    async fn still_there(&self) -> Result<(), WrapperError> {
        let found = self.describe().await?;
        if found.usable { Ok(()) } else { Err(misconfigured(&self.path, &other_key(&found.identity, &self.identity))) }
    }

    /// Reads the file again, because it may have been removed or replaced.
    async fn describe(&self) -> Result<Description, WrapperError> {
        let path = self.path.clone();
        let identity = in_background(move || read_key(&path).map(|key| identity_of(&key))).await?;
        let usable = identity == self.identity;
        Ok(Description { identity, reference: self.path.display().to_string(), regions: Vec::new(), usable })
    }

    async fn posture(&self, _: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        const REMEDY: &str = "Use a KMS in production, and rotate to a wrapper key in it (wrapper rotation start).";
        let usable = self.describe().await?.usable;
        Ok(vec![
            PostureLine::ok(PostureSubject::Spec, "an AES key of 256 bits, which binds a wrap to its context"),
            if usable {
                PostureLine::ok(PostureSubject::State, "the file has the registered key, and only its owner can read it")
            } else {
                PostureLine::fail(PostureSubject::State, "the file has another key", "Restore the file of the registered key.")
            },
            PostureLine::warning(PostureSubject::Export, "the key is a file: who reads it and the database has every key", REMEDY),
            PostureLine::warning(PostureSubject::Policy, "a key in a file has no policy, and it cannot be disabled", REMEDY),
        ])
    }
}

/// Makes a new key file at `path`, readable by its owner only and durable before this returns, and gives its identity.
///
/// # Errors
/// `Misconfigured` if it exists, or cannot be written.
pub fn create_key_file(path: &Path, random: &dyn Random) -> Result<String, WrapperError> {
    let key = random_key(path, random)?;
    write_key(path, &key)?;
    Ok(identity_of(&key))
}

/// Makes a new key file in `directory`, named after the key's digest: `wrapper-<16 hex>.key`.
///
/// # Errors
/// `Misconfigured` if it cannot be written.
pub(super) fn create_key_file_in(directory: &Path, random: &dyn Random) -> Result<(PathBuf, String), WrapperError> {
    let key = random_key(directory, random)?;
    let identity = identity_of(&key);
    let path = directory.join(format!("wrapper-{}.key", identity.trim_start_matches("local:")));
    write_key(&path, &key)?;
    Ok((path, identity))
}

/// Runs file access on the blocking threads, away from the threads that serve requests.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WrapperError> + Send + 'static,
) -> Result<T, WrapperError> {
    let stopped = |_| WrapperError::Misconfigured { reference: "local".to_owned(), what: "the service is shutting down".to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// `local:` and the first 16 hex digits of `SHA-256("canton-keyvault/local/v1" ‖ key)`.
fn identity_of(key: &SecretBytes) -> String {
    let digest = Sha256::new().chain_update(b"canton-keyvault/local/v1").chain_update(key.expose()).finalize();
    format!("local:{}", Hex(digest.get(..8).unwrap_or_default()))
}

fn random_key(path: &Path, random: &dyn Random) -> Result<SecretBytes, WrapperError> {
    let mut key = SecretBytes::zeroed(KEY_LENGTH);
    random.fill(key.expose_mut()).map_err(|_| misconfigured(path, "the random number generator of the system failed"))?;
    Ok(key)
}

/// Publishes the whole file or nothing: written to a temporary name, synced, then linked to its name, which must be free.
fn write_key(path: &Path, key: &SecretBytes) -> Result<(), WrapperError> {
    let failed = |error: std::io::Error| misconfigured(path, &format!("cannot write it: {error}"));
    let text = Zeroizing::new(format!("{HEADER}\n{}\n", *Zeroizing::new(STANDARD.encode(key.expose()))));
    // Named after the key, so that a leftover of a crash collides with no other key.
    let aside = path.with_extension(format!("new-{}", identity_of(key).trim_start_matches("local:")));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&aside, path)
    };
    let written = write();
    let removed = std::fs::remove_file(&aside);
    written.and(removed).map_err(failed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn read_key(path: &Path) -> Result<SecretBytes, WrapperError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::Other => misconfigured(path, &error.to_string()),
        _ => WrapperError::Denied { reference: path.display().to_string(), denial: Denial::NotFound, permission: None, request_id: None },
    };
    let file = files::open(path).map_err(unreadable)?;
    // Checks the open file, not the path, which could be replaced in between.
    let mode = file.mode();
    if mode & 0o077 != 0 {
        return Err(misconfigured(path, &format!("other users can read this file (mode {mode:03o}); run chmod 600 on it")));
    }
    let text = file.read(MAX_FILE_LENGTH).map_err(|_| misconfigured(path, NOT_A_KEY_FILE))?;
    parse_key(&text).ok_or_else(|| misconfigured(path, NOT_A_KEY_FILE))
}

/// The header line, then the key in base64 or hex.
fn parse_key(text: &[u8]) -> Option<SecretBytes> {
    let (header, key) = std::str::from_utf8(text).ok()?.trim_end().split_once('\n')?;
    if header.trim_end() != HEADER {
        return None;
    }
    let bytes = match key.len() {
        HEX_LENGTH => Zeroizing::new(base16ct::mixed::decode_vec(key).ok()?),
        _ => Zeroizing::new(STANDARD.decode(key).ok()?),
    };
    (bytes.len() == KEY_LENGTH).then(|| bytes.into())
}

/// The fault of a file whose key is not the registered one.
pub(super) fn other_key(found: &str, registered: &str) -> String {
    format!("the file contains another key, {found}, than the registered {registered}")
}

fn misconfigured(path: &Path, what: &str) -> WrapperError {
    WrapperError::Misconfigured { reference: path.display().to_string(), what: what.to_owned() }
}

const VERSION: u8 = 0x01;
const NONCE_LENGTH: usize = 12;
const KEY_LENGTH: usize = 32;
const HEX_LENGTH: usize = 2 * KEY_LENGTH;
/// A key file has about 90 bytes. The limit bounds what is read from a wrong path.
const MAX_FILE_LENGTH: u64 = 1024;
const HEADER: &str = "canton-keyvault local wrapper key, version 1";
const NOT_A_KEY_FILE: &str =
    "not a key file: it needs the line \"canton-keyvault local wrapper key, version 1\" and then 32 bytes in base64 or hex";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::crypto::{RandomFailed, SystemRandom};

    /// Counts up from a byte, because known answers need known nonces.
    struct Counting(u8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomFailed> {
            bytes.iter_mut().zip(self.0..).for_each(|(byte, value)| *byte = value);
            Ok(())
        }
    }

    fn context() -> EncryptionContext {
        EncryptionContext::new(vec![("keyvault:node", "participant1".into())])
    }

    fn key_file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wrapper.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    /// The stored form, version 1, frozen. Computed independently with pyca/cryptography. It must open for ever.
    #[tokio::test]
    async fn version_1_reads_back_and_is_written_the_same() {
        let (_directory, path) = key_file(&format!("{HEADER}\n{}\n", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
        let key = LocalWrapper::open(&path, Arc::new(Counting(7))).unwrap();
        assert_eq!(key.identity(), FROZEN_IDENTITY);
        let data_key = SecretBytes::from(vec![0x42; 32]);
        let wrapped = key.wrap(&data_key, &context()).await.unwrap();
        assert_eq!(STANDARD.encode(&wrapped.bytes), FROZEN_WRAP);
        assert_eq!(key.unwrap(&wrapped.bytes, &context()).await.unwrap().data_key.expose(), data_key.expose());
    }

    const FROZEN_IDENTITY: &str = "local:eeb5291e2ab37ede";
    const FROZEN_WRAP: &str = "AQcICQoLDA0ODxAREhIhad5qEFPSQGmCPfbKAXFDHcXelJskoA+oT4qpDnd0ZvX1zSB2BBWG2WfTTOiJ7g==";

    #[test]
    fn a_new_file_is_private_reads_back_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wrapper.key");
        let identity = create_key_file(&path, &SystemRandom::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(LocalWrapper::open(&path, Arc::new(SystemRandom::default())).unwrap().identity(), identity);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(create_key_file(&path, &SystemRandom::default()), Err(WrapperError::Misconfigured { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");

        let (named, identity) = create_key_file_in(directory.path(), &SystemRandom::default()).unwrap();
        assert!(named.to_str().unwrap().ends_with(&format!("wrapper-{}.key", &identity[6..])));
    }

    #[test]
    fn a_file_that_is_not_a_database_is_refused() {
        let open = |path: &Path| LocalWrapper::open(path, Arc::new(SystemRandom::default())).err();
        let hex = "00".repeat(32);
        for text in [
            String::new(),
            hex.clone(),
            format!("{HEADER}\n"),
            format!("{HEADER}\n{}", &hex[2..]),
            format!("{HEADER}\n{hex}00"),
            format!("{HEADER}\n+{}", &hex[1..].replace('0', "g")),
            format!("{HEADER} 2\n{hex}"),
        ] {
            let (_directory, path) = key_file(&text);
            assert!(matches!(open(&path), Some(WrapperError::Misconfigured { .. })), "{text}");
        }
        let (directory, path) = key_file(&format!("{HEADER}\n{hex}"));
        assert_eq!(open(&path), None);
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(open(&path).unwrap().to_string().contains("chmod 600"), "{mode:o}");
        }
        let missing = open(&directory.path().join("missing"));
        assert!(matches!(missing, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{missing:?}");
    }
}
