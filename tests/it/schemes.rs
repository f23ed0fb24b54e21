//! Every scheme of the table satisfies the contracts of `Scheme` and `PrivateKey`.

use crate::support::verify::verify;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use canton_keyvault::{
    crypto::{
        CryptoError, MAX_MESSAGE, PrivateKey, SCHEMES, Scheme, SystemRandom, ecies_sender::encrypt_to, read_pkcs8, scheme, self_test,
    },
    domain::{Algorithm, KeySpec, Purpose},
};
use p256::pkcs8::EncodePrivateKey;
use proptest::prelude::*;

use crate::known_bytes::{Always, Broken, error, hex, ok, secret, unhex};

fn new_key(scheme: &dyn Scheme) -> Box<dyn PrivateKey> {
    ok(scheme.parse(&ok(scheme.generate(&SystemRandom::default()))))
}

fn ciphertext(key: &dyn PrivateKey, algorithm: Algorithm, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::EciesP256 => encrypt_to(key.public_key().unwrap(), plaintext, &SystemRandom::default()).unwrap(),
        Algorithm::RsaOaepSha256 => {
            let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(key.public_key().unwrap()).unwrap()).unwrap();
            let mut ciphertext = vec![0; 256];
            public.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut ciphertext, None).unwrap().to_vec()
        }
        _ => key.encrypt(algorithm, plaintext, aad, &SystemRandom::default()).unwrap(),
    }
}

#[test]
fn the_table_has_every_canton_pair_once_and_no_other() {
    let pairs: Vec<_> = SCHEMES.iter().map(|scheme| (scheme.spec(), scheme.purpose())).collect();
    let wanted = [
        (KeySpec::EcCurve25519, Purpose::Signing),
        (KeySpec::EcP256, Purpose::Signing),
        (KeySpec::EcP384, Purpose::Signing),
        (KeySpec::EcSecp256k1, Purpose::Signing),
        (KeySpec::EcP256, Purpose::Encryption),
        (KeySpec::Rsa2048, Purpose::Encryption),
        (KeySpec::Aes256, Purpose::Symmetric),
    ];
    assert_eq!(pairs, wanted);
    for spec in KeySpec::ALL {
        for purpose in Purpose::ALL {
            assert_eq!(scheme(*spec, *purpose).is_some(), wanted.contains(&(*spec, *purpose)), "{spec} {purpose}");
        }
    }
}

#[test]
fn a_key_answers_to_its_own_algorithms_and_to_no_other() {
    for scheme in SCHEMES {
        let key = new_key(*scheme);
        self_test(&*key, *scheme).unwrap();
        for algorithm in Algorithm::ALL {
            let unsupported = CryptoError::Unsupported(*algorithm);
            let own = scheme.algorithms().contains(algorithm);
            let signs = key.sign(*algorithm, b"message");
            match (own, scheme.purpose()) {
                (true, Purpose::Signing) => {
                    assert!(verify(*algorithm, key.public_key().unwrap(), b"message", &signs.unwrap()));
                }
                _ => assert_eq!(signs.unwrap_err(), unsupported, "{} {algorithm}", scheme.spec()),
            }
            let decrypts = error(key.decrypt(*algorithm, b"nothing", b""));
            let encrypts = key.encrypt(*algorithm, b"plain", b"", &SystemRandom::default());
            match (own, scheme.purpose()) {
                (true, Purpose::Encryption) => {
                    assert_eq!((decrypts, encrypts.unwrap_err()), (CryptoError::DecryptionFailed, unsupported));
                }
                (true, Purpose::Symmetric) => assert_eq!((decrypts, encrypts.is_ok()), (CryptoError::DecryptionFailed, true)),
                _ => assert_eq!((decrypts, encrypts.unwrap_err()), (unsupported.clone(), unsupported)),
            }
        }
    }
}

#[test]
fn messages_and_plaintexts_are_bounded() {
    for scheme in SCHEMES {
        let (key, algorithm) = (new_key(*scheme), scheme.algorithms()[0]);
        for (length, fits) in [(0, true), (MAX_MESSAGE, true), (MAX_MESSAGE + 1, false)] {
            let result = match scheme.purpose() {
                Purpose::Signing => key.sign(algorithm, &vec![7; length]),
                Purpose::Symmetric => key.encrypt(algorithm, &vec![7; length], b"", &SystemRandom::default()),
                Purpose::Encryption => continue,
            };
            assert_eq!(result.is_ok(), fits);
            if !fits {
                assert_eq!(result.unwrap_err(), CryptoError::TooLong(4096));
            }
        }
    }
}

#[test]
fn public_keys_have_the_sizes_of_canton() {
    let sizes: Vec<_> = SCHEMES.iter().map(|scheme| new_key(*scheme).public_key().map(<[u8]>::len)).collect();
    assert_eq!(sizes, [Some(44), Some(91), Some(120), Some(88), Some(91), Some(294), None]);
}

#[test]
fn material_is_canonical_and_read_back() {
    let random = SystemRandom::default();
    for scheme in SCHEMES {
        let material = ok(scheme.generate(&random));
        let again = ok(scheme.generate(&random));
        assert!(material.expose() != again.expose(), "{}: the same key twice", scheme.spec());
        let length = material.expose().len();
        match scheme.spec() {
            KeySpec::EcCurve25519 => assert_eq!(length, 48),
            KeySpec::EcP256 => assert_eq!(length, 150),
            KeySpec::EcP384 => assert_eq!(length, 194),
            KeySpec::EcSecp256k1 => assert_eq!(length, 144),
            KeySpec::Rsa2048 => assert!((1200..1230).contains(&length)),
            KeySpec::Aes256 => {
                assert_eq!(length, 32);
                continue;
            }
        }
        let (spec, canonical) = ok(read_pkcs8(Some(scheme.spec()), Some(scheme.purpose()), &material));
        assert!(spec == scheme.spec() && canonical.expose() == material.expose());
        assert!(ok(read_pkcs8(None, None, &material)).0 == scheme.spec());
        for other in KeySpec::ALL.iter().filter(|other| **other != scheme.spec()) {
            assert!(read_pkcs8(Some(*other), None, &material).is_err());
        }
        for other in SCHEMES.iter().filter(|other| other.spec() != scheme.spec()) {
            assert!(matches!(error(other.parse(&material)), CryptoError::BadKey(_)));
        }
        for cut in [1, length / 2, length - 1] {
            assert!(matches!(error(scheme.parse(&secret(&material.expose()[..cut]))), CryptoError::BadKey(_)));
        }
        assert!(matches!(error(scheme.parse(&secret(&[material.expose(), &[0]].concat()))), CryptoError::BadKey(_)));
    }
    assert!(read_pkcs8(None, Some(Purpose::Symmetric), &ok(SCHEMES[0].generate(&random))).is_err());
    assert!(read_pkcs8(None, Some(Purpose::Encryption), &ok(SCHEMES[0].generate(&random))).is_err());
}

#[test]
fn without_randomness_there_is_no_key() {
    for scheme in SCHEMES.iter().filter(|scheme| scheme.spec() != KeySpec::Rsa2048) {
        assert_eq!(error(scheme.generate(&Broken)), CryptoError::Faulty);
    }
    // All ones are above the order of every curve: a broken generator ends in an error, not in a loop.
    assert_eq!(error(scheme(KeySpec::EcP256, Purpose::Signing).unwrap().generate(&Always(0xff))), CryptoError::Faulty);
    let key = new_key(SCHEMES[6]);
    assert_eq!(key.encrypt(Algorithm::Aes256Gcm, b"", b"", &Broken).unwrap_err(), CryptoError::Faulty);
}

#[test]
fn other_encodings_of_pkcs8_become_canonical() {
    // Ed25519 with its public key (RFC 8410, version 2), by aws-lc.
    let pair = Ed25519KeyPair::generate().unwrap();
    let (spec, canonical) = ok(read_pkcs8(None, Some(Purpose::Signing), &secret(pair.to_pkcs8().unwrap().as_ref())));
    assert!(spec == KeySpec::EcCurve25519 && canonical.expose() == pair.to_pkcs8v1().unwrap().as_ref() && canonical.expose().len() == 48);

    // P-256 by aws-lc and by p256.
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let by_aws_lc = pair.to_pkcs8v1().unwrap();
    let canonical = ok(read_pkcs8(None, None, &secret(by_aws_lc.as_ref()))).1;
    assert_eq!((by_aws_lc.as_ref().len(), canonical.expose().len()), (138, 150));
    let by_p256 = p256::SecretKey::from_slice(&[7; 32]).unwrap().to_pkcs8_der().unwrap();
    let canonical = ok(read_pkcs8(None, None, &secret(by_p256.as_bytes()))).1;
    assert_eq!(canonical.expose().len(), 150);

    // As Bouncy Castle writes it, with the curve repeated inside (RFC 5915 parameters): "MIGTAgEA…BHkwdwIBAQQg…oAoGCCqGSM49AwEHoUQ…".
    let (scalar, point) = (&canonical.expose()[36..68], &canonical.expose()[85..]);
    let bouncy = |curve: &str, point: &[u8]| {
        let inner = format!("30770201010420{}a00a0608{curve}a144034200{}", hex(scalar), hex(point));
        secret(&unhex(&format!("308193020100301306072a8648ce3d020106082a8648ce3d0301070479{inner}")))
    };
    assert!(ok(read_pkcs8(None, None, &bouncy("2a8648ce3d030107", point))).1.expose() == canonical.expose());
    assert!(read_pkcs8(None, None, &bouncy("2a8648ce3d030106", point)).is_err());
    let mut foreign = point.to_vec();
    foreign[64] ^= 1;
    assert!(read_pkcs8(None, None, &bouncy("2a8648ce3d030107", &foreign)).is_err());

    // RFC 5958: version 2 with the public key outside, which must be the key's own, too; version 1 with (empty) attributes.
    let outside = |point: &[u8]| {
        let inner = format!("30250201010420{}", hex(scalar));
        let head = "020101301306072a8648ce3d020106082a8648ce3d0301070427";
        secret(&unhex(&format!("308185{head}{inner}814200{}", hex(point))))
    };
    assert!(ok(read_pkcs8(None, None, &outside(point))).1.expose() == canonical.expose());
    assert!(read_pkcs8(None, None, &outside(&foreign)).is_err());
    let attributes = format!("3030020100300506032b657004220420{}a000", hex(&[7; 32]));
    assert_eq!(ok(read_pkcs8(None, None, &secret(&unhex(&attributes)))).1.expose().len(), 48);

    // Scalar alone.
    let bare = format!("3041020100301306072a8648ce3d020106082a8648ce3d03010704273025020101 0420{}", hex(scalar)).replace(' ', "");
    assert!(ok(read_pkcs8(None, None, &secret(&unhex(&bare)))).1.expose() == canonical.expose());
}

/// `openssl genpkey` omits the parameters inside `ECPrivateKey`, which Canton writes. Its RSA keys are canonical.
#[test]
fn keys_of_openssl_become_canonical() {
    let keys: [(KeySpec, &[u8]); 3] = [
        (KeySpec::Rsa2048, include_bytes!("../../fuzz/seeds/pkcs8/rsa")),
        (KeySpec::EcP384, include_bytes!("../../fuzz/seeds/pkcs8/p384")),
        (KeySpec::EcSecp256k1, include_bytes!("../../fuzz/seeds/pkcs8/secp256k1")),
    ];
    for (spec, bytes) in keys {
        let canonical = ok(read_pkcs8(Some(spec), None, &secret(bytes))).1;
        assert_eq!(canonical.expose() == bytes, spec == KeySpec::Rsa2048, "{spec}");
        assert!(ok(read_pkcs8(Some(spec), None, &canonical)).1.expose() == canonical.expose(), "{spec}");
    }
}

#[test]
fn an_ed25519_key_with_a_foreign_public_key_is_refused() {
    let document = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
    let mut bytes = document.as_ref().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(error(read_pkcs8(None, None, &secret(&bytes))), CryptoError::BadKey(_)));
}

#[test]
fn rsa_is_2048_bits_65537_and_consistent() {
    let scheme = scheme(KeySpec::Rsa2048, Purpose::Encryption).unwrap();
    let key = PrivateDecryptingKey::generate(KeySize::Rsa3072).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let why = error(scheme.parse(&secret(der.as_ref())));
    assert_eq!(why, CryptoError::BadKey("its RSA modulus does not have 2048 bits"));

    let material = ok(scheme.generate(&SystemRandom::default()));
    let at = material.expose().windows(5).position(|window| window == [2, 3, 1, 0, 1]).unwrap();
    let mut exponent = material.expose().to_vec();
    exponent[at + 4] = 3;
    assert_eq!(error(scheme.parse(&secret(&exponent))), CryptoError::BadKey("its RSA exponent is not 65537"));
    let mut private = material.expose().to_vec();
    private[at + 100] ^= 1;
    assert_eq!(error(scheme.parse(&secret(&private))), CryptoError::BadKey("its RSA numbers do not fit together"));
}

#[test]
fn every_flipped_bit_and_every_cut_gives_the_one_error() {
    for scheme in SCHEMES.iter().filter(|scheme| scheme.purpose() != Purpose::Signing) {
        let (key, algorithm) = (new_key(*scheme), scheme.algorithms()[0]);
        let good = ciphertext(&*key, algorithm, b"a session key of 32 bytes, really", b"aad");
        assert!(ok(key.decrypt(algorithm, &good, b"aad")).expose() == b"a session key of 32 bytes, really");
        for at in 0..good.len() {
            // The MAC of Canton's ECIES does not cover the IV.
            if algorithm == Algorithm::EciesP256 && at < 16 {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(error(key.decrypt(algorithm, &bad, b"aad")), CryptoError::DecryptionFailed, "{algorithm} byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(error(key.decrypt(algorithm, &good[..length], b"aad")), CryptoError::DecryptionFailed, "{algorithm} {length}");
        }
        assert_eq!(error(key.decrypt(algorithm, &[&good[..], &[0]].concat(), b"aad")), CryptoError::DecryptionFailed);
        let other = new_key(*scheme);
        assert_eq!(error(other.decrypt(algorithm, &good, b"aad")), CryptoError::DecryptionFailed);
        if scheme.purpose() == Purpose::Symmetric {
            assert_eq!(error(key.decrypt(algorithm, &good, b"another key")), CryptoError::DecryptionFailed);
        }
    }
}

#[test]
fn ecies_takes_uncompressed_points_on_the_curve_alone() {
    let key = new_key(scheme(KeySpec::EcP256, Purpose::Encryption).unwrap());
    let good = encrypt_to(key.public_key().unwrap(), b"plain", &SystemRandom::default()).unwrap();
    let with_point = |point: &[u8]| [&good[..16], point, &good[81..]].concat();
    let compressed = [&[2 | (good[80] & 1)], &good[17..49]].concat();
    let hybrid = [&[6 | (good[80] & 1)], &good[17..81]].concat();
    let off_curve = [&[4][..], &[1; 64]].concat();
    for point in [&[0][..], &[0; 65], &compressed, &hybrid, &off_curve, &[4; 1]] {
        assert_eq!(error(key.decrypt(Algorithm::EciesP256, &with_point(point), b"")), CryptoError::DecryptionFailed);
    }
    assert!(key.decrypt(Algorithm::EciesP256, &with_point(&good[16..81]), b"").is_ok());
}

#[test]
fn a_key_that_does_not_fit_its_public_key_is_not_proven() {
    struct Liar(Box<dyn PrivateKey>, Vec<u8>);
    impl PrivateKey for Liar {
        fn public_key(&self) -> Option<&[u8]> {
            Some(&self.1)
        }
        fn decrypt(
            &self,
            algorithm: Algorithm,
            ciphertext: &[u8],
            aad: &[u8],
        ) -> Result<canton_keyvault::crypto::SecretBytes, CryptoError> {
            self.0.decrypt(algorithm, ciphertext, aad)
        }
    }
    let scheme = scheme(KeySpec::EcP256, Purpose::Encryption).unwrap();
    let liar = Liar(new_key(scheme), new_key(scheme).public_key().unwrap().to_vec());
    assert_eq!(self_test(&liar, scheme).unwrap_err(), CryptoError::Faulty);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_ciphertext_decrypts(plaintext in proptest::collection::vec(any::<u8>(), 0..190)) {
        for scheme in [SCHEMES[4], SCHEMES[6]] {
            let (key, algorithm) = (new_key(scheme), scheme.algorithms()[0]);
            let sealed = ciphertext(&*key, algorithm, &plaintext, b"id");
            prop_assert!(ok(key.decrypt(algorithm, &sealed, b"id")).expose() == plaintext);
        }
    }
}
