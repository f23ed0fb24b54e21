//! Every value of `tests/vectors/canton.json` is reproduced, opened or checked. `verified` values stand in Canton's own repository or on
//! the Canton Network; `constructed` ones were made by an independent implementation of the same rules.

use std::{collections::BTreeSet, sync::LazyLock};

use crate::support::verify::verify;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use canton_keyvault::{
    crypto::{
        CryptoError, SystemRandom,
        canton::{CantonFileError, CantonKeyPair, CantonVersion, KeyPairToWrite, MAX_PASSWORD, read_key_pair, write_key_pair},
        ecies_sender::{encrypt_to, encrypt_with},
        fingerprint, read_pkcs8, scheme,
    },
    domain::{Algorithm, KeySpec, Purpose, Usage, Usages},
};
use p256::elliptic_curve::sec1::{FromSec1Point, ToSec1Point};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::known_bytes::{Counting, error, hex, ok, secret, unbase64, unhex};

static VECTORS: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../vectors/canton.json")).unwrap());

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

fn from_hex(value: &Value, name: &str) -> Vec<u8> {
    unhex(text(value, name))
}

fn from_base64(value: &Value, name: &str) -> Vec<u8> {
    unbase64(text(value, name))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), Digest::chain_update).finalize().into()
}

/// Canton's `Hash`: multihash of purpose and bytes, 34 bytes, which is what Canton signs.
fn canton_hash(purpose: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0x12, 0x20][..], &sha256(&[&purpose.to_be_bytes(), bytes])].concat()
}

/// A length-delimited field of protobuf with a number below 16.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    [bytes, content.to_vec()].concat()
}

/// A number below 128 in a field of protobuf.
fn number(field: u8, value: u8) -> [u8; 2] {
    [field << 3, value]
}

/// `UntypedVersionedMessage` of version 30.
fn versioned(content: &[u8]) -> Vec<u8> {
    [field(1, content), number(2, 30).to_vec()].concat()
}

const ED25519_SPKI: &str = "302a300506032b6570032100";

/// A new vector must be added to this file.
#[test]
fn the_vectors_are_those_that_are_checked_below() {
    let names = |part: &str| VECTORS[part].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let verified = ["fingerprint_docs", "ed25519_keypairs", "network_topology", "ecies_cbc", "rsa_oaep", "aes128gcm"];
    assert_eq!(names("verified"), set(&verified));
    let constructed = [
        "ecies_cbc",
        "ecies_gcm_legacy",
        "password_export",
        "key_pair_export",
        "key_pair_export_3_3",
        "store_data_column",
        "public_key_download",
        "root_namespace_delegation",
    ];
    assert_eq!(names("constructed"), set(&constructed));
}

#[test]
fn fingerprint_of_the_documentation() {
    let vector = &VECTORS["verified"]["fingerprint_docs"];
    let spki = [unhex(ED25519_SPKI), from_base64(vector, "public_key_raw_b64")].concat();
    assert_eq!(fingerprint(KeySpec::EcCurve25519, Purpose::Signing, &spki).to_string(), text(vector, "fingerprint"));
}

#[test]
fn ed25519_key_pairs_of_example_nodes() {
    let vectors = VECTORS["verified"]["ed25519_keypairs"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let (spki, pkcs8, id) = (from_hex(vector, "spki_hex"), from_hex(vector, "pkcs8_hex"), text(vector, "fingerprint"));
        assert_eq!(spki, [unhex(ED25519_SPKI), from_hex(vector, "raw_public_key_hex")].concat());
        let (spec, canonical) = ok(read_pkcs8(None, Some(Purpose::Signing), &secret(&pkcs8)));
        assert!(spec == KeySpec::EcCurve25519 && canonical.expose() == pkcs8);
        let key = ok(scheme(spec, Purpose::Signing).unwrap().parse(&canonical));
        assert_eq!(key.public_key().unwrap(), spki);
        assert_eq!(fingerprint(spec, Purpose::Signing, &spki).to_string(), id);
        // Hashing the whole SPKI, as for other keys, would be wrong.
        let wrong = fingerprint(KeySpec::EcP256, Purpose::Signing, &spki).to_string();
        assert_eq!(wrong, text(vector, "wrong_spki_fingerprint"));
        assert_ne!(wrong, id);

        let usage = field(5, &[4, 5]);
        let public = [&number(2, 4)[..], &field(3, &spki), &usage, &number(6, 1)].concat();
        assert_eq!(hex(&public), text(vector, "signing_public_key_proto_hex"));
        let private = [&field(1, id.as_bytes())[..], &number(2, 5), &field(3, &pkcs8), &usage, &number(6, 1)].concat();
        assert_eq!(hex(&private), text(vector, "signing_private_key_proto_hex"));
    }
}

#[test]
fn topology_of_the_canton_network() {
    let vectors = VECTORS["verified"]["network_topology"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let (key, signature, id) = (from_base64(vector, "public_key_b64"), from_hex(vector, "signature_hex"), text(vector, "fingerprint"));
        let (spec, spki, algorithm) = match vector["key_format"].as_u64().unwrap() {
            3 => (KeySpec::EcCurve25519, [unhex(ED25519_SPKI), key].concat(), Algorithm::Ed25519),
            2 => (KeySpec::EcP256, key, Algorithm::EcdsaSha256),
            format => panic!("{format}"),
        };
        assert_eq!(fingerprint(spec, Purpose::Signing, &spki).to_string(), id);
        let hash = canton_hash(11, &from_hex(vector, "versioned_transaction_hex"));
        assert_eq!(hex(&hash), text(vector, "topology_tx_hash"));
        assert!(verify(algorithm, &spki, &hash, &signature));
        // The message is hashed by the algorithm; a digest in its place does not verify.
        assert!(!verify(algorithm, &spki, &hash[2..], &signature));

        let format = u8::try_from(vector["signature_format"].as_u64().unwrap()).unwrap();
        let mut message = [&number(1, format)[..], &field(2, &signature), &field(3, id.as_bytes())].concat();
        if let Ok(spec @ 1..) = u8::try_from(vector["signing_algorithm_spec"].as_u64().unwrap()) {
            message.extend_from_slice(&number(4, spec));
        }
        assert_eq!(hex(&message), text(vector, "signature_proto_hex"));
    }
}

#[test]
fn ecies_reference_ciphertext_of_canton_with_all_its_intermediates() {
    let vector = &VECTORS["verified"]["ecies_cbc"];
    let (spki, plaintext, id) = (from_base64(vector, "spki_b64"), text(vector, "plaintext_utf8").as_bytes(), text(vector, "fingerprint"));
    assert_eq!(fingerprint(KeySpec::EcP256, Purpose::Encryption, &spki).to_string(), id);

    let mut drbg = canton_drbg(plaintext, id);
    assert_eq!(hex(&drbg.seed), text(vector, "drbg_seed_sha256_hex"));
    let (iv, ephemeral) = (from_hex(vector, "iv_hex"), from_hex(vector, "ephemeral_private_scalar_hex"));
    assert_eq!(hex(&drbg.draw(16)), hex(&iv));
    assert_eq!(hex(&drbg.draw(32)), hex(&ephemeral));

    // Steps by another library.
    let scalar = p256::SecretKey::from_slice(&ephemeral).unwrap();
    let point = scalar.public_key().to_sec1_point(false);
    assert_eq!(hex(point.as_bytes()), text(vector, "ephemeral_public_uncompressed_hex"));
    let recipient = p256::PublicKey::from_sec1_bytes(&spki[26..]).unwrap();
    let shared = p256::ecdh::diffie_hellman(scalar.to_nonzero_scalar(), recipient.as_affine());
    let shared = shared.raw_secret_bytes().to_vec();
    assert_eq!(hex(&shared), text(vector, "ecdh_shared_x_hex"));
    let derived: Vec<u8> = (1_u32..=3).flat_map(|counter| sha256(&[point.as_bytes(), &shared, &counter.to_be_bytes()])).take(80).collect();
    assert_eq!(hex(&derived), text(vector, "kdf_output_hex"));
    assert_eq!(hex(&derived[..16]), text(vector, "aes_key_hex"));
    assert_eq!(hex(&derived[16..]), text(vector, "mac_key_hex"));

    // The whole by ours.
    let ours = encrypt_with(&spki, plaintext, iv.try_into().unwrap(), &secret(&ephemeral)).unwrap();
    assert_eq!(hex(&ours), hex(&from_base64(vector, "ciphertext_b64")));
}

#[test]
fn ecies_constructed_ciphertext_is_decrypted() {
    let vector = &VECTORS["constructed"]["ecies_cbc"];
    let material = from_hex(vector, "recipient_pkcs8_hex");
    let (spec, canonical) = ok(read_pkcs8(None, Some(Purpose::Encryption), &secret(&material)));
    // The vector lacks the parameters that Canton repeats inside.
    assert!(spec == KeySpec::EcP256 && canonical.expose().len() == material.len() + 12);
    let key = ok(scheme(spec, Purpose::Encryption).unwrap().parse(&canonical));
    assert_eq!(hex(key.public_key().unwrap()), text(vector, "recipient_spki_hex"));

    let (ciphertext, plaintext) = (from_hex(vector, "ciphertext_hex"), from_hex(vector, "plaintext_hex"));
    assert_eq!(Some(ciphertext.len() as u64), vector["ciphertext_len"].as_u64());
    assert!(ok(key.decrypt(Algorithm::EciesP256, &ciphertext, b"")).expose() == plaintext);
    let (iv, ephemeral) = (from_hex(vector, "iv_hex").try_into().unwrap(), secret(&from_hex(vector, "ephemeral_d_hex")));
    assert_eq!(encrypt_with(key.public_key().unwrap(), &plaintext, iv, &ephemeral).unwrap(), ciphertext);

    // Lengths that Canton sees: 113 + 16 · (n/16 + 1).
    for (length, whole) in [(4, 129), (6, 129), (16, 145), (32, 161), (127, 241)] {
        let sealed = encrypt_to(key.public_key().unwrap(), &vec![1; length], &SystemRandom::default()).unwrap();
        assert_eq!(sealed.len(), whole);
    }
}

/// The AES-GCM variant of Canton 2 and 3.3 went in 3.4; the vault does not offer it, and must not take it for the other.
#[test]
fn ecies_legacy_gcm_is_refused_as_any_bad_ciphertext() {
    let vector = &VECTORS["constructed"]["ecies_gcm_legacy"];
    let material = from_hex(&VECTORS["constructed"]["ecies_cbc"], "recipient_pkcs8_hex");
    let key = ok(scheme(KeySpec::EcP256, Purpose::Encryption).unwrap().parse(&secret(&material)));
    let ciphertext = from_hex(vector, "ciphertext_hex");
    assert_eq!(error(key.decrypt(Algorithm::EciesP256, &ciphertext, b"")), CryptoError::DecryptionFailed);

    // It is a real ciphertext to this key all the same: V ‖ nonce ‖ sealed, key = HKDF-SHA256(V ‖ Z, 16 bytes).
    let scalar = p256::SecretKey::from_slice(&material[36..68]).unwrap();
    let point = p256::PublicKey::from_sec1_bytes(&ciphertext[..65]).unwrap();
    assert_eq!(p256::PublicKey::from_sec1_point(&point.to_sec1_point(false)).unwrap(), point);
    let shared = p256::ecdh::diffie_hellman(scalar.to_nonzero_scalar(), point.as_affine());
    let mut key = [0; 16];
    let secret = [&ciphertext[..65], shared.raw_secret_bytes().as_slice()].concat();
    hkdf::Hkdf::<Sha256>::new(None, &secret).expand(&[], &mut key).unwrap();
    assert_eq!(hex(&ciphertext[65..77]), text(vector, "nonce_hex"));
    assert_eq!(hex(&open_aes128_gcm(&key, &ciphertext[65..])), text(vector, "plaintext_hex"));
}

#[test]
fn rsa_oaep_reference_ciphertext_of_canton() {
    let vector = &VECTORS["verified"]["rsa_oaep"];
    let (spki, plaintext, id) = (from_base64(vector, "spki_b64"), text(vector, "plaintext_utf8").as_bytes(), text(vector, "fingerprint"));
    assert_eq!(fingerprint(KeySpec::Rsa2048, Purpose::Encryption, &spki).to_string(), id);
    let seed = from_hex(vector, "oaep_seed_hex");
    assert_eq!(hex(&canton_drbg(plaintext, id).draw(32)), hex(&seed));

    // RFC 8017 §7.1.1 with this seed, and 65537 by square and multiply.
    let mut block = [&sha256(&[b""])[..], &vec![0; 256 - 2 * 32 - 2 - plaintext.len()], &[1], plaintext].concat();
    mask(&mut block, &seed);
    let mut masked_seed = seed;
    mask(&mut masked_seed, &block);
    let message = [&[0][..], &masked_seed, &block].concat();
    let modulus = &spki[33..289];
    let mut power = message.clone();
    for _ in 0..16 {
        power = multiply(&power, &power, modulus);
    }
    assert_eq!(hex(&multiply(&power, &message, modulus)), hex(&from_base64(vector, "ciphertext_b64")));
}

#[test]
fn aes128_gcm_of_canton() {
    let vector = &VECTORS["verified"]["aes128gcm"];
    assert_eq!(text(vector, "layout"), "nonce12||ct||tag16");
    let plaintext = open_aes128_gcm(&from_base64(vector, "key_b64"), &from_base64(vector, "ciphertext_b64"));
    assert_eq!(plaintext, text(vector, "plaintext_utf8").as_bytes());
}

fn node1() -> &'static Value {
    &VECTORS["verified"]["ed25519_keypairs"][0]
}

fn assert_is_node1(pair: &CantonKeyPair) {
    assert!(pair.purpose == Purpose::Signing && pair.spec == KeySpec::EcCurve25519);
    assert_eq!(pair.usages, [Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect());
    assert!(pair.pkcs8.expose() == from_hex(node1(), "pkcs8_hex"));
}

#[test]
fn key_pair_files_of_all_versions_are_read() {
    for name in ["key_pair_export", "key_pair_export_3_3", "store_data_column"] {
        let file = from_hex(&VECTORS["constructed"][name], "hex");
        assert_is_node1(&ok(read_key_pair(&secret(&file), None)));
        assert_is_node1(&ok(read_key_pair(&secret(&file), Some(&secret(b"")))));
        assert_eq!(error(read_key_pair(&secret(&file), Some(&secret(b"hello world")))), CantonFileError::NotProtected);
    }
    // The bare message, which Canton reads, too.
    let file = from_hex(&VECTORS["constructed"]["key_pair_export"], "hex");
    let bare = &file[3..file.len() - 2];
    assert_eq!(versioned(bare), file);
    assert_is_node1(&ok(read_key_pair(&secret(bare), None)));
    assert_eq!(file, versioned(&field(1, &field(2, &from_hex(node1(), "signing_private_key_proto_hex")))));
    let column = from_hex(&VECTORS["constructed"]["store_data_column"], "hex");
    assert_eq!(column, versioned(&from_hex(node1(), "signing_private_key_proto_hex")));
}

#[test]
fn the_file_of_3_3_is_written_byte_for_byte() {
    let (pkcs8, public_key) = (secret(&from_hex(node1(), "pkcs8_hex")), from_hex(node1(), "spki_hex"));
    let pair = KeyPairToWrite {
        purpose: Purpose::Signing,
        spec: KeySpec::EcCurve25519,
        usages: [Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect(),
        pkcs8: &pkcs8,
        public_key: &public_key,
        fingerprint: fingerprint(KeySpec::EcCurve25519, Purpose::Signing, &public_key),
    };
    let file = ok(write_key_pair(&pair, CantonVersion::V3_3, None, &Counting::default()));
    assert_eq!(hex(file.expose()), text(&VECTORS["constructed"]["key_pair_export_3_3"], "hex"));

    let password = secret(b"correct horse");
    let protected = ok(write_key_pair(&pair, CantonVersion::V3_3, Some(&password), &SystemRandom::default()));
    assert_is_node1(&ok(read_key_pair(&protected, Some(&password))));
    assert_eq!(error(read_key_pair(&protected, None)), CantonFileError::PasswordNeeded);
    assert_eq!(error(read_key_pair(&protected, Some(&secret(b"correct horsf")))), CantonFileError::WrongPasswordOrDamaged);

    let none = KeyPairToWrite { usages: Usages::NONE, ..pair };
    assert!(matches!(error(write_key_pair(&none, CantonVersion::V3_6, None, &Counting::default())), CantonFileError::Usages(_)));
}

#[test]
fn the_password_file_is_opened() {
    let vector = &VECTORS["constructed"]["password_export"];
    let (file, password) = (from_hex(vector, "file_hex"), secret(text(vector, "password").as_bytes()));
    assert_is_node1(&ok(read_key_pair(&secret(&file), Some(&password))));
    assert_eq!(error(read_key_pair(&secret(&file), None)), CantonFileError::PasswordNeeded);
    assert_eq!(error(read_key_pair(&secret(&file), Some(&secret(b"")))), CantonFileError::PasswordNeeded);
    assert_eq!(error(read_key_pair(&secret(&file), Some(&secret(b"Hello world")))), CantonFileError::WrongPasswordOrDamaged);
    let too_long = secret(&vec![b'a'; MAX_PASSWORD + 1]);
    assert_eq!(error(read_key_pair(&secret(&file), Some(&too_long))), CantonFileError::PasswordTooLong);
    let mut damaged = file.clone();
    damaged[40] ^= 1;
    assert_eq!(error(read_key_pair(&secret(&damaged), Some(&password))), CantonFileError::WrongPasswordOrDamaged);

    // What is in it, by the derived key of the vector.
    let (salt, nonce) = (from_hex(vector, "salt_hex"), from_hex(vector, "nonce_hex"));
    let at = file.windows(12).position(|window| window == nonce).unwrap();
    let sealed = &file[at..file.len() - 2 - 4 - 18];
    let inner = open_aes128_gcm(&from_hex(vector, "derived_key_hex"), sealed);
    assert_eq!(hex(&inner), text(&VECTORS["constructed"]["key_pair_export"], "hex"));
    let protected = [&field(1, sealed)[..], &number(2, 1), &number(3, 1), &field(4, &salt)].concat();
    assert_eq!(hex(&versioned(&protected)), hex(&file));
}

#[test]
fn encryption_keys_are_written_and_read_in_every_form() {
    for (spec, number_of_spec, scheme_number) in [(KeySpec::EcP256, 1, 2), (KeySpec::Rsa2048, 2, 3)] {
        let scheme = scheme(spec, Purpose::Encryption).unwrap();
        let pkcs8 = ok(scheme.generate(&SystemRandom::default()));
        let key = ok(scheme.parse(&pkcs8));
        let public_key = key.public_key().unwrap();
        let id = fingerprint(spec, Purpose::Encryption, public_key);
        let pair = KeyPairToWrite { purpose: Purpose::Encryption, spec, usages: Usages::NONE, pkcs8: &pkcs8, public_key, fingerprint: id };
        let private = |format: u8, scheme: u8, spec: u8| -> Vec<u8> {
            let head = [&field(1, id.to_string().as_bytes())[..], &number(2, format), &field(3, pkcs8.expose())].concat();
            [head, if scheme == 0 { number(5, spec) } else { number(4, scheme) }.to_vec()].concat()
        };
        let forms: [Vec<u8>; 5] = [
            ok(write_key_pair(&pair, CantonVersion::V3_6, None, &SystemRandom::default())).expose().to_vec(),
            versioned(&field(2, &field(2, &private(5, 0, number_of_spec)))),
            versioned(&private(5, 0, number_of_spec)),
            field(2, &field(2, &private(5, 0, number_of_spec))),
            // Legacy: format DER, and the scheme in place of the spec.
            versioned(&field(2, &field(2, &private(2, scheme_number, 0)))),
        ];
        for form in &forms {
            let read = ok(read_key_pair(&secret(form), None));
            assert!(read.purpose == Purpose::Encryption && read.spec == spec && read.usages.is_empty());
            assert!(read.pkcs8.expose() == pkcs8.expose());
        }
        // A column with the scheme alone could be of either kind.
        assert!(matches!(error(read_key_pair(&secret(&versioned(&private(2, scheme_number, 0))), None)), CantonFileError::NotAKeyPair(_)));
    }
}

#[test]
fn legacy_and_odd_signing_keys() {
    let pkcs8 = from_hex(node1(), "pkcs8_hex");
    let file = |private: &[u8]| secret(&versioned(&field(1, &field(2, private))));
    // A raw seed, the scheme instead of the spec, no usages (which means all), and a wrong id.
    let raw = [&field(1, b"1220ff")[..], &number(2, 3), &field(3, &pkcs8[16..]), &number(4, 1)].concat();
    let read = ok(read_key_pair(&file(&raw), None));
    assert!(read.pkcs8.expose() == pkcs8 && read.spec == KeySpec::EcCurve25519);
    assert_eq!(read.usages, Usage::ALL.iter().copied().collect());

    let with = |format: u8, usage: &[u8], spec: u8| {
        file(&[&field(1, b"1220ff")[..], &number(2, format), &field(3, &pkcs8), &field(5, usage), &number(6, spec)].concat())
    };
    assert_is_node1(&ok(read_key_pair(&with(5, &[4], 1), None)));
    // Identity delegation is dropped on reading.
    assert_is_node1(&ok(read_key_pair(&with(5, &[2, 4, 5], 1), None)));
    let unsupported = |what, number, name| CantonFileError::Unsupported { what, number, name };
    assert_eq!(error(read_key_pair(&with(5, &[4], 5), None)), unsupported("signing key spec", 5, " (ML-DSA-65)"));
    assert_eq!(error(read_key_pair(&with(5, &[4], 9), None)), unsupported("signing key spec", 9, ""));
    assert_eq!(error(read_key_pair(&with(5, &[6], 1), None)), unsupported("signing key usage", 6, " (party JWT authentication)"));
    assert_eq!(error(read_key_pair(&with(1, &[4], 1), None)), unsupported("private key format", 1, ""));
    assert!(matches!(error(read_key_pair(&with(5, &[1, 5], 1), None)), CantonFileError::Usages(_)));
    assert!(matches!(error(read_key_pair(&with(5, &[4], 2), None)), CantonFileError::Key(CryptoError::BadKey(_))));

    let without_id = [&number(2, 5)[..], &field(3, &pkcs8), &field(5, &[4]), &number(6, 1)].concat();
    assert_eq!(error(read_key_pair(&file(&without_id), None)), CantonFileError::KeyId);

    // A public key that is another node's.
    let node2 = from_hex(&VECTORS["verified"]["ed25519_keypairs"][1], "signing_public_key_proto_hex");
    let mixed = [field(1, &node2), field(2, &from_hex(node1(), "signing_private_key_proto_hex"))].concat();
    assert_eq!(error(read_key_pair(&secret(&versioned(&field(1, &mixed))), None)), CantonFileError::PublicKeyMismatch);

    // The version of the wrapper is not read.
    let version_31 = [field(1, &field(1, &field(2, &raw))), number(2, 31).to_vec()].concat();
    assert!(read_key_pair(&secret(&version_31), None).is_ok());
    for nothing in [&b""[..], b"-----BEGIN PRIVATE KEY-----", &pkcs8, &versioned(b"")] {
        assert!(matches!(error(read_key_pair(&secret(nothing), None)), CantonFileError::NotAKeyPair(_)));
    }
    // A public key is no key pair.
    let public = from_hex(&VECTORS["constructed"]["public_key_download"], "hex");
    assert!(matches!(error(read_key_pair(&secret(&public), None)), CantonFileError::NotAKeyPair(_)));
    assert_eq!(public, versioned(&from_hex(node1(), "signing_public_key_proto_hex")));
}

#[test]
fn root_namespace_delegation() {
    let vector = &VECTORS["constructed"]["root_namespace_delegation"];
    let (id, spki) = (text(node1(), "fingerprint"), from_hex(node1(), "spki_hex"));
    let target = [&number(2, 4)[..], &field(3, &spki), &field(5, &[1]), &number(6, 1)].concat();
    let mapping = field(1, &[field(1, id.as_bytes()), field(2, &target), field(4, b"")].concat());
    let transaction = [&number(1, 1)[..], &number(2, 1), &field(3, &mapping)].concat();
    let prepared = versioned(&transaction);
    assert_eq!(hex(&prepared), text(vector, "prep_hex"));
    let hash = canton_hash(11, &prepared);
    assert_eq!(hex(&hash), text(vector, "hash_hex"));

    let key = ok(scheme(KeySpec::EcCurve25519, Purpose::Signing).unwrap().parse(&secret(&from_hex(node1(), "pkcs8_hex"))));
    let signature = key.sign(Algorithm::Ed25519, &hash).unwrap();
    assert_eq!(hex(&signature), text(vector, "signature_hex"));
    assert!(verify(Algorithm::Ed25519, &spki, &hash, &signature));

    let signed = [&number(1, 3)[..], &field(2, &signature), &field(3, id.as_bytes()), &number(4, 1)].concat();
    assert_eq!(hex(&versioned(&[field(1, &prepared), field(2, &signed)].concat())), text(vector, "cert_hex"));

    let multi = [&1_u32.to_be_bytes()[..], &34_u32.to_be_bytes(), &hash].concat();
    assert_eq!(hex(&canton_hash(55, &multi)), text(vector, "multi_hash_of_single"));
}

/// `nonce(12) ‖ ciphertext ‖ tag(16)` without additional data, as Canton's `JcePureCrypto` writes it.
fn open_aes128_gcm(key: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).unwrap());
    let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
    let mut in_out = rest.to_vec();
    key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut in_out).unwrap().to_vec()
}

/// MGF1 with SHA-256 (RFC 8017 §B.2.1), applied.
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, block) in (0_u32..).zip(bytes.chunks_mut(32)) {
        block.iter_mut().zip(sha256(&[seed, &counter.to_be_bytes()])).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// a · b mod n, big-endian and of one length, by doubling and adding.
fn multiply(a: &[u8], b: &[u8], n: &[u8]) -> Vec<u8> {
    // The carry out of the top, and the sum.
    fn add(a: &[u8], b: &[u8]) -> (bool, Vec<u8>) {
        let mut carry = 0_u16;
        let mut sum: Vec<u8> = Vec::with_capacity(a.len());
        for (a, b) in a.iter().zip(b).rev() {
            carry += u16::from(*a) + u16::from(*b);
            sum.push(carry.to_le_bytes()[0]);
            carry >>= 8;
        }
        sum.reverse();
        (carry != 0, sum)
    }
    fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut borrow = 0_i16;
        let mut difference: Vec<u8> = Vec::with_capacity(a.len());
        for (a, b) in a.iter().zip(b).rev() {
            borrow += i16::from(*a) - i16::from(*b);
            difference.push(borrow.to_le_bytes()[0]);
            borrow >>= 8;
        }
        difference.reverse();
        difference
    }
    let reduced = |(carry, sum): (bool, Vec<u8>)| if carry || sum.as_slice() >= n { subtract(&sum, n) } else { sum };
    let mut product = vec![0; n.len()];
    for bit in b.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        product = reduced(add(&product, &product));
        if bit == 1 {
            product = reduced(add(&product, a));
        }
    }
    product
}

/// Canton's deterministic sender (`SP800HashDRBGSecureRandom.scala`): NIST SP 800-90A `Hash_DRBG` with SHA-512.
struct CantonDrbg {
    seed: [u8; 32],
    v: Vec<u8>,
    c: Vec<u8>,
    count: u8,
}

fn canton_drbg(message: &[u8], fingerprint: &str) -> CantonDrbg {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let seed = sha256(&[&length, message, fingerprint.as_bytes()]);
    let derive = |parts: &[&[u8]]| -> Vec<u8> {
        let block = |counter: u8| {
            let head = Sha512::new().chain_update([counter]).chain_update(888_u32.to_be_bytes());
            parts.iter().fold(head, Digest::chain_update).finalize().to_vec()
        };
        (1..=2).flat_map(block).take(111).collect()
    };
    let v = derive(&[&seed]);
    let c = derive(&[&[0], &v]);
    CantonDrbg { seed, v, c, count: 1 }
}

impl CantonDrbg {
    fn draw(&mut self, length: usize) -> Vec<u8> {
        // Canton passes additional input that is empty but present, and so this step is always made.
        self.add(&self.hash(2));
        let drawn = Sha512::digest(&self.v)[..length].to_vec();
        self.add(&self.hash(3));
        self.add(&self.c.clone());
        self.add(&[self.count]);
        self.count += 1;
        drawn
    }

    fn hash(&self, prefix: u8) -> Vec<u8> {
        Sha512::new().chain_update([prefix]).chain_update(&self.v).finalize().to_vec()
    }

    fn add(&mut self, addend: &[u8]) {
        let mut carry = 0_u16;
        let padded = addend.iter().rev().copied().chain(std::iter::repeat(0));
        for (byte, addend) in self.v.iter_mut().rev().zip(padded) {
            carry += u16::from(*byte) + u16::from(addend);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
    }
}
