-- Canton Key Vault, schema 1. Times are microseconds since 1970-01-01T00:00:00Z; words are those of the API.
-- The index columns of audit_entries and every CHECK are conveniences: the truth is authenticated elsewhere
-- (sealed bytes and wraps by their context, a key's row by its tag, an entry by its leaf hash).

-- What is true of the store as a whole: one row.
CREATE TABLE meta (
    only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- Immutable
    vault           TEXT    NOT NULL,                                       -- the vault's id, bound to every ciphertext
    mode            TEXT    NOT NULL CHECK (mode IN ('dev', 'production')), -- `serve` refuses a database of `dev`
    hash_key        BLOB    NOT NULL CHECK (length(hash_key) = 32),         -- for keyed hashes of request bodies; opens nothing
    created_at      INTEGER NOT NULL,
    -- Mutable
    store_revision  INTEGER NOT NULL,                                       -- bumped by every change of state
    frozen          INTEGER NOT NULL CHECK (frozen IN (0, 1))               -- the incident switch
) STRICT;

-- The registered wrapper keys. The keys themselves live in a KMS.
CREATE TABLE wrapper_keys (
    position        INTEGER PRIMARY KEY,                                    -- order of registration
    -- Immutable
    id              TEXT    NOT NULL UNIQUE,                                -- wk-…
    provider        TEXT    NOT NULL,
    identity        TEXT    NOT NULL UNIQUE,                                -- what the key is: never an alias, region apart
    reference       TEXT    NOT NULL,                                       -- what was asked for, as resolved
    canary          BLOB    NOT NULL,                                       -- (ciphertext) a random data key under this wrapper key
    created_at      INTEGER NOT NULL,
    -- Mutable
    regions         TEXT    NOT NULL,                                       -- JSON array, in the order to try
    state           TEXT    NOT NULL CHECK (state IN ('active', 'standby', 'draining', 'retiring', 'retired'))
) STRICT;

CREATE UNIQUE INDEX wrapper_keys_one_active ON wrapper_keys (state) WHERE state = 'active';

-- The keys. Rows are never deleted: a destroyed key leaves its facts.
CREATE TABLE keys (
    position        INTEGER PRIMARY KEY,                                    -- order of creation, the cursor of lists
    -- Immutable, bound to every ciphertext of the key
    id              TEXT    NOT NULL UNIQUE,                                -- 1220… or sym-…
    node            TEXT    NOT NULL,
    purpose         TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    usages          TEXT    NOT NULL,                                       -- byte-sorted, comma-joined, may be empty
    class           TEXT    NOT NULL,
    origin          TEXT    NOT NULL,
    exportable      INTEGER NOT NULL CHECK (exportable IN (0, 1)),
    -- Immutable
    name            TEXT,
    public_key      BLOB,                                                   -- SubjectPublicKeyInfo, DER; NULL for a symmetric key
    predecessor     TEXT,
    created_at      INTEGER NOT NULL,
    -- Mutable, covered by the row tag
    lifecycle       TEXT    NOT NULL,                                       -- marks, outermost first: 'disabled superseded'
    revision        INTEGER NOT NULL,                                       -- that of the newest state-change entry
    successor       TEXT,
    delete_at       INTEGER,
    row_tag         BLOB    CHECK (length(row_tag) = 32),                   -- NULL after a change made without opening the key
    -- Mutable
    generation      INTEGER NOT NULL,                                       -- of the data key in force
    sealed          BLOB,                                                   -- (ciphertext) the private key; NULL for a tombstone
    state           TEXT    NOT NULL GENERATED ALWAYS AS (substr(lifecycle, 1, instr(lifecycle || ' ', ' ') - 1)) VIRTUAL
) STRICT;

CREATE INDEX keys_by_node  ON keys (node);
CREATE INDEX keys_by_state ON keys (state);
CREATE INDEX keys_due      ON keys (delete_at) WHERE delete_at IS NOT NULL;

-- Wrapped copies of data keys, 1..n a key; none for a tombstone.
CREATE TABLE wraps (
    position        INTEGER PRIMARY KEY,                                    -- order of making
    -- Immutable
    key             TEXT    NOT NULL REFERENCES keys (id),
    wrapper_key     TEXT    NOT NULL REFERENCES wrapper_keys (id),
    generation      INTEGER NOT NULL,                                       -- of the data key inside
    wrapped         BLOB    NOT NULL,                                       -- (ciphertext) what the provider returned
    created_at      INTEGER NOT NULL,
    -- Mutable
    verified_at     INTEGER,                                                -- when it last gave the right data key
    quarantined     INTEGER NOT NULL CHECK (quarantined IN (0, 1)),         -- did not open although its wrapper key works
    UNIQUE (key, wrapper_key, generation)
) STRICT;

CREATE INDEX wraps_by_wrapper_key ON wraps (wrapper_key, key);

-- Jobs that give every key a wrap under another wrapper key.
CREATE TABLE rotations (
    position        INTEGER PRIMARY KEY,
    -- Immutable
    id              TEXT    NOT NULL UNIQUE,
    from_key        TEXT    NOT NULL REFERENCES wrapper_keys (id),
    to_key          TEXT    NOT NULL REFERENCES wrapper_keys (id),
    started_at      INTEGER NOT NULL,
    -- Mutable
    state           TEXT    NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'aborted')),
    total           INTEGER NOT NULL,
    done            INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    errors          TEXT    NOT NULL,                                       -- JSON array
    finished_at     INTEGER
) STRICT;

CREATE UNIQUE INDEX rotations_one_running ON rotations (state) WHERE state = 'running';

-- The log: append-only, without gaps. `entry` alone is hashed; the columns after `leaf` are an index into it.
CREATE TABLE audit_entries (
    sequence        INTEGER PRIMARY KEY,
    -- Immutable, all of it
    entry           BLOB    NOT NULL,                                       -- canonical JSON, versioned
    leaf            BLOB    NOT NULL CHECK (length(leaf) = 32),             -- RFC 6962 leaf hash of `entry`
    at              INTEGER NOT NULL,
    principal       TEXT    NOT NULL,
    operation       TEXT    NOT NULL,
    key_id          TEXT,
    node            TEXT,
    outcome         TEXT    NOT NULL,
    key_revision    INTEGER                                                 -- set by changes of a key's state
) STRICT;

-- Each index costs every signature: these three carry the queries, the rest filters within them.
CREATE INDEX audit_entries_by_key  ON audit_entries (key_id, sequence) WHERE key_id IS NOT NULL;
CREATE INDEX audit_entries_by_time ON audit_entries (at);
CREATE INDEX audit_entries_states  ON audit_entries (key_id, sequence) WHERE key_revision IS NOT NULL;

-- Signed notes over the log's tree.
CREATE TABLE audit_checkpoints (
    -- Immutable
    origin          TEXT    NOT NULL,                                       -- vault/instance/incarnation
    size            INTEGER NOT NULL,                                       -- of the tree
    note            BLOB    NOT NULL,                                       -- C2SP signed note
    at              INTEGER NOT NULL,
    PRIMARY KEY (origin, size)
) STRICT, WITHOUT ROWID;

-- What calls with an Idempotency-Key answered, until they expire.
CREATE TABLE idempotency (
    principal       TEXT    NOT NULL,
    route           TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    body_hash       BLOB    NOT NULL CHECK (length(body_hash) = 32),        -- keyed, of the body without its secrets
    answer          BLOB    NOT NULL,                                       -- no secrets
    expires_at      INTEGER NOT NULL,
    PRIMARY KEY (principal, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
