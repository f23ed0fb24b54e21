//! Every key file, password file, private key row, ciphertext and signature of `tests/vectors/canton-made.json`, which Canton's own classes
//! wrote, is read and reproduced, or refused with the reason that stands here. `topology_vectors.rs` has the topology transactions.

use std::sync::LazyLock;

use crate::{
    known_bytes::{ok, secret, unbase64, unhex},
    support::verify::verify,
};
use canton_keyvault::{
    crypto::{
        PrivateKey, SystemRandom,
        canton::{CantonVersion, KeyPairToWrite, PublicKeyMessage, read_key_pair, read_private_key_row, read_public_key, write_key_pair},
        fingerprint, read_pkcs8, scheme,
    },
    domain::{Algorithm, KeySpec, Purpose, Usages},
};
use serde_json::Value;

pub(crate) static MADE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../vectors/canton-made.json")).unwrap());

/// Files that Canton reads and the vault refuses, with the reason.
const STRICTER_KEY_FILES: [(&str, &str); 2] = [
    ("both-kinds-last-is-encryption/", "a file with two keys is ambiguous: Canton imports the last one"),
    ("ec-pkcs8-public-key-of-another/", "a public key that belongs to another private key shows a mistake or an attack"),
];

pub(crate) fn items(group: &str) -> &'static [Value] {
    let items = MADE[group].as_array().unwrap_or_else(|| panic!("no group {group}"));
    assert!(!items.is_empty(), "{group}");
    items
}

pub(crate) fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_else(|| panic!("no text {field} in {}", item["name"]))
}

fn usages(item: &Value) -> Usages {
    item["usage"].as_array().map_or(Usages::NONE, |words| words.iter().map(|word| word.as_str().unwrap().parse().unwrap()).collect())
}

fn purpose(item: &Value) -> Purpose {
    text(item, "purpose").parse().unwrap()
}

/// The private key of an item, parsed by its scheme.
fn private_key(name: &str) -> Box<dyn PrivateKey> {
    let pair = items("key_pairs").iter().find(|pair| pair["name"] == name).unwrap_or_else(|| panic!("no key pair {name}"));
    let (spec, pkcs8) = ok(read_pkcs8(None, Some(purpose(pair)), &secret(&unhex(text(pair, "pkcs8_hex")))));
    ok(scheme(spec, purpose(pair)).unwrap().parse(&pkcs8))
}

#[test]
fn key_pairs_are_read_and_written_byte_for_byte() {
    for item in items("key_pairs") {
        let name = text(item, "name");
        let (pkcs8, spki) = (secret(&unhex(text(item, "pkcs8_hex"))), unhex(text(item, "spki_hex")));
        let (spec, purpose): (KeySpec, Purpose) = (text(item, "spec").parse().unwrap(), purpose(item));
        let (read_spec, canonical) = ok(read_pkcs8(Some(spec), Some(purpose), &pkcs8));
        assert!(read_spec == spec && canonical.expose() == pkcs8.expose(), "{name}: the canonical form is Canton's");
        let id = fingerprint(spec, purpose, &spki);
        assert_eq!(id.to_string(), text(item, "fingerprint"), "{name}");

        let password = secret(text(item, "password").as_bytes());
        let files = ["export_b64", "export_3_3_b64", "password_export_b64", "legacy_export_b64", "legacy_scheme_export_b64"];
        for file in files.into_iter().filter(|file| item[file].is_string()) {
            let protected = (file == "password_export_b64").then_some(&password);
            let read = ok(read_key_pair(&secret(&unbase64(text(item, file))), protected));
            assert!(read.purpose == purpose && read.spec == spec && read.pkcs8.expose() == pkcs8.expose(), "{name} {file}");
            assert_eq!(read.usages, usages(item), "{name} {file}");
        }
        let pair = KeyPairToWrite { purpose, spec, usages: usages(item), pkcs8: &pkcs8, public_key: &spki, fingerprint: id };
        for (version, file) in [
            (CantonVersion::V3_3, "export_3_3_b64"),
            (CantonVersion::V3_4, "export_b64"),
            (CantonVersion::V3_5, "export_b64"),
            (CantonVersion::V3_6, "export_b64"),
        ] {
            let written = ok(write_key_pair(&pair, version, None, &SystemRandom::default()));
            assert_eq!(written.expose(), unbase64(text(item, file)), "{name} for {version}");
        }
        let protected = ok(write_key_pair(&pair, CantonVersion::V3_6, Some(&password), &SystemRandom::default()));
        assert_eq!(protected.expose().len(), unbase64(text(item, "password_export_b64")).len(), "{name}");
        assert!(ok(read_key_pair(&protected, Some(&password))).pkcs8.expose() == pkcs8.expose(), "{name}");
    }
}

#[test]
fn odd_key_files_are_read_as_canton_reads_them_or_refused() {
    for item in items("key_file_checks") {
        let name = text(item, "name");
        let read = read_key_pair(&secret(&unbase64(text(item, "file_b64"))), None);
        let stricter = STRICTER_KEY_FILES.iter().any(|(of, _)| name.starts_with(of));
        if item["canton_reads"] == false || stricter {
            assert!(read.is_err(), "{name} must be refused");
            continue;
        }
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.purpose, purpose(item), "{name}");
        assert_eq!(read.usages, usages(item), "{name}");
        let key = ok(scheme(read.spec, read.purpose).unwrap().parse(&read.pkcs8));
        assert_eq!(key.public_key().unwrap(), unhex(text(item, "spki_hex")), "{name}");
        assert_eq!(fingerprint(read.spec, read.purpose, key.public_key().unwrap()).to_string(), text(item, "fingerprint"), "{name}");
    }
}

#[test]
fn odd_password_files_are_read_as_canton_reads_them() {
    for item in items("password_file_checks") {
        let password = secret(text(item, "password").as_bytes());
        let read = read_key_pair(&secret(&unbase64(text(item, "file_b64"))), Some(&password));
        assert_eq!(read.is_ok(), item["canton_reads"] == true, "{}", text(item, "name"));
    }
}

#[test]
fn rows_of_the_private_key_store_are_read() {
    for item in items("private_key_rows") {
        let name = text(item, "name");
        let purpose = if item["purpose"] == 0 { Purpose::Signing } else { Purpose::Encryption };
        let plain = item["plain_b64"].as_str().unwrap_or_else(|| text(item, "data_b64"));
        let read = ok(read_private_key_row(&secret(&unbase64(plain)), purpose));
        let key = ok(scheme(read.spec, purpose).unwrap().parse(&read.pkcs8));
        assert_eq!(fingerprint(read.spec, purpose, key.public_key().unwrap()).to_string(), text(item, "key_id"), "{name}");
        let other = if purpose == Purpose::Signing { Purpose::Encryption } else { Purpose::Signing };
        assert!(read_private_key_row(&secret(&unbase64(plain)), other).is_err(), "{name}: as a key of the other purpose");
        if plain != text(item, "data_b64") {
            assert!(read_private_key_row(&secret(&unbase64(text(item, "data_b64"))), purpose).is_err(), "{name}: still encrypted");
        }
    }
}

#[test]
fn ciphertexts_of_canton_are_decrypted() {
    for item in items("ciphertexts") {
        let algorithm: Algorithm = text(item, "algorithm").parse().unwrap();
        let plaintext = ok(private_key(text(item, "key")).decrypt(algorithm, &unbase64(text(item, "ciphertext_b64")), b""));
        assert!(plaintext.expose() == unhex(text(item, "plaintext_hex")), "{}", text(item, "name"));
    }
}

/// The vault gets the bytes of a ciphertext, not the message that names the recipient. Whether that is the right one, Canton checks.
#[test]
fn odd_ciphertexts_are_decrypted_or_refused_as_by_canton() {
    for item in items("ciphertext_checks").iter().filter(|item| item["canton_error"] != "DecryptionWithWrongKey") {
        let name = text(item, "name");
        let algorithm: Algorithm = text(item, "algorithm").parse().unwrap();
        let plaintext = private_key(text(item, "key")).decrypt(algorithm, &unbase64(text(item, "ciphertext_b64")), b"");
        match item["plaintext_hex"].as_str() {
            Some(expected) => assert!(plaintext.unwrap_or_else(|error| panic!("{name}: {error}")).expose() == unhex(expected), "{name}"),
            None => assert!(plaintext.is_err(), "{name}"),
        }
    }
}

#[test]
fn signatures_of_canton_verify_and_ed25519_is_the_same() {
    for item in items("signatures") {
        let name = text(item, "name");
        let algorithm: Algorithm = text(item, "algorithm").parse().unwrap();
        let (message, signature) = (unbase64(text(item, "message_b64")), unhex(text(item, "signature_hex")));
        assert!(verify(algorithm, &unhex(text(item, "spki_hex")), &message, &signature), "{name}");
        let ours = ok(private_key(text(item, "key")).sign(algorithm, &message));
        assert!(verify(algorithm, &unhex(text(item, "spki_hex")), &message, &ours), "{name}");
        if algorithm == Algorithm::Ed25519 {
            assert_eq!(ours, signature, "{name}");
        }
    }
    for item in items("delegations") {
        let algorithm: Algorithm = text(item, "name").split('/').next().unwrap().parse().unwrap();
        let (hash, signature) = (unhex(text(item, "delegation_hash_hex")), unhex(text(&item["delegation_signature"], "signature_hex")));
        assert!(verify(algorithm, &unhex(text(item, "long_term_spki_hex")), &hash, &signature), "{}", text(item, "name"));
    }
}

/// Public keys that Canton reads and the vault refuses, with the reason.
const STRICTER_PUBLIC_KEYS: [(&str, &str); 1] =
    [("p256-explicit-parameters/", "explicit curve parameters are an attack surface (CVE-2020-0601), and Canton never writes them")];

#[test]
fn public_keys_are_read_as_canton_reads_them_or_refused() {
    for item in items("public_key_checks") {
        let name = text(item, "name");
        let (purpose, spec) = text(item, "as").split_once(' ').unwrap();
        let purpose: Purpose = purpose.parse().unwrap();
        let key_spec = match (purpose, spec) {
            (Purpose::Signing, "ec-curve25519") | (Purpose::Encryption, "ec-p256") => 1,
            (Purpose::Signing, "ec-p256") | (Purpose::Encryption, "rsa-2048") => 2,
            (_, "ec-p384") => 3,
            (_, "ec-secp256k1") => 4,
            other => panic!("{other:?}"),
        };
        let format = match text(item, "format") {
            "CRYPTO_KEY_FORMAT_DER" => 2,
            "CRYPTO_KEY_FORMAT_RAW" => 3,
            "CRYPTO_KEY_FORMAT_DER_X509_SUBJECT_PUBLIC_KEY_INFO" => 4,
            other => panic!("{other}"),
        };
        let bytes = unhex(text(item, "public_key_hex"));
        let read = read_public_key(&PublicKeyMessage { purpose, format, bytes: &bytes, scheme: 0, key_spec });
        let stricter = STRICTER_PUBLIC_KEYS.iter().any(|(of, _)| name.starts_with(of));
        if item["canton_accepts"] == false || stricter {
            assert!(read.is_err(), "{name} must be refused");
        } else {
            assert_eq!(read.unwrap_or_else(|error| panic!("{name}: {error}")).fingerprint.to_string(), text(item, "fingerprint"), "{name}");
        }
    }
}
