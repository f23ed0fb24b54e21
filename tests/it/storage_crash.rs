//! Power loss at any write, truncation or sync: acknowledged commits are stored, and no commit is stored partly.

use std::{collections::HashMap, path::Path, sync::Arc};

use canton_keyvault::{
    audit::leaf_hash,
    domain::{AuditEvent, KeyId, Operation, Transition, WrapperState},
    storage::{Commit, CommitError, KeyStore, Mode, Receipt, SqliteConfig},
};

use crate::{
    storage_disk::{Disk, split_mix},
    storage_fixtures::{all_keys, change, id, insert, log, open, page, record, register, sign, step, tagged, try_open},
};

const CALLERS: u32 = 6;
const COMMITS_EACH: u32 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_commits_outlive_a_power_cut() {
    let (mut cuts, mut kept) = (0, 0);
    for seed in 0..120 {
        let round = round(seed, false).await;
        assert_eq!(round.broken, Vec::<String>::new(), "seed {seed}");
        cuts += u32::from(round.cut);
        kept += round.acknowledged;
    }
    // Neither cut at once every time, nor never.
    assert!(cuts >= 60 && kept >= 2_000, "{cuts} cuts, {kept} acknowledged commits");
}

/// The control: on a disk that lies about syncs, the same rounds must find commits that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_sees_a_disk_that_lies() {
    let mut found = 0;
    for seed in 0..20 {
        found += usize::from(!round(seed, true).await.broken.is_empty());
    }
    assert!(found >= 5, "only {found} of 20 rounds noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_cut_off_while_it_was_made_is_made_again() {
    let mut cuts = 0;
    for operations in 0..80 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        disk.cut_power_after(operations, operations);
        let config = SqliteConfig { vfs: Some(disk.vfs()), ..SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production) };
        match try_open(config) {
            Ok(store) => store.close().await,
            Err(_) => cuts += 1,
        }
        let broken = inspect(folder.path(), &[]).await;
        // The one thing that an empty store refuses is a key without a wrapper key.
        let expected = "the next commit: Err(ActiveWrapperChanged)";
        assert_eq!(broken.first().map(String::as_str), Some(expected), "after {operations} operations");
    }
    assert!(cuts >= 20, "{cuts} cuts");
}

struct Round {
    /// Whether the power went before the store was closed in peace.
    cut: bool,
    acknowledged: usize,
    /// What should be there and is not, or the other way round.
    broken: Vec<String>,
}

/// Acknowledged commits are durable.
type Acknowledged = (Receipt, Option<KeyId>, String);

async fn round(mut seed: u64, lies: bool) -> Round {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    // A small WAL, so that checkpoints are hit as well.
    let config =
        SqliteConfig { vfs: Some(disk.vfs()), wal_pages: 40, ..SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production) };
    let sqlite = Arc::new(open(config));
    let store = Arc::clone(&sqlite) as Arc<dyn KeyStore>;
    register(&store, 1, WrapperState::Active).await;
    if lies {
        disk.lie_about_syncs();
    }
    disk.cut_power_after(split_mix(&mut seed) % 1_200, split_mix(&mut seed));
    let callers: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(call(Arc::clone(&store), number, split_mix(&mut seed)))).collect();
    let mut acknowledged = Vec::new();
    for caller in callers {
        acknowledged.extend(caller.await.unwrap());
    }
    drop(store);
    sqlite.close().await;
    drop(sqlite);
    let broken = inspect(folder.path(), &acknowledged).await;
    Round { cut: disk.is_off(), acknowledged: acknowledged.len(), broken }
}

/// Inserts keys of its own, disables and enables and uses them, until the store refuses.
async fn call(store: Arc<dyn KeyStore>, caller: u32, mut seed: u64) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    let mut keys = Vec::new();
    for number in 0..COMMITS_EACH {
        let tag = format!("{caller}-{number}");
        let pick = usize::try_from(split_mix(&mut seed) % 64).unwrap();
        let (commit, key) = match (split_mix(&mut seed) % 4, keys.len()) {
            (0, _) | (_, 0) => {
                let record = record(u8::try_from(caller * COMMITS_EACH + number).unwrap());
                keys.push(record.clone());
                (insert(&record), Some(record.attributes.id))
            }
            (1, some) => {
                let record = &mut keys[pick % some];
                let toggled = record.lifecycle.after(Transition::Disable).or_else(|_| record.lifecycle.after(Transition::Enable)).unwrap();
                let update = step(record, toggled);
                (record.revision, record.lifecycle) = (update.to.revision, toggled);
                (change(&update), Some(update.key))
            }
            (2, some) => {
                let record = &keys[pick % some];
                (sign(record.attributes.id, record.revision, store.known_revision()), Some(record.attributes.id))
            }
            _ => (Commit::entry(tagged(0)), None),
        };
        let commit = Commit { event: AuditEvent { subject: Some(tag.clone()), ..commit.event }, ..commit };
        match store.commit(commit).await {
            Ok(receipt) => acknowledged.push((receipt, key, tag)),
            Err(CommitError::Unavailable(_)) => return acknowledged,
            Err(refused) => panic!("{refused}"),
        }
    }
    acknowledged
}

/// Opens what is left with the system's own VFS.
async fn inspect(folder: &Path, acknowledged: &[Acknowledged]) -> Vec<String> {
    let path = folder.join("keyvault.db");
    let mut broken = Vec::new();
    let sound: String = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap_or_else(|e| e.to_string());
    if sound != "ok" {
        return vec![sound];
    }
    let sqlite = Arc::new(open(SqliteConfig::new(path, Mode::Production)));
    let store = Arc::clone(&sqlite) as Arc<dyn KeyStore>;
    let entries = log(&store).await;
    for (place, stored) in (1..).zip(&entries) {
        if stored.entry.sequence != place || stored.leaf != leaf_hash(&stored.bytes) {
            broken.push(format!("entry {place} is not in its place"));
        }
    }
    for (receipt, key, tag) in acknowledged {
        let entry = usize::try_from(receipt.sequence - 1).ok().and_then(|place| entries.get(place)).map(|stored| &stored.entry);
        if entry.is_none_or(|entry| entry.subject.as_ref() != Some(tag) || entry.key_id != *key) {
            broken.push(format!("{tag} was acknowledged, and has no entry"));
        }
        if receipt.store_revision > store.known_revision() {
            broken.push(format!("{tag} was acknowledged, and the revision went back"));
        }
    }
    // Each change has its entry and each entry of a change its change: the newest of each key, in both directions.
    let mut logged: HashMap<KeyId, u64> = HashMap::new();
    for stored in &entries {
        if let (Some(key), Some(revision)) = (stored.entry.key_id, stored.entry.revision) {
            logged.insert(key, revision);
        }
    }
    let keys = store.keys(&all_keys(), page(0, 10_000)).await.unwrap();
    let rows: HashMap<KeyId, u64> = keys.iter().map(|key| (key.item.attributes.id, key.item.revision)).collect();
    if rows != logged {
        broken.push(format!("the keys are {rows:?}, and the log says {logged:?}"));
    }
    if keys.iter().any(|key| key.item.wraps.len() != 1 || key.item.sealed.is_none()) {
        broken.push("a key without its wrap or its sealed bytes".into());
    }
    // It goes on where it stopped.
    match store.commit(insert(&record(255))).await {
        Ok(receipt) if receipt.sequence == entries.len() as u64 + 1 && store.key(id(255)).await.unwrap().is_some() => {}
        other => broken.push(format!("the next commit: {other:?}")),
    }
    let last = store.entries(&crate::storage_fixtures::all_entries(), page(entries.len() as u64, 1)).await.unwrap().entries;
    if last.first().map(|stored| stored.entry.operation) != Some(Operation::CreateKey) {
        broken.push("the next entry is not there".into());
    }
    drop(store);
    sqlite.close().await;
    broken
}
