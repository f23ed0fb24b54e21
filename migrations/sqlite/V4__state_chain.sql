-- Canton Key Vault, schema 4: state changes form a hash chain through the log. Since this schema, entries have version 3: a state change
-- contains its number and the leaf hash of the state change before it. The program restates what is true at the first opening.

-- Of a state change: its number, 'state_revision' in the entry. Others have NULL. An index into the entries, like the other columns.
ALTER TABLE audit_entries ADD COLUMN state_revision INTEGER;
CREATE UNIQUE INDEX audit_entries_changes ON audit_entries (state_revision) WHERE state_revision IS NOT NULL;

-- The newest state change of a key is kept in memory, from the chain.
DROP INDEX audit_entries_states;
