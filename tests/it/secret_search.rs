//! Private keys that a test knows, and a search for them in memory or on a disk.

use std::collections::HashMap;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    crypto::{
        SecretBytes, SystemRandom,
        canton::{CantonVersion, KeyPairToWrite, write_key_pair},
        fingerprint, scheme,
    },
    domain::{KeySpec, Purpose, Usage},
};
use serde_json::{Value, json};

use crate::known_bytes::ok;

/// A private key outside the vault.
pub(crate) struct KnownKey {
    pub(crate) spec: KeySpec,
    pub(crate) purpose: Purpose,
    /// Canonical PKCS#8, or 32 raw bytes.
    pub(crate) material: Vec<u8>,
    /// The body that imports it.
    pub(crate) import: Value,
    /// Other texts in that body that must not be found.
    secret_texts: Vec<String>,
}

/// The password of the one key that comes in a protected Canton file.
const PASSWORD: &str = "Tr0ub4dor&3-correct-horse-battery-staple";

/// A key of every spec and purpose, all of them new, and an Ed25519 key in a Canton file with a password.
pub(crate) fn known_keys() -> Vec<KnownKey> {
    let pairs = [
        (KeySpec::EcCurve25519, Purpose::Signing),
        (KeySpec::EcP256, Purpose::Signing),
        (KeySpec::EcP384, Purpose::Signing),
        (KeySpec::EcSecp256k1, Purpose::Signing),
        (KeySpec::EcP256, Purpose::Encryption),
        (KeySpec::Rsa2048, Purpose::Encryption),
        (KeySpec::Aes256, Purpose::Symmetric),
    ];
    let mut keys: Vec<_> = pairs.into_iter().map(|(spec, purpose)| known_key(spec, purpose)).collect();
    keys.push(in_canton_file(known_key(KeySpec::EcCurve25519, Purpose::Signing)));
    keys
}

pub(crate) fn known_key(spec: KeySpec, purpose: Purpose) -> KnownKey {
    let material = ok(scheme(spec, purpose).unwrap().generate(&SystemRandom::default())).expose().to_vec();
    let format = if purpose == Purpose::Symmetric { "raw" } else { "pkcs8" };
    let import = json!({ "node": "participant1", "format": format, "material": STANDARD.encode(&material), "purpose": purpose.as_str() });
    KnownKey { spec, purpose, material, import, secret_texts: Vec::new() }
}

fn in_canton_file(key: KnownKey) -> KnownKey {
    let pkcs8 = SecretBytes::copy_of(&key.material);
    let parsed = ok(scheme(key.spec, key.purpose).unwrap().parse(&pkcs8));
    let public_key = parsed.public_key().unwrap();
    let pair = KeyPairToWrite {
        purpose: key.purpose,
        spec: key.spec,
        usages: [Usage::Protocol].into_iter().collect(),
        pkcs8: &pkcs8,
        public_key,
        fingerprint: fingerprint(key.spec, key.purpose, public_key),
    };
    let file = ok(write_key_pair(&pair, CantonVersion::V3_6, Some(&SecretBytes::copy_of(PASSWORD.as_bytes())), &SystemRandom::default()));
    let file = STANDARD.encode(file.expose());
    let import = json!({ "node": "participant1", "format": "canton-key-pair", "material": file, "password": PASSWORD });
    KnownKey { import, secret_texts: vec![PASSWORD.into(), file], ..key }
}

/// What to look for: every aligned run of so many bytes of a secret, forwards and backwards, and of its base64.
const RUN: usize = 16;

const PAGE: usize = 4096;

/// The name under which a key's runs are found.
pub(crate) fn key_name(number: usize, key: &KnownKey) -> String {
    format!("key {number}, {} {}", key.spec, key.purpose)
}

/// Where each run came from.
#[derive(Default)]
pub(crate) struct Patterns {
    /// By their first bytes, of which a bit map tells at once that they are not.
    runs: HashMap<[u8; 8], Vec<(Vec<u8>, String)>>,
    first: Vec<bool>,
}

impl Patterns {
    /// All forms of these keys.
    pub(crate) fn of<'k>(keys: impl IntoIterator<Item = &'k KnownKey>) -> Self {
        let mut patterns = Self { runs: HashMap::new(), first: vec![false; 1 << 16] };
        for (number, key) in keys.into_iter().enumerate() {
            patterns.add(&key_name(number, key), key);
        }
        patterns
    }

    /// The search itself needs to be seen finding something: a text that is no secret.
    pub(crate) fn of_text(text: &str) -> Self {
        let mut patterns = Self { runs: HashMap::new(), first: vec![false; 1 << 16] };
        patterns.runs_of("control", text.as_bytes(), 4);
        patterns
    }

    fn add(&mut self, name: &str, key: &KnownKey) {
        let pieces = if key.purpose == Purpose::Symmetric { vec![(0, key.material.clone())] } else { secret_pieces(&key.material) };
        assert!(!pieces.is_empty());
        for (number, (offset, piece)) in pieces.iter().enumerate() {
            let name = format!("{name}, secret {number}");
            self.runs_of(&name, piece, 8);
            self.runs_of(&format!("{name} backwards"), &piece.iter().rev().copied().collect::<Vec<_>>(), 8);
            // Only the part of the text that no public byte went into.
            let text = STANDARD.encode(&key.material);
            self.runs_of(&format!("{name} in base64"), &text.as_bytes()[offset.div_ceil(3) * 4..(offset + piece.len()) / 3 * 4], 4);
            if key.spec == KeySpec::EcCurve25519 {
                // RFC 8032 §5.1.5: the scalar, before and after clamping, and the prefix.
                let mut expanded = digest::digest(&digest::SHA512, piece).as_ref().to_vec();
                self.runs_of(&format!("{name} expanded"), &expanded, 8);
                expanded[0] &= 0b1111_1000;
                expanded[31] = expanded[31] & 127 | 64;
                self.runs_of(&format!("{name} scalar"), &expanded, 8);
            }
        }
        for text in &key.secret_texts {
            self.runs_of(&format!("{name} text {}…", &text[..4]), text.as_bytes(), 4);
            self.runs_of(&format!("{name} text in base64"), STANDARD.encode(text).as_bytes(), 4);
        }
    }

    fn runs_of(&mut self, name: &str, secret: &[u8], step: usize) {
        for (number, run) in secret.windows(RUN).step_by(step).enumerate() {
            let start: [u8; 8] = run[..8].try_into().unwrap();
            self.first[usize::from(start[0]) << 8 | usize::from(start[1])] = true;
            self.runs.entry(start).or_default().push((run.to_vec(), format!("{name} run {number}")));
        }
    }

    /// The runs that are in these bytes, and their positions.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (page, start) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
            // Most memory was never touched; no run is of zeros alone.
            if page == &[0; PAGE][..page.len()] && bytes.get(start + PAGE).is_none_or(|next| *next == 0) {
                continue;
            }
            let mut before = page[0];
            for (at, byte) in page.iter().chain(bytes.get(start + PAGE)).enumerate().skip(1) {
                let pair = usize::from(before) << 8 | usize::from(*byte);
                before = *byte;
                if self.first[pair] {
                    self.look_at(bytes, start + at - 1, &mut found);
                }
            }
        }
        found
    }

    fn look_at(&self, bytes: &[u8], at: usize, found: &mut Vec<(usize, String)>) {
        let rest = &bytes[at..];
        let Some(candidates) = rest.first_chunk::<8>().and_then(|start| self.runs.get(start)) else { return };
        found.extend(candidates.iter().filter(|(run, _)| rest.starts_with(run)).map(|(_, name)| (at, name.clone())));
    }
}

/// The secret integers and octet strings of a PKCS#8 structure, with their places: not the RSA modulus and exponent.
fn secret_pieces(pkcs8: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut pieces = Vec::new();
    walk(pkcs8, 0, &mut pieces);
    if pieces.len() > 3 {
        // RFC 8017 A.1.2: the first long integer is the modulus, which is public.
        pieces.remove(0);
    }
    pieces
}

/// Collects primitive INTEGERs and OCTET STRINGs of 24 bytes and more, below SEQUENCEs and OCTET STRINGs that hold DER themselves.
fn walk(mut der: &[u8], mut offset: usize, pieces: &mut Vec<(usize, Vec<u8>)>) -> bool {
    let before = pieces.len();
    while let [tag, length, rest @ ..] = der {
        let (head, length, rest) = match *length {
            0x81 if !rest.is_empty() => (3, usize::from(rest[0]), &rest[1..]),
            0x82 if rest.len() > 1 => (4, usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
            short if short < 0x80 => (2, usize::from(short), rest),
            _ => return undo(before, pieces),
        };
        let Some((content, after)) = rest.split_at_checked(length) else { return undo(before, pieces) };
        let inside = offset + head;
        // One random secret in some hundreds looks like DER by itself, with nothing in it.
        let found = pieces.len();
        let nested = matches!(*tag, 0x30 | 0x04) && walk(content, inside, pieces) && pieces.len() > found;
        if !nested && matches!(*tag, 0x02 | 0x04) && length >= 24 {
            let zeros = content.iter().take_while(|byte| **byte == 0).count();
            pieces.push((inside + zeros, content[zeros..].to_vec()));
        }
        (der, offset) = (after, inside + length);
    }
    if der.is_empty() { true } else { undo(before, pieces) }
}

fn undo(before: usize, pieces: &mut Vec<(usize, Vec<u8>)>) -> bool {
    pieces.truncate(before);
    false
}

#[test]
fn the_search_finds_every_form_and_nothing_in_noise() {
    let keys = known_keys();
    let patterns = Patterns::of(&keys);
    let pieces: Vec<usize> = keys.iter().map(|key| secret_pieces(&key.material).len()).collect();
    assert_eq!(pieces, [1, 1, 1, 1, 1, 6, 0, 1], "d, p, q, dp, dq, qinv of RSA; one secret of the others");
    for key in &keys {
        assert!(!patterns.find(&[b"noise".as_slice(), &key.material, b"noise"].concat()).is_empty());
        let backwards: Vec<u8> = key.material.iter().rev().copied().collect();
        assert!(!patterns.find(&backwards).is_empty());
        assert!(!patterns.find(key.import.to_string().as_bytes()).is_empty());
    }
    let noise: Vec<u8> = (0..1_u32 << 20).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_be_bytes()).collect();
    assert_eq!(patterns.find(&noise), []);
}
