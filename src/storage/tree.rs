//! Questions about the Merkle tree over the log, from any store that reads its hashes.

use std::{cell::RefCell, collections::HashMap};

use super::{StoreError, TreeQuery};
use crate::audit::merkle::{self, Hash, HashReader, TILE};

/// Answers a query over the entries of the log.
pub(super) fn query<T: HashReader<Error = StoreError>>(tree: &T, query: TreeQuery) -> Result<Vec<Hash>, StoreError> {
    match query {
        TreeQuery::Root { size } => Ok(vec![merkle::root(tree, size)?]),
        TreeQuery::Inclusion { leaf, size } => merkle::inclusion_proof(tree, leaf, size),
        TreeQuery::Consistency { old, size } => merkle::consistency_proof(tree, old, size),
        TreeQuery::Subtrees { size } => Ok(merkle::frontier(tree, size)?.roots().to_vec()),
        TreeQuery::Hashes { level, from, count } => tree.hashes(level, from, count.min(TILE)),
    }
}

/// The inclusion proofs of leaves in the tree of `size` entries. Proofs share the nodes that they have in common.
pub(super) fn inclusion_proofs<T: HashReader<Error = StoreError>>(
    tree: &T,
    leaves: &[u64],
    size: u64,
) -> Result<Vec<Vec<Hash>>, StoreError> {
    let tree = RememberedTree { tree, nodes: RefCell::default() };
    leaves.iter().map(|leaf| merkle::inclusion_proof(&tree, *leaf, size)).collect()
}

/// A tree that computes each node once.
struct RememberedTree<'a, T> {
    tree: &'a T,
    nodes: RefCell<HashMap<(u32, u64), Hash>>,
}

/// Nodes that are remembered at the same time: 6 MiB.
const REMEMBERED_NODES: usize = 65_536;

impl<T: HashReader<Error = StoreError>> HashReader for RememberedTree<'_, T> {
    type Error = StoreError;

    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, StoreError> {
        self.tree.hashes(level, from, count)
    }

    fn node(&self, height: u32, index: u64) -> Result<Hash, StoreError> {
        if let Some(known) = self.nodes.borrow().get(&(height, index)) {
            return Ok(*known);
        }
        let nodes = merkle::nodes_below(self, height, index)?;
        let mut remembered = self.nodes.borrow_mut();
        if remembered.len() + nodes.len() > REMEMBERED_NODES {
            remembered.clear();
        }
        remembered.extend(nodes);
        remembered
            .get(&(height, index))
            .copied()
            .ok_or_else(|| StoreError::Corrupt { table: "audit_tree", what: format!("no node {index} at height {height}") })
    }
}
