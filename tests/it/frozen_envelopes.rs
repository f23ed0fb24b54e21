//! One example of every version of a sealed key. It must open for ever, and any changed byte is refused.

use canton_keyvault::{
    crypto::{
        CryptoError, SystemRandom,
        envelope::{OpenError, commits, new_data_key, open, seal},
    },
    domain::{Class, EncryptionContext, KeyAttributes, KeySpec, Origin, Purpose, SealedKey, Usage, VaultId},
};
use proptest::prelude::*;

use crate::known_bytes::{Broken, Counting, error, hex, ok, secret, unhex};

/// Node 1 of the vectors.
const PKCS8: &str = "302e020100300506032b657004220420937dbd827c1cb4f740d709fd9efaf132c18664e3462ee8e91f5c203ab032a26c";

fn attributes() -> KeyAttributes {
    KeyAttributes {
        id: "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809".parse().unwrap(),
        node: "participant1".parse().unwrap(),
        purpose: Purpose::Signing,
        spec: KeySpec::EcCurve25519,
        usages: [Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect(),
        class: Class::LongTerm,
        origin: Origin::Imported,
        exportable: false,
    }
}

fn context() -> EncryptionContext {
    attributes().encryption_context(&"vault-1".parse::<VaultId>().unwrap())
}

/// Every context that differs in one fact.
fn other_contexts() -> Vec<EncryptionContext> {
    let changed = |change: fn(&mut KeyAttributes)| {
        let mut attributes = attributes();
        change(&mut attributes);
        attributes
    };
    let facts_of = [
        changed(|attributes| attributes.id = "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd808".parse().unwrap()),
        changed(|attributes| attributes.node = "participant2".parse().unwrap()),
        changed(|attributes| attributes.purpose = Purpose::Encryption),
        changed(|attributes| attributes.spec = KeySpec::EcP256),
        changed(|attributes| attributes.usages = [Usage::Protocol].into_iter().collect()),
        changed(|attributes| attributes.class = Class::Permanent),
        changed(|attributes| attributes.origin = Origin::Generated),
        changed(|attributes| attributes.exportable = true),
    ];
    let vault = "vault-1".parse().unwrap();
    let mut contexts: Vec<_> = facts_of.iter().map(|attributes| attributes.encryption_context(&vault)).collect();
    contexts.push(attributes().encryption_context(&"staging".parse().unwrap()));
    let version = context().canonical_bytes();
    assert_eq!(version[..5], [0, 0, 0, 1, b'1'], "the version of the context is bound first");
    contexts.push(EncryptionContext::new(vec![("version", "2".into())]));
    contexts
}

const VERSION_1: &str = concat!(
    "01000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fce6e75edf07b24a3ffbf4f43b77e01b99dafb0bb808dbde793a493",
    "99f9d45548d860d3e4632cbe4e395464ec2a17a34cc43360a9ededd523015d027c4fe7d7b762f0e6549b5beb94c3406cbcf91497d124da8f12c6a65d",
    "231509b126e6994cde"
);
const VERSION_1_ROW_TAG: &str = "e85b88b0d7d37cb3ebbb5fca514066c40423530cf2306e622a305e7727e6507e";

/// Sealed once by version 0.1.0 and by an independent implementation in Python (hmac, hashlib, cryptography).
#[test]
fn version_1_is_frozen() {
    let data_key = secret(&[0xd4; 32]);
    let (sealed, row_key) = ok(seal(&data_key, &secret(&unhex(PKCS8)), &context(), &Counting::default()));
    assert_eq!(hex(sealed.as_bytes()), VERSION_1);
    assert_eq!(hex(&row_key.tag(b"row")), VERSION_1_ROW_TAG);

    let stored = SealedKey::from_stored(unhex(VERSION_1));
    let opened = ok(open(&data_key, &stored, &context()));
    assert!(opened.material.expose() == unhex(PKCS8));
    let tag = opened.row_key.tag(b"row");
    assert_eq!(hex(&tag), VERSION_1_ROW_TAG);
    assert!(opened.row_key.verify(b"row", &tag) && !opened.row_key.verify(b"rows", &tag) && !opened.row_key.verify(b"row", &[0; 32]));
    assert!(commits(&data_key, &stored, &context()));
}

#[test]
fn another_data_key_or_another_fact_does_not_open() {
    let (data_key, stored) = (secret(&[0xd4; 32]), SealedKey::from_stored(unhex(VERSION_1)));
    let other = secret(&[0xd5; 32]);
    assert_eq!(error(open(&other, &stored, &context())), OpenError::Commitment);
    assert!(!commits(&other, &stored, &context()));
    for context in other_contexts() {
        assert_eq!(error(open(&data_key, &stored, &context)), OpenError::Commitment, "{context:?}");
        assert!(!commits(&data_key, &stored, &context));
    }
    for length in [0, 31, 33] {
        assert_eq!(error(open(&secret(&vec![0xd4; length]), &stored, &context())), OpenError::Malformed);
        assert!(matches!(error(seal(&secret(&vec![0; length]), &data_key, &context(), &Counting::default())), CryptoError::BadKey(_)));
    }
}

#[test]
fn every_bit_and_every_byte_of_the_sealed_form_counts() {
    let (data_key, good) = (secret(&[0xd4; 32]), unhex(VERSION_1));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let why = error(open(&data_key, &SealedKey::from_stored(bad), &context()));
        let expected = match bit / 8 {
            0 => OpenError::UnknownVersion,
            1..=64 => OpenError::Commitment,
            _ => OpenError::Sealed,
        };
        assert_eq!(why, expected, "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(open(&data_key, &SealedKey::from_stored(good[..length].to_vec()), &context()).is_err(), "{length} bytes");
    }
    assert_eq!(error(open(&data_key, &SealedKey::from_stored([&good[..], &[0]].concat()), &context())), OpenError::Sealed);
}

#[test]
fn nothing_is_sealed_without_randomness() {
    let data_key = secret(&[1; 32]);
    assert_eq!(error(seal(&data_key, &data_key, &context(), &Broken)), CryptoError::Faulty);
    assert_eq!(error(new_data_key(&Broken)), CryptoError::Faulty);
}

proptest! {
    #[test]
    fn every_sealed_key_opens_and_no_flipped_bit_does(
        material in proptest::collection::vec(any::<u8>(), 0..1300),
        attributes in proptest::collection::vec("[a-z0-9.-]{0,12}", 10),
        at in any::<proptest::sample::Index>(),
        fact in 0_usize..10,
    ) {
        let random = SystemRandom::default();
        let data_key = ok(new_data_key(&random));
        let of = |attributes: &[String]| EncryptionContext::new(attributes.iter().map(|fact| ("fact", fact.clone())).collect());
        let (sealed, row_key) = ok(seal(&data_key, &secret(&material), &of(&attributes), &random));
        let opened = ok(open(&data_key, &sealed, &of(&attributes)));
        prop_assert!(opened.material.expose() == material);
        prop_assert!(opened.row_key.verify(b"x", &row_key.tag(b"x")));

        let mut bad = sealed.as_bytes().to_vec();
        let bit = at.index(bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&data_key, &SealedKey::from_stored(bad), &of(&attributes)).is_err());

        let mut others = attributes.clone();
        others[fact].push('x');
        prop_assert!(!commits(&data_key, &sealed, &of(&others)));
        let (again, _) = ok(seal(&data_key, &secret(&material), &of(&attributes), &random));
        prop_assert!(again.as_bytes() != sealed.as_bytes());
    }
}
