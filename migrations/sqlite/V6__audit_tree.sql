-- Canton Key Vault, schema 6: the Merkle tree over the log (RFC 6962). Since this schema, entries have version 4, with `incarnation`.

-- Hashes of complete subtrees: level 1 has the root of each 256 entries, level 2 that of each 65,536, and so on. The leaves are in audit_entries. The
-- signed checkpoints authenticate them. The program adds the rows for entries of earlier schemas at the first opening.
CREATE TABLE audit_tree (
    level           INTEGER NOT NULL CHECK (level >= 1),
    position        INTEGER NOT NULL,                                       -- the subtree begins at entry position · 256^level + 1
    hash            BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;
