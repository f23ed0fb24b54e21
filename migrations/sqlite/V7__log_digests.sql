-- Canton Key Vault, schema 7: digests of the log for its queries, and policies. Entries are unchanged. Like the columns of audit_entries, these tables
-- authenticate nothing. The digests are made from the entries by a background task, block by block, also those of earlier schemas, and can be made again.

-- A filter of each complete block of 1024 entries (block = sequence / 1024): whether a certificate, request id, trace id, job or wrapper key can
-- occur in it. A query reads a block without a digest.
CREATE TABLE audit_digests (
    block           INTEGER PRIMARY KEY,
    filter          BLOB    NOT NULL                                        -- a Bloom filter, see storage/sqlite/digests.rs
) STRICT;

-- The number of calls in the blocks that have a digest. Absent values are ''.
CREATE TABLE audit_totals (
    day             INTEGER NOT NULL,                                       -- days since 1970-01-01, UTC
    principal       TEXT    NOT NULL,
    certificate     TEXT    NOT NULL,                                       -- SHA-256, hex
    node            TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    operation       TEXT    NOT NULL,
    outcome         TEXT    NOT NULL,
    entries         INTEGER NOT NULL,
    calls           INTEGER NOT NULL,                                       -- an entry of collapsed refusals counts with their number
    first_at        INTEGER NOT NULL,
    last_at         INTEGER NOT NULL,
    PRIMARY KEY (day, principal, certificate, node, key_id, operation, outcome)
) STRICT, WITHOUT ROWID;

-- The texts of policies: nodes and grants. The entry of a start or reload states the digest of the policy in force, and so authenticates the text.
CREATE TABLE policies (
    digest          TEXT    PRIMARY KEY,                                    -- SHA-256 of the text, hex
    text            TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
