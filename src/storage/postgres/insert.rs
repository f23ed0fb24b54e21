//! The one statement that writes the entries of a batch and the hashes of the subtrees that they complete.

use super::{apply::NewEntry, connect::Db};
use crate::{audit::merkle::TileHash, domain::NodeName};

/// Writes entries and the hashes of the subtrees that they complete, if the store still has the revision that they were checked against. Returns
/// the number of entries.
pub(super) async fn insert(
    db: &Db,
    instance: i32,
    store_revision: u64,
    entries: &[NewEntry],
    completed: &[TileHash],
) -> Result<u64, tokio_postgres::Error> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sequences: Vec<i64> = entries.iter().map(|new| number(new.entry.sequence)).collect();
    let bytes: Vec<&[u8]> = entries.iter().map(|new| new.bytes.as_slice()).collect();
    let leaves: Vec<&[u8]> = entries.iter().map(|new| new.leaf.as_slice()).collect();
    let times: Vec<i64> = entries.iter().map(|new| new.entry.at.micros()).collect();
    let principals: Vec<&str> = entries.iter().map(|new| new.entry.principal.as_str()).collect();
    let operations: Vec<&str> = entries.iter().map(|new| new.entry.operation.as_str()).collect();
    let keys: Vec<Option<String>> = entries.iter().map(|new| new.entry.key_id.map(|id| id.to_string())).collect();
    let nodes: Vec<Option<&str>> = entries.iter().map(|new| new.entry.node.as_ref().map(NodeName::as_str)).collect();
    let outcomes: Vec<&str> = entries.iter().map(|new| new.entry.outcome.as_str()).collect();
    let key_revisions: Vec<Option<i64>> = entries.iter().map(|new| new.entry.revision.map(number)).collect();
    let changes = |new: &NewEntry| new.entry.state_revision.filter(|_| new.entry.changes_state()).map(number);
    let state_revisions: Vec<Option<i64>> = entries.iter().map(changes).collect();
    let levels: Vec<i32> = completed.iter().map(|hash| i32::try_from(hash.level).unwrap_or(i32::MAX)).collect();
    let positions: Vec<i64> = completed.iter().map(|hash| number(hash.position)).collect();
    let hashes: Vec<&[u8]> = completed.iter().map(|hash| hash.hash.as_slice()).collect();
    let statement = db.prepare_cached(INSERT).await?;
    db.execute(
        &statement,
        &[
            &instance,
            &number(store_revision),
            &sequences,
            &bytes,
            &leaves,
            &times,
            &principals,
            &operations,
            &keys,
            &nodes,
            &outcomes,
            &key_revisions,
            &state_revisions,
            &levels,
            &positions,
            &hashes,
        ],
    )
    .await
}

const INSERT: &str = "
    WITH same AS (SELECT FROM meta WHERE store_revision = $2), tiles AS (
        INSERT INTO audit_tree (instance, level, position, hash)
        SELECT $1, level, position, hash FROM same, unnest($14::integer[], $15::bigint[], $16::bytea[]) AS t (level, position, hash))
    INSERT INTO audit_entries
        (instance, sequence, entry, leaf, at, principal, operation, key_id, node, outcome, key_revision, state_revision)
    SELECT $1, e.* FROM same, unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[],
        $11::text[], $12::bigint[], $13::bigint[]) AS e";
