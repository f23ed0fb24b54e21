//! Every topology transaction of `tests/vectors/canton-made.json` is decoded, described and hashed exactly as Canton does, or refused with the
//! reason that stands here. Nothing that Canton refuses is accepted.

use canton_keyvault::{
    domain::Algorithm,
    topology::{CantonHash, TopologyFault, TopologyTransaction, combined_hash, text, warnings},
};
use serde_json::Value;

use crate::{
    canton_made::{items, text as field},
    known_bytes::{hex, unbase64, unhex},
    support::verify::verify,
};

/// Transactions that Canton reads and the vault refuses, with the reason.
const STRICTER: [(&str, &str); 4] = [
    ("two-mappings-last-wins/", "Canton reads the last mapping only"),
    ("serial-twice/", "Canton reads the last serial only"),
    ("unknown-field-in-transaction/", "Canton skips the field, but the signature covers it"),
    ("party-to-participant-host-twice/", "Canton keeps the higher permission only"),
];

fn description(transaction: &TopologyTransaction) -> Value {
    serde_json::to_value(transaction.description()).unwrap()
}

fn check_signatures(item: &Value, hash: &CantonHash, multi: Option<&CantonHash>) -> usize {
    let signatures = item["signatures"].as_array().map_or(&[][..], Vec::as_slice);
    for signature in signatures {
        let signed = match field(signature, "over") {
            "transaction-hash" => hash,
            "multi-hash" => multi.unwrap(),
            other => panic!("{other}"),
        };
        let pair = items("key_pairs").iter().find(|pair| pair["name"] == signature["key"]).unwrap();
        let algorithm: Algorithm = field(signature, "algorithm").parse().unwrap();
        let spki = unhex(field(pair, "spki_hex"));
        assert!(verify(algorithm, &spki, signed.as_bytes(), &unhex(field(signature, "signature_hex"))), "{}", item["name"]);
    }
    signatures.len()
}

#[test]
fn transactions_are_described_and_hashed_as_by_canton() {
    let mut signatures = 0;
    for item in items("topology") {
        let name = field(item, "name");
        let transaction = TopologyTransaction::decode(&unbase64(field(item, "prep_b64"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(description(&transaction), item["description"], "{name}");
        assert_eq!(*transaction.fields(), item["proto"], "{name}");
        assert_eq!(transaction.hash().to_string(), field(item, "hash_hex"), "{name}");
        signatures += check_signatures(item, &transaction.hash(), None);
    }
    assert!(signatures >= items("topology").len() / 2, "{signatures}");
}

#[test]
fn odd_transactions_are_read_as_by_canton_or_refused() {
    for item in items("topology_odd") {
        let name = field(item, "name");
        let decoded = TopologyTransaction::decode(&unbase64(field(item, "prep_b64")));
        if item["canton_reads"] == false || STRICTER.iter().any(|(of, _)| name.starts_with(of)) {
            assert!(decoded.is_err(), "{name} must be refused");
            continue;
        }
        let transaction = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(description(&transaction), item["description"], "{name}");
        if item["hash_is_of_these_bytes"] == true {
            assert_eq!(transaction.hash().to_string(), field(item, "hash_hex"), "{name}");
        }
    }
}

/// The hash of a transaction of the file.
fn known(hash: &str) -> CantonHash {
    let multi = items("topology_multi").iter().flat_map(|item| item["transactions"].as_array().unwrap());
    let all = items("topology").iter().chain(multi);
    let found = all.map(|item| TopologyTransaction::decode(&unbase64(field(item, "prep_b64"))).unwrap().hash());
    found.into_iter().find(|found| found.to_string() == hash).unwrap()
}

#[test]
fn one_signature_covers_several_transactions() {
    for item in items("topology_multi") {
        let transactions = item["transactions"].as_array().unwrap();
        let decode = |one: &Value| TopologyTransaction::decode(&unbase64(field(one, "prep_b64"))).unwrap();
        let hashes: Vec<CantonHash> = transactions.iter().map(|one| decode(one).hash()).collect();
        // A signature can cover a transaction that does not stand in the item.
        let covered: Vec<CantonHash> =
            item["hashes_sorted_hex"].as_array().unwrap().iter().map(|hash| known(hash.as_str().unwrap())).collect();
        assert!(hashes.iter().all(|hash| covered.contains(hash)), "{}", item["name"]);
        let combined = combined_hash(&covered);
        assert_eq!(combined.to_string(), field(item, "combined_hash_hex"), "{}", item["name"]);
        assert_eq!(hex(combined.as_bytes()), field(item, "combined_hash_hex"));
        let mut reversed = covered.clone();
        reversed.reverse();
        assert_eq!(combined_hash(&reversed), combined);
        for (one, hash) in transactions.iter().zip(&hashes) {
            check_signatures(one, hash, Some(&combined));
        }
    }
}

/// A change of a byte is refused, or gives another hash. The text never fails.
#[test]
fn changed_and_cut_transactions_are_refused_or_have_another_hash() {
    for item in items("topology") {
        let prepared = unbase64(field(item, "prep_b64"));
        let original = TopologyTransaction::decode(&prepared).unwrap();
        for length in (0..prepared.len()).step_by(3) {
            assert!(TopologyTransaction::decode(&prepared[..length]).map_or(true, |cut| cut.hash() != original.hash()), "{}", item["name"]);
        }
        for (index, flip) in (0..prepared.len()).step_by(5).flat_map(|index| [1_u8, 0x80].map(|flip| (index, flip))) {
            let mut changed = prepared.clone();
            changed[index] ^= flip;
            if let Ok(transaction) = TopologyTransaction::decode(&changed) {
                assert_ne!(transaction.hash(), original.hash(), "{}", item["name"]);
                assert!(!text(&transaction, &[]).is_empty());
            }
        }
    }
}

/// Whatever stands at the end of a message of any depth is either shown or refused.
#[test]
fn an_unknown_field_is_refused_at_every_depth() {
    // Field 200, number 1.
    let unknown = [0xc0, 0x0c, 0x01];
    for item in items("topology") {
        let prepared = unbase64(field(item, "prep_b64"));
        let mut outer = prepared.clone();
        outer.extend_from_slice(&unknown);
        assert_eq!(TopologyTransaction::decode(&outer).unwrap_err().fault, TopologyFault::UnknownField(200), "{}", item["name"]);
        // In the transaction, which is field 1 of the wrapper, and in its mapping, which is the last field of the transaction.
        let (data, rest) = split(&prepared);
        let inner = [data, &unknown].concat();
        assert_eq!(
            TopologyTransaction::decode(&[&[0x0a][..], &length(inner.len()), &inner, rest].concat()).unwrap_err().fault,
            TopologyFault::UnknownField(200)
        );
    }
}

/// The content of a length-delimited field with a tag of one byte, and what follows it.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut size = 0;
    let mut at = 1;
    loop {
        size |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] < 0x80 {
            return bytes[at..].split_at(size);
        }
    }
}

fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

#[test]
fn the_text_names_what_is_dangerous() {
    let text_of = |name: &str| {
        let item = items("topology").iter().find(|item| field(item, "name").starts_with(name)).unwrap();
        let transaction = TopologyTransaction::decode(&unbase64(field(item, "prep_b64"))).unwrap();
        let reasons: Vec<String> = warnings(&transaction, &[]).iter().map(|warning| warning.reason.to_string()).collect();
        (text(&transaction, &[]).join("\n"), reasons)
    };
    let (text, reasons) = text_of("root-delegation-ec-curve25519/");
    assert!(text.contains("Hash to sign: 1220ea077350b80ae7b38a41d2e86e3d0df20226d2206cc570ffd968f20527e3e975"), "{text}");
    assert!(text.contains("all-mappings") && text.contains("WARNING (root-delegation)"), "{text}");
    assert_eq!(reasons, ["unknown-key", "root-delegation"]);
    for (name, reason) in [
        ("intermediate-all/", "full-delegation"),
        ("intermediate-removed/", "removal"),
        ("intermediate-replaced-serial-2/", "replacement"),
        ("owner-to-key-participant/", "complete-list"),
        ("synchronizer-parameters/", "synchronizer-change"),
        ("sequencer-successor-plain/", "no-tls"),
    ] {
        let (text, reasons) = text_of(name);
        assert!(reasons.iter().any(|found| found == reason), "{name}: {reasons:?}\n{text}");
    }
}
