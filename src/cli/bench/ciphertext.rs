//! Ciphertexts for a vault to decrypt, encrypted to its public keys as Canton does.

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use crate::{
    cli::Failure,
    crypto::{SystemRandom, ecies_sender},
    domain::Algorithm,
};

/// Encrypts `message` to `public_key` (SPKI DER).
pub(super) fn encrypt(algorithm: Algorithm, public_key: &[u8], message: &[u8]) -> Result<Vec<u8>, Failure> {
    match algorithm {
        Algorithm::EciesP256 => ecies_sender::encrypt_to(public_key, message, &SystemRandom::default()).ok(),
        Algorithm::RsaOaepSha256 => oaep(public_key, message),
        _ => return Err(Failure::Usage(format!("{algorithm} is not an algorithm for decryption"))),
    }
    .ok_or_else(|| Failure::Usage(format!("cannot encrypt {} bytes to this key with {algorithm}", message.len())))
}

fn oaep(public_key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).ok()?).ok()?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, message, &mut ciphertext, None).ok()?;
    Some(ciphertext)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey},
    };

    use super::*;

    #[test]
    fn an_rsa_key_decrypts_the_ciphertext_and_a_long_message_is_refused() {
        let recipient = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let public_key = AsDer::<PublicKeyX509Der<'_>>::as_der(&recipient.public_key()).unwrap();
        let sealed = encrypt(Algorithm::RsaOaepSha256, public_key.as_ref(), b"message").unwrap();
        let mut opened = [0; 256];
        let recipient = OaepPrivateDecryptingKey::new(recipient).unwrap();
        assert_eq!(recipient.decrypt(&OAEP_SHA256_MGF1SHA256, &sealed, &mut opened, None).unwrap(), b"message");
        assert!(encrypt(Algorithm::RsaOaepSha256, public_key.as_ref(), &[0; 200]).is_err());
        assert!(encrypt(Algorithm::Ed25519, public_key.as_ref(), b"").is_err());
    }
}
