//! Queries of a long audit log: a bounded time for every filter, pages that go on, and no effect on other reads.

use std::{path::Path, sync::Arc, time::Duration};

use canton_keyvault::{
    domain::{AuditEvent, Operation, Outcome, Principal, Timestamp},
    storage::{Commit, EntryFilter, KeyStore, Mode, Order, SqliteConfig, SqliteStore},
};
use rusqlite::Connection;
use serde_json::Value;

use crate::{
    storage_fixtures::{all_entries, at, event, id, node, only, open, page},
    support::{api::Caller, vault::TestVault},
};

/// More than three blocks of the summary.
const ENTRIES: u64 = 4_000;

fn store(folder: &Path, query_time: Duration) -> Arc<dyn KeyStore> {
    Arc::new(open(SqliteConfig { query_time, ..SqliteConfig::new(folder.join("keyvault.db"), Mode::Production) }))
}

/// Two principals take turns, each with its own operation, one entry a second; entry 3000 differs in everything.
fn numbered(number: u64) -> AuditEvent {
    let turn = u8::from(number % 2 == 1);
    let who = Principal { name: format!("dns:{}", ["even", "odd"][usize::from(turn)]).into(), certificate: None };
    let at = at(i64::try_from(number).unwrap() * 1_000_000);
    let common = AuditEvent {
        principal: who,
        node: Some(node(turn)),
        at,
        ..event([Operation::Sign, Operation::Decrypt][usize::from(turn)], Some(id(turn)))
    };
    if number == 3_000 {
        let principal = Principal { name: "dns:rare".into(), certificate: None };
        return AuditEvent {
            principal,
            node: Some(node(7)),
            operation: Operation::Freeze,
            outcome: Outcome::Denied,
            key: Some(id(7)),
            ..common
        };
    }
    common
}

async fn fill(store: &Arc<dyn KeyStore>, first: u64) {
    let mut commits = Vec::new();
    for number in first..=ENTRIES {
        let store = Arc::clone(store);
        // Polled in order, so that the queue of the writer has their order.
        commits.push(async move { store.commit(Commit::entry(numbered(number))).await });
    }
    for result in futures_util::future::join_all(commits).await {
        result.unwrap();
    }
}

fn who(name: &str) -> EntryFilter {
    EntryFilter { principal: Some(name.into()), ..all_entries() }
}

/// The numbers of all matching entries, and the number of pages.
async fn all(store: &Arc<dyn KeyStore>, filter: &EntryFilter, limit: u32) -> (Vec<u64>, usize) {
    let (mut found, mut pages, mut after) = (Vec::new(), 0, 0);
    loop {
        let read = store.entries(filter, page(after, limit)).await.unwrap();
        pages += 1;
        found.extend(read.entries.iter().map(|stored| stored.entry.sequence));
        assert!(read.entries.len() <= limit as usize);
        let last = read.entries.last().map(|stored| stored.entry.sequence).filter(|_| read.entries.len() == limit as usize);
        let Some(next) = read.stopped_at.or(last) else { return (found, pages) };
        assert!(next > after, "each page goes on");
        after = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_without_time_gives_parts_of_a_page_that_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Duration::ZERO);
    fill(&store, 1).await;
    // In each block there are this principal and this operation, but never together, so that the summary does not help.
    let nothing = EntryFilter { operation: Some(Operation::Decrypt), ..who("dns:even") };
    let (found, pages) = all(&store, &nothing, 100).await;
    assert_eq!(found, [0; 0]);
    assert_eq!(pages, 4, "one block in each");
    let with_time = EntryFilter { outcome: Some(Outcome::Ok), from: Some(at(2_000_000)), to: Some(at(2_900_000_000)), ..nothing };
    assert_eq!(all(&store, &with_time, 100).await.0, [0; 0]);
    // Partial pages have every entry once.
    let odd: Vec<u64> = (1..=ENTRIES).filter(|number| number % 2 == 1).collect();
    for limit in [1_000, 99] {
        assert_eq!(all(&store, &who("dns:odd"), limit).await.0, odd, "{limit}");
    }
    // The summary leads to the entries of a key, and the last block has none.
    while store.digest_log().await.unwrap() {}
    assert_eq!(all(&store, &EntryFilter { key: Some(id(7)), ..all_entries() }, 100).await, (vec![3_000], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_filter_skips_blocks_and_finds_the_same_in_a_migrated_store() {
    let folder = tempfile::tempdir().unwrap();
    let unlimited = Duration::from_mins(1);
    let first = store(folder.path(), unlimited);
    fill(&first, 1).await;
    let rare = |filter: EntryFilter| (filter, vec![3_000]);
    let filters = [
        rare(who("dns:rare")),
        rare(EntryFilter { operation: Some(Operation::Freeze), ..all_entries() }),
        rare(EntryFilter { outcome: Some(Outcome::Denied), ..all_entries() }),
        rare(EntryFilter { node: Some(node(7)), ..all_entries() }),
        rare(EntryFilter { nodes: only(&[7, 8]), ..all_entries() }),
        rare(EntryFilter { key: Some(id(7)), outcome: Some(Outcome::Denied), ..who("dns:rare") }),
        rare(EntryFilter { from: Some(at(2_999_000_001)), to: Some(at(3_000_000_001)), ..all_entries() }),
        (EntryFilter { from: Some(at(3_999_000_000)), ..all_entries() }, vec![3_999, 4_000]),
        (EntryFilter { to: Some(at(2_000_001)), ..all_entries() }, vec![1, 2]),
        (who("dns:nobody"), vec![]),
        (EntryFilter { nodes: only(&[]), ..all_entries() }, vec![]),
    ];
    for (filter, expected) in &filters {
        assert_eq!(all(&first, filter, 100).await, (expected.clone(), 1), "{filter:?}");
    }
    while first.digest_log().await.unwrap() {}
    for (filter, expected) in &filters {
        assert_eq!(all(&first, filter, 100).await, (expected.clone(), 1), "{filter:?}");
        let newest = EntryFilter { order: Order::Newest, ..filter.clone() };
        assert_eq!(all_newest(&first, &newest, 100).await, expected.iter().rev().copied().collect::<Vec<_>>(), "{filter:?}");
    }
    first.close().await;
    drop(first);
    let file = folder.path().join("keyvault.db");
    let read = || {
        let db = Connection::open(&file).unwrap();
        let of_blocks = rows(&db, "SELECT block, field, value FROM audit_blocks WHERE block < 3 ORDER BY block, field, value");
        let of_keys = "SELECT key_id, part, 0 FROM audit_key_parts JOIN audit_keys ON number = key ORDER BY key_id, part";
        (of_blocks, rows(&db, of_keys))
    };
    let written = read();
    assert_eq!(written.1.len(), 2 * (3 * 1024 / 64) + 1, "two keys in each part, and a rare one");
    // Stores of earlier schemas. Without digests, the parts of keys are made with them.
    for (earlier, parts) in [(schema_9(), true), (format!("{} {SCHEMA_4}", schema_9()), false)] {
        Connection::open(&file).unwrap().execute_batch(&earlier).unwrap();
        let migrated = store(folder.path(), unlimited);
        for (filter, expected) in &filters {
            assert_eq!(all(&migrated, filter, 100).await, (expected.clone(), 1), "{filter:?}");
        }
        let found = read();
        assert_eq!(found.0, written.0, "the migration makes the rows of the digests");
        assert_eq!(found.1 == written.1, parts, "{found:?}");
        while migrated.digest_log().await.unwrap() {}
        migrated.close().await;
        assert_eq!(read(), written);
    }
}

type Row = (rusqlite::types::Value, rusqlite::types::Value, rusqlite::types::Value);

fn rows(db: &Connection, sql: &str) -> Vec<Row> {
    let mut sql = db.prepare(sql).unwrap();
    sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap().map(Result::unwrap).collect()
}

/// Makes a store of schema 9 of the newest one. The structure of a store is compared with the text of its migrations.
fn schema_9() -> String {
    let first = include_str!("../../migrations/sqlite/V1__initial.sql");
    let statement = |begin: &str| {
        let at = first.find(begin).unwrap();
        &first[at..=at + first[at..].find(";\n").unwrap()]
    };
    let [table, index, wraps] =
        ["CREATE TABLE audit_entries", "CREATE INDEX audit_entries_by_key", "CREATE INDEX wraps_by_wrapper_key"].map(statement);
    format!(
        "DROP INDEX wraps_by_wrapper_key; {wraps} DROP INDEX keys_present;
         DROP INDEX audit_entries_changes; CREATE TABLE compact AS SELECT * FROM audit_entries; DROP TABLE audit_entries;
         {table} {index} ALTER TABLE audit_entries ADD COLUMN state_revision INTEGER;
         INSERT INTO audit_entries SELECT sequence, entry, leaf, CAST(strftime('%s', substr(entry ->> '$.at', 1, 19)) AS INTEGER) * 1000000,
             entry ->> '$.principal', entry ->> '$.operation', entry ->> '$.key_id', entry ->> '$.node', entry ->> '$.outcome',
             entry ->> '$.revision', state_revision FROM compact;
         DROP TABLE compact; DROP TABLE audit_key_parts; DROP TABLE audit_keys; DROP TABLE other_entries; DROP TABLE other_tree;
         DROP TABLE other_sinks; DROP TABLE other_digests; DROP TABLE other_totals; DROP TABLE other_logs;
         CREATE UNIQUE INDEX audit_entries_changes ON audit_entries (state_revision) WHERE state_revision IS NOT NULL;
         DELETE FROM refinery_schema_history WHERE version >= 10;"
    )
}

/// Makes a store of schema 4 of one of schema 9.
const SCHEMA_4: &str = "
    DROP TABLE audit_blocks; CREATE INDEX audit_entries_by_time ON audit_entries (at);
    DROP TABLE audit_tree; DROP TABLE audit_digests; DROP TABLE audit_totals; DROP TABLE policies; DROP TABLE audit_sinks;
    ALTER TABLE meta DROP COLUMN removal_position;
    DELETE FROM refinery_schema_history WHERE version >= 5;";

/// Values that differ in almost every entry have no summary: the digests skip blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_skip_blocks_and_lose_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Duration::ZERO);
    let call = |number: u64| AuditEvent {
        request_id: Some(format!("request-{number}").into()),
        trace_id: Some(format!("trace-{}", number / 2).into()),
        subject: (number == 3_500).then(|| "wk-000000000001 to wk-000000000002, job-00000000000a".into()),
        principal: Principal { name: "dns:a".into(), certificate: Some([u8::from(number == 700); 32]) },
        ..numbered(number)
    };
    let commits = (1..=ENTRIES).map(|number| store.commit(Commit::entry(call(number))));
    futures_util::future::join_all(commits).await.into_iter().for_each(|result| {
        result.unwrap();
    });
    let filters = [
        (EntryFilter { request_id: Some("request-2500".into()), ..all_entries() }, vec![2_500]),
        (EntryFilter { request_id: Some("request-3900".into()), ..all_entries() }, vec![3_900]),
        (EntryFilter { trace_id: Some("trace-1000".into()), ..all_entries() }, vec![2_000, 2_001]),
        (EntryFilter { certificate: Some([1; 32]), ..all_entries() }, vec![700]),
        (EntryFilter { job: "job-00000000000a".parse().ok(), ..all_entries() }, vec![3_500]),
        (EntryFilter { wrapper_key: "wk-000000000002".parse().ok(), ..all_entries() }, vec![3_500]),
        (EntryFilter { request_id: Some("nothing".into()), ..all_entries() }, vec![]),
        (EntryFilter { request_id: Some("request-2500".into()), outcome: Some(Outcome::Failed), ..all_entries() }, vec![]),
    ];
    // Four blocks, of which the last one is not complete: without time, each page reads one block.
    let pages = |store: &Arc<dyn KeyStore>| {
        let store = Arc::clone(store);
        let filters = filters.clone();
        async move {
            for (filter, expected) in filters {
                let newest = EntryFilter { order: Order::Newest, ..filter.clone() };
                assert_eq!(all(&store, &filter, 100).await.0, expected, "{filter:?}");
                assert_eq!(all_newest(&store, &newest, 100).await, expected.into_iter().rev().collect::<Vec<_>>(), "{filter:?}");
            }
        }
    };
    pages(&store).await;
    while store.digest_log().await.unwrap() {}
    let db = Connection::open(folder.path().join("keyvault.db")).unwrap();
    let digests: (i64, i64) =
        db.query_row("SELECT count(*), max(length(filter)) FROM audit_digests", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(digests.0, 3, "the complete blocks");
    assert!(digests.1 < 4 * 1024, "{} bytes for 1024 entries", digests.1);
    pages(&store).await;
    // A digest without the value hides an entry, so that the digests are what is read.
    db.execute("UPDATE audit_digests SET filter = zeroblob(8)", []).unwrap();
    assert_eq!(all(&store, &filters[0].0, 100).await.0, [0; 0]);
    assert_eq!(all(&store, &filters[1].0, 100).await.0, [3_900], "the last block has no digest");
}

/// The numbers of all matching entries, newest first.
async fn all_newest(store: &Arc<dyn KeyStore>, filter: &EntryFilter, limit: u32) -> Vec<u64> {
    let (mut found, mut before) = (Vec::new(), 0);
    loop {
        let read = store.entries(filter, page(before, limit)).await.unwrap();
        found.extend(read.entries.iter().map(|stored| stored.entry.sequence));
        let last = read.entries.last().map(|stored| stored.entry.sequence).filter(|_| read.entries.len() == limit as usize);
        let Some(next) = read.stopped_at.or(last) else { return found };
        assert!(before == 0 || next < before, "each page goes on");
        before = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_first_is_the_reverse_of_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    for time in [Duration::ZERO, Duration::from_mins(1)] {
        let folder = folder.path().join(format!("{time:?}"));
        std::fs::create_dir(&folder).unwrap();
        let store = store(&folder, time);
        fill(&store, 1).await;
        let odd = || EntryFilter { key: Some(id(1)), ..all_entries() };
        for filter in [all_entries(), who("dns:odd"), who("dns:rare"), odd(), EntryFilter { after: 1_500, last: Some(2_500), ..odd() }] {
            let mut expected = all(&store, &filter, 1_000).await.0;
            expected.reverse();
            for limit in [99, 1_000] {
                let newest = EntryFilter { order: Order::Newest, ..filter.clone() };
                assert_eq!(all_newest(&store, &newest, limit).await, expected, "{filter:?}");
            }
        }
    }
}

// The API

/// A vault whose log already has many entries, and whose queries end after a millisecond.
pub(crate) async fn long_log() -> TestVault {
    let mut vault = TestVault::prepare(|config| config.replace("[storage]", "[storage]\nquery_time = \"1ms\""));
    let source = canton_keyvault::audit::Source { vault: "dev".into(), instance: "main".into(), version: "test".into() };
    let config = SqliteConfig::new(vault.path("keyvault.db"), Mode::Production);
    let random = canton_keyvault::crypto::SystemRandom::default();
    let opened = SqliteStore::open(config, source, &"dev".parse().unwrap(), &random, Timestamp::from_micros(0)).unwrap();
    let store: Arc<dyn KeyStore> = Arc::new(opened);
    for _ in 0..5 {
        fill(&store, 1).await;
    }
    store.close().await;
    drop(store);
    vault.serve();
    vault
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_api_can_be_partial_and_its_cursor_goes_on() {
    let vault = long_log().await;
    let auditor = Caller::new(&vault, "auditor");
    let nothing = "/v1/audit/entries?principal=dns:even&operation=keys.decrypt&outcome=ok&from=1970-01-01T00:00:00Z";
    let (mut pages, mut cursor) = (0, String::new());
    loop {
        let page: Value = auditor.get(&format!("{nothing}{cursor}")).await.success();
        assert_eq!(page["items"], serde_json::json!([]));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(pages > 1, "20,000 entries take more than a millisecond");
    assert_eq!(auditor.log("&principal=dns:rare").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_beyond_the_limit_are_refused_and_other_lists_answer() {
    let vault = TestVault::start_with(|config| config + "\n[limits]\nconcurrent_queries = 1\n");
    let mut codes: Vec<String> = Vec::new();
    // Many connections of one auditor, again and again until they meet.
    while !codes.iter().any(|code| code == "too_many_requests") {
        assert!(codes.len() < 4_000, "they never met");
        let calls = (0..16).map(|_| {
            let auditor = Caller::new(&vault, "auditor");
            tokio::spawn(async move { auditor.get("/v1/audit/entries?operation=keys.sign").await })
        });
        let calls: Vec<_> = calls.collect();
        Caller::new(&vault, "wrapper-admin").get("/v1/wrapper-keys").await.success();
        for call in calls {
            let reply = call.await.unwrap();
            assert!(reply.status != 429 || reply.headers.contains_key("retry-after"), "{reply:?}");
            codes.push(reply.outcome().1);
        }
    }
    assert!(codes.iter().all(|code| code.is_empty() || code == "too_many_requests"), "{codes:?}");
}
