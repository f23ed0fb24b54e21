-- Canton Key Vault, schema 11: the logs of other instances, in a copy of a PostgreSQL store. The vault that serves the file writes the tables audit_…, and
-- never these. Their state changes are part of the chain. The checkpoints of all logs are in audit_checkpoints, by their origins.

CREATE TABLE other_logs (
    name              TEXT    NOT NULL PRIMARY KEY,                         -- the instance
    removal_position  INTEGER NOT NULL                                      -- as in meta
) STRICT, WITHOUT ROWID;

CREATE TABLE other_entries (
    instance        TEXT    NOT NULL REFERENCES other_logs (name),
    sequence        INTEGER NOT NULL,
    entry           BLOB    NOT NULL,
    leaf            BLOB    NOT NULL CHECK (length(leaf) = 32),
    state_revision  INTEGER,
    changed_key     TEXT,
    PRIMARY KEY (instance, sequence)
) STRICT;
CREATE UNIQUE INDEX other_entries_changes ON other_entries (state_revision) WHERE state_revision IS NOT NULL;

CREATE TABLE other_tree (
    instance        TEXT    NOT NULL REFERENCES other_logs (name),
    level           INTEGER NOT NULL CHECK (level >= 1),
    position        INTEGER NOT NULL,
    hash            BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (instance, level, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE other_sinks (
    instance        TEXT    NOT NULL REFERENCES other_logs (name),
    name            TEXT    NOT NULL,
    sequence        INTEGER NOT NULL CHECK (sequence >= 0),
    leaf            BLOB    NOT NULL CHECK (length(leaf) = 32),
    at              INTEGER NOT NULL,
    PRIMARY KEY (instance, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE other_digests (
    instance        TEXT    NOT NULL REFERENCES other_logs (name),
    block           INTEGER NOT NULL,
    filter          BLOB    NOT NULL,
    PRIMARY KEY (instance, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE other_totals (
    instance        TEXT    NOT NULL REFERENCES other_logs (name),
    day             INTEGER NOT NULL,
    principal       TEXT    NOT NULL,
    certificate     TEXT    NOT NULL,
    node            TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    operation       TEXT    NOT NULL,
    outcome         TEXT    NOT NULL,
    entries         INTEGER NOT NULL,
    calls           INTEGER NOT NULL,
    first_at        INTEGER NOT NULL,
    last_at         INTEGER NOT NULL,
    PRIMARY KEY (instance, day, principal, certificate, node, key_id, operation, outcome)
) STRICT, WITHOUT ROWID;
