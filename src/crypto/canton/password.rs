//! Canton's password protection (`PasswordBasedEncryption.scala`): Argon2id, then AES-128-GCM over the unprotected file.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroize as _;

use crate::crypto::{CryptoError, Random, SecretBytes};

use super::{CantonFileError, messages::PasswordBasedEncrypted};

/// Maximum length of a password in bytes. Canton states no limit. A longer password is a mistake or an attempt to cause work.
pub const MAX_PASSWORD: usize = 1024;

/// `AES128GCM` of `SymmetricKeyScheme` and `ARGON2ID_MODE1` of `PbkdfScheme`, the only values that exist.
const AES128_GCM: i32 = 1;
const ARGON2ID_MODE1: i32 = 1;

/// The memory of a derivation, in blocks of 1 KiB.
const MEMORY: usize = 12_288;
/// The blocks that are reserved: more than 32 MiB, from which on the allocator of glibc maps each allocation on its own, and returns it to the
/// system when it is freed. Less would stay in the arena of each thread that ever derived a key. Blocks that are not used take no memory.
const RESERVED: usize = 33 * 1024;

const SALT: usize = 16;
const KEY: usize = 16;
const TAG: usize = 16;

/// `nonce(12) ‖ ciphertext ‖ tag(16)` under the password.
pub(super) fn protect(file: &SecretBytes, password: &SecretBytes, random: &dyn Random) -> Result<PasswordBasedEncrypted, CantonFileError> {
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE_LEN]);
    for bytes in [&mut salt[..], &mut nonce[..]] {
        random.fill(bytes).map_err(|_| CryptoError::Faulty)?;
    }
    let key = derive(password, &salt)?;
    let mut ciphertext = Vec::with_capacity(NONCE_LEN + file.expose().len() + TAG);
    ciphertext.extend_from_slice(&nonce);
    ciphertext.extend_from_slice(file.expose());
    let (_, in_out) = ciphertext.split_at_mut_checked(NONCE_LEN).ok_or(CryptoError::Faulty)?;
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), in_out).map_err(|_| CryptoError::Faulty)?;
    ciphertext.extend_from_slice(tag.as_ref());
    Ok(PasswordBasedEncrypted {
        ciphertext: ciphertext.into(),
        symmetric_key_scheme: AES128_GCM,
        pbkdf_scheme: ARGON2ID_MODE1,
        salt: salt.to_vec().into(),
    })
}

/// The unprotected file.
pub(super) fn unprotect(protected: &PasswordBasedEncrypted, password: &SecretBytes) -> Result<SecretBytes, CantonFileError> {
    const DAMAGED: CantonFileError = CantonFileError::WrongPasswordOrDamaged;
    for (what, number) in [("symmetric key scheme", protected.symmetric_key_scheme), ("password derivation scheme", protected.pbkdf_scheme)]
    {
        if number != 1 {
            return Err(CantonFileError::Unsupported { what, number, name: "" });
        }
    }
    let salt: &[u8; SALT] = protected.salt.as_ref().try_into().map_err(|_| DAMAGED)?;
    let (&nonce, rest) = protected.ciphertext.split_first_chunk::<NONCE_LEN>().ok_or(DAMAGED)?;
    let (sealed, tag) = rest.split_last_chunk::<TAG>().ok_or(DAMAGED)?;
    let mut file = SecretBytes::zeroed(sealed.len());
    derive(password, salt)?
        .open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed, tag, file.expose_mut())
        .map_err(|_| DAMAGED)?;
    Ok(file)
}

/// Argon2id version 0x13, 12288 KiB, 3 passes, 1 lane, 16 bytes. Canton fixes these values, so that a file cannot request more work.
fn derive(password: &SecretBytes, salt: &[u8; SALT]) -> Result<LessSafeKey, CantonFileError> {
    if password.expose().len() > MAX_PASSWORD {
        return Err(CantonFileError::PasswordTooLong);
    }
    let params = Params::new(12_288, 3, 1, Some(KEY)).map_err(|_| CryptoError::Faulty)?;
    let mut key = SecretBytes::zeroed(KEY);
    #[cfg(test)]
    tests::DERIVED.set(tests::DERIVED.get() + 1);
    let mut memory = Vec::with_capacity(RESERVED);
    memory.resize(MEMORY, Block::default());
    let derived = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        password.expose(),
        salt,
        key.expose_mut(),
        &mut memory,
    );
    for block in &mut memory {
        block.zeroize();
    }
    derived.map_err(|_| CryptoError::Faulty)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.expose()).map_err(|_| CryptoError::Faulty)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        /// How often this thread took the memory of a derivation.
        pub(super) static DERIVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// A file has no cost parameters: it names a scheme whose costs Canton fixes. What can be refused is refused before memory is taken.
    #[test]
    fn a_file_that_asks_for_other_work_is_refused_before_memory_is_taken() {
        let valid = || PasswordBasedEncrypted {
            ciphertext: vec![0; NONCE_LEN + TAG].into(),
            symmetric_key_scheme: AES128_GCM,
            pbkdf_scheme: ARGON2ID_MODE1,
            salt: vec![0; SALT].into(),
        };
        let password = SecretBytes::copy_of(b"hello world");
        for file in [
            PasswordBasedEncrypted { pbkdf_scheme: 2, ..valid() },
            PasswordBasedEncrypted { pbkdf_scheme: i32::MAX, ..valid() },
            PasswordBasedEncrypted { symmetric_key_scheme: 0, ..valid() },
            PasswordBasedEncrypted { salt: vec![0; SALT + 1].into(), ..valid() },
            PasswordBasedEncrypted { salt: vec![0; 60_000].into(), ..valid() },
            PasswordBasedEncrypted { ciphertext: vec![0; NONCE_LEN + TAG - 1].into(), ..valid() },
        ] {
            assert!(unprotect(&file, &password).is_err());
        }
        let long = SecretBytes::copy_of(&[b'x'; MAX_PASSWORD + 1]);
        assert!(matches!(unprotect(&valid(), &long), Err(CantonFileError::PasswordTooLong)));
        assert_eq!(DERIVED.get(), 0);
        assert!(unprotect(&valid(), &password).is_err());
        assert_eq!(DERIVED.get(), 1);
    }

    /// Resident memory of this process in MiB.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    #[test]
    fn the_memory_of_derivations_is_returned() {
        const THREADS: usize = 16;
        let derive_one = || derive(&SecretBytes::copy_of(b"hello world"), &[7; SALT]).map(drop).unwrap();
        derive_one();
        let before = resident();
        let done = std::sync::Barrier::new(THREADS + 1);
        let after = std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    (0..2).for_each(|_| derive_one());
                    // The thread lives on, as those of a pool do.
                    done.wait();
                    done.wait();
                });
            }
            done.wait();
            let after = resident();
            done.wait();
            after
        });
        assert!(after < before + 64, "{before} MiB before, {after} MiB after");
    }

    /// `password_export` of the test vectors: the key for "hello world" and the salt 00..0f.
    #[test]
    fn derives_the_known_key() {
        let salt = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let key = derive(&SecretBytes::copy_of(b"hello world"), &salt).unwrap();
        let known = [0x6f, 0xe4, 0x18, 0x57, 0xfe, 0x71, 0x14, 0x6a, 0x1b, 0x21, 0x1b, 0x08, 0x1c, 0xbf, 0x83, 0x38];
        let known = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &known).unwrap());
        let tag = |key: &LessSafeKey| {
            let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
            key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut []).unwrap().as_ref().to_vec()
        };
        assert_eq!(tag(&key), tag(&known));
    }
}
