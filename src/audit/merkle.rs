//! The Merkle tree over the log (RFC 6962 §2.1): appending, roots, proofs and their verification. Pure functions over 32-byte hashes.
//!
//! Leaf `i` is the hash of the entry with the sequence number `i + 1`. The root of every complete subtree of 256, 256², … leaves is stored, so that
//! an append costs one hash on average, and a root or a proof reads a few hundred hashes, however long the log is. The stored hashes are those of
//! the tiles of C2SP tlog-tiles.

use sha2::{Digest, Sha256};

/// A hash of the tree, SHA-256.
pub type Hash = [u8; 32];

/// Hashes in a tile, and entries in a bundle.
pub const TILE: u64 = 256;
/// Levels of the tree in a tile: 2^8 = 256.
const TILE_HEIGHT: u32 = 8;

/// RFC 6962 §2.1 node hash: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the empty tree: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A stored hash: the root of the complete subtree of 256^level leaves that begins at leaf `position` · 256^level. `level` is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileHash {
    /// The level of tiles, from 1.
    pub level: u32,
    /// The position in the level, from 0.
    pub position: u64,
    /// The hash.
    pub hash: Hash,
}

/// The right edge of a tree: the roots of its complete subtrees, largest first. It is all that an append needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree with `size` leaves and these roots, largest first. `None` if their number does not fit.
    pub fn of(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() as u64 == u64::from(size.count_ones())).then_some(Self { size, roots })
    }

    /// The roots of the complete subtrees, largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf. Calls `completed` for each hash to store: none for most leaves, one for each 256th, one more for each 65,536th.
    pub fn append(&mut self, leaf: Hash, mut completed: impl FnMut(TileHash)) {
        let (mut hash, mut height, mut rest) = (leaf, 0_u32, self.size);
        while rest & 1 == 1 {
            let Some(left) = self.roots.pop() else { break };
            hash = node_hash(&left, &hash);
            height += 1;
            rest >>= 1;
            if height % TILE_HEIGHT == 0 {
                completed(TileHash { level: height / TILE_HEIGHT, position: rest, hash });
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        fold(&self.roots)
    }
}

/// The root over complete subtrees, largest first.
fn fold(roots: &[Hash]) -> Hash {
    let mut roots = roots.iter().rev();
    let Some(last) = roots.next() else { return empty_root() };
    roots.fold(*last, |right, left| node_hash(left, &right))
}

/// Where hashes of a tree are stored.
pub trait HashReader {
    /// Why a hash cannot be read.
    type Error;

    /// The hashes of `level` at the positions `from` to `from + count - 1`. Level 0 are the leaves, and `count` is at most 256.
    ///
    /// # Errors
    /// If a hash cannot be read or is missing.
    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, Self::Error>;

    /// The root of the complete subtree of 2^`height` leaves with this index in its height.
    ///
    /// # Errors
    /// As [`HashReader::hashes`].
    fn node(&self, height: u32, index: u64) -> Result<Hash, Self::Error> {
        let below = height % TILE_HEIGHT;
        let mut hashes = self.hashes(height / TILE_HEIGHT, index << below, 1 << below)?;
        while hashes.len() > 1 {
            hashes = level_above(&hashes);
        }
        Ok(hashes.first().copied().unwrap_or_else(empty_root))
    }
}

/// The nodes over neighbours.
fn level_above(hashes: &[Hash]) -> Vec<Hash> {
    hashes.chunks(2).map(|pair| if let [left, right] = pair { node_hash(left, right) } else { empty_root() }).collect()
}

/// The height and the index of a node, and its hash.
pub type PlacedHash = ((u32, u64), Hash);

/// A node and all nodes below it down to the stored hashes, each with its height and index.
///
/// # Errors
/// Those of the reader.
pub fn nodes_below<R: HashReader>(reader: &R, height: u32, index: u64) -> Result<Vec<PlacedHash>, R::Error> {
    let below = height % TILE_HEIGHT;
    let mut hashes = reader.hashes(height / TILE_HEIGHT, index << below, 1 << below)?;
    let (mut at, mut nodes) = (height - below, Vec::with_capacity(2 << below));
    loop {
        nodes.extend((index << (height - at)..).zip(&hashes).map(|(index, hash)| ((at, index), *hash)));
        if at == height {
            return Ok(nodes);
        }
        (at, hashes) = (at + 1, level_above(&hashes));
    }
}

/// The roots of the complete subtrees that make the leaves `from` to `to - 1`, largest first. `from` is a multiple of the largest.
fn complete_subtrees<R: HashReader>(reader: &R, from: u64, to: u64) -> Result<Vec<Hash>, R::Error> {
    let (mut at, mut roots) = (from, Vec::new());
    while at < to {
        let height = (to - at).ilog2();
        roots.push(reader.node(height, at >> height)?);
        at += 1 << height;
    }
    Ok(roots)
}

/// The right edge of the tree with the first `size` leaves.
///
/// # Errors
/// Those of the reader.
pub fn frontier<R: HashReader>(reader: &R, size: u64) -> Result<Frontier, R::Error> {
    Ok(Frontier { size, roots: complete_subtrees(reader, 0, size)? })
}

/// The hash of the leaves `from` to `to - 1`, a subtree of the recursion in RFC 6962.
fn subtree<R: HashReader>(reader: &R, from: u64, to: u64) -> Result<Hash, R::Error> {
    Ok(fold(&complete_subtrees(reader, from, to)?))
}

/// The root of the tree with the first `size` leaves.
///
/// # Errors
/// Those of the reader.
pub fn root<R: HashReader>(reader: &R, size: u64) -> Result<Hash, R::Error> {
    subtree(reader, 0, size)
}

/// The largest power of two below `count`, which is at least 2.
const fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The inclusion proof of a leaf in the tree with the first `size` leaves (RFC 6962 §2.1.1), from the leaf to the root. Empty if there is no such
/// leaf.
///
/// # Errors
/// Those of the reader.
pub fn inclusion_proof<R: HashReader>(reader: &R, leaf: u64, size: u64) -> Result<Vec<Hash>, R::Error> {
    let (mut from, mut to, mut proof) = (0, size, Vec::new());
    while leaf < size && to - from > 1 {
        let middle = from + split(to - from);
        if leaf < middle {
            proof.push(subtree(reader, middle, to)?);
            to = middle;
        } else {
            proof.push(subtree(reader, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The consistency proof between the trees with the first `old` and the first `size` leaves (RFC 6962 §2.1.2). Empty if `old` is 0, `size`, or larger.
///
/// # Errors
/// Those of the reader.
pub fn consistency_proof<R: HashReader>(reader: &R, old: u64, size: u64) -> Result<Vec<Hash>, R::Error> {
    if old == 0 || old >= size {
        return Ok(Vec::new());
    }
    let (mut from, mut to, mut proof) = (0, size, Vec::new());
    // Ends where the old tree ends with a complete subtree of this recursion.
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(subtree(reader, middle, to)?);
            to = middle;
        } else {
            proof.push(subtree(reader, from, middle)?);
            from = middle;
        }
    }
    if from != 0 {
        proof.push(subtree(reader, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether the proof shows that the tree of `size` leaves with this root has this leaf at this place (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(proof: &[Hash], place: u64, leaf: Hash, size: u64, root: &Hash) -> bool {
    if place >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (place, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the proof shows that the tree of `old` leaves is the beginning of the tree of `size` leaves (RFC 9162 §2.1.4.2).
pub fn verify_consistency(proof: &[Hash], old: u64, old_root: &Hash, size: u64, root: &Hash) -> bool {
    if old > size || (old == 0 && *old_root != empty_root()) {
        return false;
    }
    if old == size || old == 0 {
        return proof.is_empty() && (old == 0 || old_root == root);
    }
    // A complete old tree is not repeated in the proof.
    let (first, rest) = match proof {
        _ if old.is_power_of_two() => (old_root, proof),
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut of_old, mut of_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            of_old = node_hash(sibling, &of_old);
            of_new = node_hash(sibling, &of_new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node_hash(&of_new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *root
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test has few leaves")]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::{audit::leaf_hash, domain::Hex};

    /// A tree in memory, as the store keeps it.
    #[derive(Default)]
    struct Tree {
        leaves: Vec<Hash>,
        levels: Vec<Vec<Hash>>,
        frontier: Frontier,
    }

    impl Tree {
        fn of(leaves: impl IntoIterator<Item = Hash>) -> Self {
            let mut tree = Self::default();
            for leaf in leaves {
                tree.leaves.push(leaf);
                let levels = &mut tree.levels;
                tree.frontier.append(leaf, |completed| {
                    let level = completed.level as usize - 1;
                    if levels.len() == level {
                        levels.push(Vec::new());
                    }
                    assert_eq!(levels[level].len() as u64, completed.position);
                    levels[level].push(completed.hash);
                });
            }
            tree
        }

        fn with(size: u64) -> Self {
            Self::of((0..size).map(|number| leaf_hash(&number.to_be_bytes())))
        }
    }

    impl HashReader for Tree {
        type Error = Infallible;

        fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, Infallible> {
            assert!(count <= TILE);
            let all = if level == 0 { &self.leaves } else { &self.levels[level as usize - 1] };
            Ok(all[from as usize..(from + count) as usize].to_vec())
        }
    }

    /// RFC 6962 §2.1 word for word.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    /// The eight leaves and the roots of the reference implementation of RFC 6962 (Google's `certificate-transparency`, `merkle_tree_test`).
    #[test]
    fn known_roots() {
        let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let leaves = leaves.map(|hex| leaf_hash(&base16ct::lower::decode_vec(hex).unwrap()));
        let tree = Tree::of(leaves);
        let root_of = |size| Hex(&root(&tree, size).unwrap()).to_string();
        assert_eq!(root_of(0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(root_of(1), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(root_of(2), "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
        assert_eq!(root_of(3), "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
        assert_eq!(root_of(8), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn roots_of_all_sizes_are_those_of_the_rfc() {
        let tree = Tree::with(700);
        for size in 0..=700 {
            let expected = mth(&tree.leaves[..size as usize]);
            assert_eq!(root(&tree, size).unwrap(), expected, "{size}");
            assert_eq!(frontier(&tree, size).unwrap().root(), expected, "{size}");
        }
        assert_eq!(frontier(&tree, 700).unwrap(), tree.frontier);
        let two_levels = Tree::with(70_000);
        assert_eq!((two_levels.levels[0].len(), two_levels.levels[1].len()), (273, 1));
        assert_eq!(root(&two_levels, 66_000).unwrap(), mth(&two_levels.leaves[..66_000]));
    }

    #[test]
    fn each_proof_is_valid_for_its_place_alone() {
        let tree = Tree::with(70);
        for size in 1..=70 {
            let all = root(&tree, size).unwrap();
            for place in 0..size {
                let proof = inclusion_proof(&tree, place, size).unwrap();
                let leaf = tree.leaves[place as usize];
                assert!(verify_inclusion(&proof, place, leaf, size, &all), "{place} of {size}");
                assert!(!verify_inclusion(&proof, place, [7; 32], size, &all));
                assert!(!verify_inclusion(&proof, place + 1, leaf, size, &all), "{place} of {size}");
                assert!(!verify_inclusion(&proof, place, leaf, size, &[7; 32]));
            }
            for old in 0..=size {
                let proof = consistency_proof(&tree, old, size).unwrap();
                let before = root(&tree, old).unwrap();
                assert!(verify_consistency(&proof, old, &before, size, &all), "{old} to {size}");
                if old > 0 {
                    assert!(!verify_consistency(&proof, old, &[7; 32], size, &all), "{old} to {size}");
                    assert!(!verify_consistency(&proof, old, &before, size, &[7; 32]), "{old} to {size}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_is_refused(size in 2_u64..600, place in 0_u64..600, change in any::<(prop::sample::Index, u8)>()) {
            let tree = Tree::with(size);
            let (place, all) = (place % size, root(&tree, size).unwrap());
            let mut proof = inclusion_proof(&tree, place, size).unwrap();
            change.0.get_mut(&mut proof)[usize::from(change.1 % 32)] ^= 1 | change.1;
            prop_assert!(!verify_inclusion(&proof, place, tree.leaves[place as usize], size, &all));
            let old = place.max(1);
            let mut proof = consistency_proof(&tree, old, size).unwrap();
            if !proof.is_empty() {
                change.0.get_mut(&mut proof)[usize::from(change.1 % 32)] ^= 1 | change.1;
                prop_assert!(!verify_consistency(&proof, old, &root(&tree, old).unwrap(), size, &all));
            }
        }
    }
}
