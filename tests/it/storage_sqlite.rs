//! What is particular to the SQLite store: which files it refuses, backup under load, a full disk, migration.

