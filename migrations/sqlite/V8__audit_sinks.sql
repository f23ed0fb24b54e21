-- Canton Key Vault, schema 8: how far each audit sink has the log.

-- Not authenticated: whoever can write to the database can move a cursor. Each start of a sink writes an entry with the place where it continues, and
-- every entry that is sent has its sequence number, so that a receiver sees what it lacks.
CREATE TABLE audit_sinks (
    name            TEXT    NOT NULL PRIMARY KEY,                           -- [[audit.sinks]] name
    sequence        INTEGER NOT NULL CHECK (sequence >= 0),                 -- the last entry that the sink confirmed, 0 before the first
    leaf            BLOB    NOT NULL CHECK (length(leaf) = 32),             -- its leaf hash: a cursor of another log is noticed
    at              INTEGER NOT NULL                                        -- when the row was written, microseconds since 1970
) STRICT, WITHOUT ROWID;
