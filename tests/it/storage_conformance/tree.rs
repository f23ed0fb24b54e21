//! The Merkle tree over the log, and its checkpoints.

use std::sync::Arc;

use canton_keyvault::{
    audit::{
        leaf_hash,
        merkle::{Frontier, Hash, verify_consistency, verify_inclusion},
    },
    domain::{Operation, WrapperState},
    storage::{Change, Commit, CommitError, KeyStore, StoredCheckpoint, TreeQuery},
};

use crate::storage_fixtures::{at, commit, event, freeze, id, insert, log, page, record, register};

/// The leaf hashes of all entries, from their bytes.
async fn leaves(store: &Arc<dyn KeyStore>) -> Vec<Hash> {
    log(store).await.iter().map(|stored| leaf_hash(&stored.bytes)).collect()
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(*leaf, |_| {});
    }
    frontier.root()
}

pub(super) async fn the_tree_grows_with_each_entry_alone(store: Arc<dyn KeyStore>) {
    assert_eq!(store.log_head().size, 0);
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    // A refused commit is no leaf, also between others of its batch.
    for number in 0..300 {
        if number % 50 == 0 {
            assert_eq!(store.commit(insert(&record(1))).await, Err(CommitError::KeyExists));
        }
        store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    }
    store.commit(freeze(true)).await.unwrap();
    let (head, leaves) = (store.log_head(), leaves(&store).await);
    assert_eq!((head.size, head.root), (303, root(&leaves)));
    let newest = store.entries(&crate::storage_fixtures::all_entries(), page(302, 1)).await.unwrap().entries.remove(0);
    assert_eq!((head.state_revision, head.state_head), (newest.entry.state_revision.unwrap(), leaf_hash(&newest.bytes)));

    for (size, leaf) in [(1, 0), (2, 1), (256, 255), (257, 256), (303, 0), (303, 255), (303, 302)] {
        let of_size = store.tree(TreeQuery::Root { size }).await.unwrap()[0];
        assert_eq!(of_size, root(&leaves[..usize::try_from(size).unwrap()]), "{size}");
        let proof = store.tree(TreeQuery::Inclusion { leaf, size }).await.unwrap();
        assert!(verify_inclusion(&proof, leaf, leaves[usize::try_from(leaf).unwrap()], size, &of_size), "{leaf} of {size}");
        let proof = store.tree(TreeQuery::Consistency { old: size, size: head.size }).await.unwrap();
        assert!(verify_consistency(&proof, size, &of_size, head.size, &head.root), "{size}");
    }
    assert_eq!(store.tree(TreeQuery::Hashes { level: 0, from: 256, count: 47 }).await.unwrap(), leaves[256..]);
    assert_eq!(store.tree(TreeQuery::Hashes { level: 1, from: 0, count: 1 }).await.unwrap(), [root(&leaves[..256])]);
    assert!(store.tree(TreeQuery::Hashes { level: 1, from: 0, count: 2 }).await.is_err(), "the second tile is not complete");
    assert!(store.tree(TreeQuery::Root { size: 304 }).await.is_err(), "there are 303 entries");
    let bundle = store.entry_bytes(256, 47).await.unwrap();
    assert_eq!(bundle.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>(), leaves[256..]);
}

pub(super) async fn checkpoints_are_stored(store: Arc<dyn KeyStore>) {
    assert_eq!(store.newest_checkpoint("v1/i1/1").await, Ok(None));
    let checkpoint =
        |size, note: &str| StoredCheckpoint { origin: "v1/i1/1".into(), size, note: note.into(), at: at(i64::try_from(size).unwrap()) };
    for (size, note) in [(3, "first"), (9, "third"), (5, "second"), (9, "third with a cosignature")] {
        store.store_checkpoint(checkpoint(size, note)).await.unwrap();
    }
    let other = StoredCheckpoint { origin: "v1/i1/2".into(), ..checkpoint(100, "of another log") };
    store.store_checkpoint(other).await.unwrap();
    assert_eq!(store.newest_checkpoint("v1/i1/1").await, Ok(Some(checkpoint(9, "third with a cosignature"))));
    let sizes = async |after, before| -> Vec<u64> {
        store.checkpoints(after, before).await.unwrap().iter().map(|checkpoint| checkpoint.size).collect()
    };
    assert_eq!((sizes(0, 9).await, sizes(3, 101).await, sizes(100, 200).await), (vec![3, 5], vec![5, 9, 100], vec![]));
    assert_eq!(store.checkpoints(5, 10).await, Ok(vec![checkpoint(9, "third with a cosignature")]));
    // One of each part of a long log.
    assert_eq!(sizes(0, 80_000).await, [5, 9, 100]);
}

pub(super) async fn archived_entries_are_removed_and_every_proof_stays(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    futures_util::future::join_all((0..2_100).map(|_| store.commit(commit(Operation::ShowKey, Some(id(1)))))).await;
    store.commit(freeze(true)).await.unwrap();
    let remove = |through| Commit::change(Change::RemoveEntries { through }, event(Operation::RemoveEntries, None));
    assert_eq!(store.commit(remove(10_000)).await, Err(CommitError::LostRace), "there are not as many");
    let (leaves, size) = (leaves(&store).await, store.log_head().size);
    let revision = store.known_revision();
    store.commit(remove(1_023)).await.unwrap();
    assert_eq!((store.removed_through(), store.known_revision()), (1_023, revision + 1));
    assert_eq!(store.commit(remove(1_023)).await, Err(CommitError::LostRace), "it is done");
    assert_eq!(store.remove_some_entries().await, Ok(false), "the totals of these entries are not made yet");
    while store.digest_log().await.unwrap() {}
    while store.remove_some_entries().await.unwrap() {}

    // The state changes stay: the wrapper key and the key.
    let sequences: Vec<u64> = log(&store).await.iter().map(|stored| stored.entry.sequence).collect();
    assert_eq!(sequences, [1, 2].into_iter().chain(1_024..=size + 1).collect::<Vec<_>>());
    assert!(store.entry_bytes(768, 256).await.is_err() && store.entry_bytes(1_023, 1).await.is_ok());
    for leaf in [0, 1, 2, 500, 1_022, 1_023, size - 1] {
        let of_size = store.tree(TreeQuery::Root { size }).await.unwrap()[0];
        assert_eq!(of_size, root(&leaves));
        let proof = store.tree(TreeQuery::Inclusion { leaf, size }).await.unwrap();
        assert!(verify_inclusion(&proof, leaf, leaves[usize::try_from(leaf).unwrap()], size, &of_size), "{leaf}");
    }
    let old = store.tree(TreeQuery::Root { size: 700 }).await.unwrap()[0];
    let proof = store.tree(TreeQuery::Consistency { old: 700, size }).await.unwrap();
    assert!(verify_consistency(&proof, 700, &old, size, &root(&leaves)));
    assert!(store.commit(commit(Operation::ShowKey, Some(id(1)))).await.is_ok());
}
