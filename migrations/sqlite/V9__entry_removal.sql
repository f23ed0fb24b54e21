-- Canton Key Vault, schema 9: entries of the log can be removed after they were archived. A removed entry keeps its row, with its leaf hash and its
-- time; `entry`, `principal`, `operation` and `outcome` are empty, `key_id` and `node` NULL. State changes are never removed.

-- How far the removal has come: entries up to this one are done. Not authenticated, and no decision rests on it: which entries may be removed is stated by
-- state changes of the log (`removed_through` in an entry).
ALTER TABLE meta ADD COLUMN removal_position INTEGER NOT NULL DEFAULT 0;
