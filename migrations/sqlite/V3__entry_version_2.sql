-- Canton Key Vault, schema 3. Since this schema, audit entries have version 2 (with `client`), and `keys.lifecycle` can end in the mark
-- `topology-only`. No table changes. An earlier program reads neither, and refuses the database because of this schema number.
SELECT 3;
