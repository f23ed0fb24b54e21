//! A topology transaction is refused, or described with a hash of exactly its bytes. No input makes the decoder panic.
#![no_main]

use canton_keyvault::topology::{TopologyTransaction, text, warnings};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(transaction) = TopologyTransaction::decode(bytes) {
        let hash = Sha256::new().chain_update(11_u32.to_be_bytes()).chain_update(bytes).finalize();
        assert_eq!(transaction.hash().as_bytes()[2..], hash[..]);
        serde_json::to_value(transaction.description()).expect("a description is JSON");
        assert!(!text(&transaction, &[]).is_empty());
        assert!(transaction.summary().len() < 1024);
        warnings(&transaction, &[]);
    }
});
