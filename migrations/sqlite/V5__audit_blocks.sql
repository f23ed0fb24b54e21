-- Canton Key Vault, schema 5: a summary of the log for its queries. Entries are unchanged.

-- Which values occur in each block of 1024 entries (block = sequence / 1024). A query skips the blocks without what it looks for. An entry adds
-- a row only for a value that is new in its block, so that a signature costs less than with an index. Like the columns of audit_entries, it
-- authenticates nothing.
CREATE TABLE audit_blocks (
    block           INTEGER NOT NULL,
    field           TEXT    NOT NULL CHECK (field IN ('principal', 'operation', 'node', 'outcome', 'minute')),
    value           ANY     NOT NULL,                                       -- minute: minutes since 1970-01-01T00:00:00Z
    PRIMARY KEY (block, field, value)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO audit_blocks (block, field, value)
SELECT block, field, value FROM (
    SELECT sequence / 1024 AS block, fields.column1 AS field,
           CASE fields.column1 WHEN 'principal' THEN principal WHEN 'operation' THEN operation WHEN 'node' THEN node
                               WHEN 'outcome' THEN outcome ELSE at / 60000000 END AS value
    FROM audit_entries CROSS JOIN (VALUES ('principal'), ('operation'), ('node'), ('outcome'), ('minute')) AS fields
) WHERE value IS NOT NULL;

-- Its work is done by the minutes of the blocks.
DROP INDEX audit_entries_by_time;
