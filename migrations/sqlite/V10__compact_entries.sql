-- Canton Key Vault, schema 10: a signature writes one short row. The bytes of the entries and their hashes are unchanged.

-- The columns that repeated an entry are gone. A query reads the bytes, and finds them by the tables below.
CREATE TABLE audit_entries_10 (
    sequence        INTEGER PRIMARY KEY,
    entry           BLOB    NOT NULL,                                       -- canonical JSON, versioned. Empty: archived and removed
    leaf            BLOB    NOT NULL CHECK (length(leaf) = 32),             -- RFC 6962 leaf hash of `entry`
    state_revision  INTEGER,                                                -- of a state change: its number
    changed_key     TEXT                                                    -- of a change of a key's state: the key
) STRICT;

INSERT INTO audit_entries_10 (sequence, entry, leaf, state_revision, changed_key)
SELECT sequence, entry, leaf, state_revision, CASE WHEN key_revision IS NOT NULL THEN key_id END FROM audit_entries ORDER BY sequence;

-- In which groups of 64 entries a key occurs (part = sequence / 64), of the blocks that have a digest. They are made with the digest, and replace an
-- index that cost every signature a row.
CREATE TABLE audit_keys (
    number          INTEGER PRIMARY KEY,
    key_id          TEXT    NOT NULL UNIQUE                                 -- as in the entries: not every one is in the table keys
) STRICT;

CREATE TABLE audit_key_parts (
    key             INTEGER NOT NULL REFERENCES audit_keys (number),
    part            INTEGER NOT NULL,
    PRIMARY KEY (key, part)
) STRICT, WITHOUT ROWID;

INSERT INTO audit_keys (key_id) SELECT DISTINCT key_id FROM audit_entries WHERE key_id IS NOT NULL;
INSERT INTO audit_key_parts (key, part)
SELECT DISTINCT number, sequence / 64 FROM audit_entries JOIN audit_keys USING (key_id)
WHERE sequence / 1024 < (SELECT coalesce(max(block) + 1, 0) FROM audit_digests);

DROP TABLE audit_entries;
ALTER TABLE audit_entries_10 RENAME TO audit_entries;
CREATE UNIQUE INDEX audit_entries_changes ON audit_entries (state_revision) WHERE state_revision IS NOT NULL;

-- `audit_blocks` is made with the digest of a complete block too. The rows of the newest block, which has none, stay and are completed then.
