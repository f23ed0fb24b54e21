-- Canton Key Vault on PostgreSQL, schema 1. Times are microseconds since 1970-01-01T00:00:00Z; words are those of the API. Columns beside sealed bytes,
-- wraps, row tags and entries are conveniences: the truth is authenticated elsewhere.

-- What is true of the store as a whole: one row. A state change locks it.
CREATE TABLE meta (
    only_row        boolean PRIMARY KEY CHECK (only_row),
    vault           text    NOT NULL,
    mode            text    NOT NULL CHECK (mode IN ('dev', 'production')),
    hash_key        bytea   NOT NULL CHECK (length(hash_key) = 32),
    created_at      bigint  NOT NULL,
    store_revision  bigint  NOT NULL,
    frozen          boolean NOT NULL
);

-- The instances: each has a log of its own.
CREATE TABLE instances (
    number            integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name              text    NOT NULL UNIQUE,
    removal_position  bigint  NOT NULL DEFAULT 0                            -- entries up to this one are removed, except state changes
);

CREATE TABLE wrapper_keys (
    position        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id              text    NOT NULL UNIQUE,
    provider        text    NOT NULL,
    identity        text    NOT NULL UNIQUE,
    reference       text    NOT NULL,
    canary          bytea   NOT NULL,
    created_at      bigint  NOT NULL,
    regions         text    NOT NULL,
    state           text    NOT NULL CHECK (state IN ('active', 'standby', 'draining', 'retiring', 'retired')),
    last_used_at    bigint
);
CREATE UNIQUE INDEX wrapper_keys_one_active ON wrapper_keys (state) WHERE state = 'active';

CREATE TABLE keys (
    position        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id              text    NOT NULL UNIQUE,
    node            text    NOT NULL,
    purpose         text    NOT NULL,
    spec            text    NOT NULL,
    usages          text    NOT NULL,
    class           text    NOT NULL,
    origin          text    NOT NULL,
    exportable      boolean NOT NULL,
    name            text,
    public_key      bytea,
    predecessor     text,
    created_at      bigint  NOT NULL,
    lifecycle       text    NOT NULL,
    revision        bigint  NOT NULL,
    successor       text,
    delete_at       bigint,
    row_tag         bytea   CHECK (length(row_tag) = 32),
    generation      bigint  NOT NULL,
    sealed          bytea,
    sealed_at       bigint  NOT NULL,
    state           text    NOT NULL GENERATED ALWAYS AS (split_part(lifecycle, ' ', 1)) STORED
);
CREATE INDEX keys_by_node  ON keys (node);
CREATE INDEX keys_by_state ON keys (state);
CREATE INDEX keys_due      ON keys (delete_at) WHERE delete_at IS NOT NULL;

CREATE TABLE wraps (
    position        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    key             text    NOT NULL REFERENCES keys (id),
    wrapper_key     text    NOT NULL REFERENCES wrapper_keys (id),
    generation      bigint  NOT NULL,
    wrapped         bytea   NOT NULL,
    created_at      bigint  NOT NULL,
    verified_at     bigint,
    quarantined     boolean NOT NULL,
    UNIQUE (key, wrapper_key, generation)
);
CREATE INDEX wraps_by_wrapper_key ON wraps (wrapper_key, key);

CREATE TABLE jobs (
    position        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id              text    NOT NULL UNIQUE,
    kind            text    NOT NULL CHECK (kind IN ('rotation', 'reseal')),
    from_key        text    REFERENCES wrapper_keys (id),
    to_key          text    REFERENCES wrapper_keys (id),
    started_at      bigint  NOT NULL,
    state           text    NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'aborted')),
    total           bigint  NOT NULL,
    done            bigint  NOT NULL,
    failed          bigint  NOT NULL,
    errors          text    NOT NULL,
    finished_at     bigint,
    CHECK ((kind = 'rotation') = (from_key IS NOT NULL AND to_key IS NOT NULL))
);
CREATE UNIQUE INDEX jobs_one_running ON jobs (state) WHERE state = 'running';

-- The logs: append-only, each without gaps. A removed entry keeps `leaf` and `at`; its other columns are empty.
CREATE TABLE audit_entries (
    instance        integer NOT NULL REFERENCES instances (number),
    sequence        bigint  NOT NULL,
    entry           bytea   NOT NULL,
    leaf            bytea   NOT NULL CHECK (length(leaf) = 32),
    at              bigint  NOT NULL,
    principal       text    NOT NULL,
    operation       text    NOT NULL,
    key_id          text,
    node            text,
    outcome         text    NOT NULL,
    key_revision    bigint,
    state_revision  bigint,                                                 -- of a state change: its number, over all instances
    PRIMARY KEY (instance, sequence)
);
CREATE INDEX audit_entries_by_key ON audit_entries (instance, key_id, sequence) WHERE key_id IS NOT NULL;
CREATE UNIQUE INDEX audit_entries_changes ON audit_entries (state_revision) WHERE state_revision IS NOT NULL;

-- Hashes of complete subtrees of each log.
CREATE TABLE audit_tree (
    instance        integer NOT NULL REFERENCES instances (number),
    level           integer NOT NULL CHECK (level >= 1),
    position        bigint  NOT NULL,
    hash            bytea   NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (instance, level, position)
);

CREATE TABLE audit_checkpoints (
    origin          text    NOT NULL,
    size            bigint  NOT NULL,
    note            bytea   NOT NULL,
    at              bigint  NOT NULL,
    PRIMARY KEY (origin, size)
);

CREATE TABLE audit_sinks (
    instance        integer NOT NULL REFERENCES instances (number),
    name            text    NOT NULL,
    sequence        bigint  NOT NULL CHECK (sequence >= 0),
    leaf            bytea   NOT NULL CHECK (length(leaf) = 32),
    at              bigint  NOT NULL,
    PRIMARY KEY (instance, name)
);

-- What occurs in each complete block of 1024 entries. A query skips the blocks without what it looks for.
CREATE TABLE audit_digests (
    instance        integer NOT NULL REFERENCES instances (number),
    block           bigint  NOT NULL,
    filter          bytea   NOT NULL,                                       -- a Bloom filter, see storage/digest.rs
    principals      text[]  NOT NULL,
    operations      text[]  NOT NULL,
    nodes           text[]  NOT NULL,
    outcomes        text[]  NOT NULL,
    first_at        bigint  NOT NULL,
    last_at         bigint  NOT NULL,
    PRIMARY KEY (instance, block)
);

CREATE TABLE audit_totals (
    instance        integer NOT NULL REFERENCES instances (number),
    day             bigint  NOT NULL,
    principal       text    NOT NULL,
    certificate     text    NOT NULL,
    node            text    NOT NULL,
    key_id          text    NOT NULL,
    operation       text    NOT NULL,
    outcome         text    NOT NULL,
    entries         bigint  NOT NULL,
    calls           bigint  NOT NULL,
    first_at        bigint  NOT NULL,
    last_at         bigint  NOT NULL,
    PRIMARY KEY (instance, day, principal, certificate, node, key_id, operation, outcome)
);

CREATE TABLE policies (
    digest          text    PRIMARY KEY,
    text            text    NOT NULL
);

CREATE TABLE idempotency (
    principal       text    NOT NULL,
    route           text    NOT NULL,
    key             text    NOT NULL,
    body_hash       bytea   NOT NULL CHECK (length(body_hash) = 32),
    answer          bytea   NOT NULL,
    expires_at      bigint  NOT NULL,
    PRIMARY KEY (principal, route, key)
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
