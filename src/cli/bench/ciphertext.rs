//! Ciphertexts for a vault to decrypt, made with its public keys as Canton makes them.

use aws_lc_rs::{
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    cipher::{AES_128, PaddedBlockEncryptingKey, UnboundCipherKey},
    digest, hmac,
    rand::SystemRandom,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};

use crate::{cli::Failure, domain::Algorithm};

/// Encrypts `message` to `public_key` (SPKI DER).
pub(super) fn encrypt(algorithm: Algorithm, public_key: &[u8], message: &[u8]) -> Result<Vec<u8>, Failure> {
    match algorithm {
        Algorithm::EciesP256 => ecies(public_key, message),
        Algorithm::RsaOaepSha256 => oaep(public_key, message),
        _ => return Err(Failure::Usage(format!("{algorithm} decrypts nothing"))),
    }
    .ok_or_else(|| Failure::Usage(format!("cannot encrypt {} bytes to this key with {algorithm}", message.len())))
}

fn oaep(public_key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).ok()?).ok()?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, message, &mut ciphertext, None).ok()?;
    Some(ciphertext)
}

/// Canton's `EciesHkdfHmacSha256Aes128Cbc` (`JcePureCrypto.scala`), which uses KDF2 and no HKDF: `IV(16) ‖ V(65) ‖ C ‖ HMAC(32)`.
fn ecies(public_key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let ephemeral = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).ok()?;
    let point = ephemeral.compute_public_key().ok()?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, public_key);
    let keys = agree_ephemeral(ephemeral, peer, (), |secret| Ok(kdf2(point.as_ref(), secret))).ok()?;
    let (encryption, mac) = keys.split_first_chunk::<16>()?;

    let mut ciphertext = message.to_vec();
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_128, encryption).ok()?).ok()?;
    let iv = cipher.encrypt(&mut ciphertext).ok()?;
    let mut tag = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, mac));
    tag.update(&ciphertext);
    // The length of the encoding vector, which is empty.
    tag.update(&[0; 8]);
    let iv: &[u8] = (&iv).try_into().ok()?;
    Some([iv, point.as_ref(), &ciphertext, tag.sign().as_ref()].concat())
}

/// ISO 18033-2 KDF2 with SHA-256: 80 bytes, 16 to encrypt and 64 to authenticate.
fn kdf2(point: &[u8], secret: &[u8]) -> Vec<u8> {
    let block = |counter: u32| digest::digest(&digest::SHA256, &[point, secret, &counter.to_be_bytes()].concat());
    let mut keys: Vec<u8> = (1..=3).flat_map(|counter| block(counter).as_ref().to_vec()).collect();
    keys.truncate(80);
    keys
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        agreement::{PrivateKey, agree},
        cipher::{DecryptionContext, PaddedBlockDecryptingKey},
        encoding::{AsDer, PublicKeyX509Der},
        iv::FixedLength,
        rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey},
    };

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// From the reference ciphertext in Canton's `JceCryptoTest.scala`.
    #[test]
    fn keys_are_derived_as_canton_does() {
        let point = hex(
            "045f1be4eb467f212be51b2af861c255b1de37e04ef3703e44039f6aacfdb9f81a5bb494aadbd69ce87f1734659e92639254d4caf54343f7f194ea698d924f3deb",
        );
        let secret = hex("a2691eeeb14969f3394fa466c84d69db0fa92695a8be046be74c78b9b70ed68d");
        let keys = hex(concat!(
            "3556eef2d2088669fa529e84ca454fac3d7ab6bab9315b7c89d0fb20d5661df73627a43ac6c5e853",
            "03186884cda2911bc53e27fecbff37a157552492a21d7bb16fd208f11ea2ada8f7cd2c5d49a195c1"
        ));
        assert_eq!(kdf2(&point, &secret), keys);
    }

    #[test]
    fn what_is_encrypted_to_a_p256_key_opens_with_it() {
        let recipient = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key: PublicKeyX509Der<'_> = recipient.compute_public_key().unwrap().as_der().unwrap();
        let message = [7; 32];
        let sealed = encrypt(Algorithm::EciesP256, public_key.as_ref(), &message).unwrap();
        assert_eq!(sealed.len(), 161);
        let (iv, rest) = sealed.split_at(16);
        let (point, rest) = rest.split_at(65);
        let (ciphertext, tag) = rest.split_at(48);
        let peer = UnparsedPublicKey::new(&ECDH_P256, point);
        let keys = agree(&recipient, peer, (), |secret| Ok(kdf2(point, secret))).unwrap();
        let authenticated = [ciphertext, &[0; 8]].concat();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &keys[16..]), &authenticated, tag).unwrap();
        let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_128, &keys[..16]).unwrap()).unwrap();
        let mut opened = ciphertext.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(iv).unwrap()));
        assert_eq!(cipher.decrypt(&mut opened, context).unwrap(), message);
    }

    #[test]
    fn what_is_encrypted_to_an_rsa_key_opens_with_it_and_what_does_not_fit_is_refused() {
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
