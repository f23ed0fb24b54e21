-- Canton Key Vault, schema 2: jobs over all keys. No program ever wrote a row into `rotations`.

DROP TABLE rotations;

-- Jobs over all keys: rotations (every key gets a wrap under another wrapper key) and re-seals (every key gets a new data key).
CREATE TABLE jobs (
    position        INTEGER PRIMARY KEY,                                    -- order of starting
    -- Immutable
    id              TEXT    NOT NULL UNIQUE,                                -- job-…
    kind            TEXT    NOT NULL CHECK (kind IN ('rotation', 'reseal')),
    from_key        TEXT    REFERENCES wrapper_keys (id),                   -- of a rotation: the wrapper key that was active before
    to_key          TEXT    REFERENCES wrapper_keys (id),                   -- of a rotation: the one that is active since
    started_at      INTEGER NOT NULL,
    -- Mutable
    state           TEXT    NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'aborted')),
    total           INTEGER NOT NULL,                                       -- these three as of its end: while it runs they are counted
    done            INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    errors          TEXT    NOT NULL,                                       -- JSON array of {key_id, code, detail}
    finished_at     INTEGER,
    CHECK ((kind = 'rotation') = (from_key IS NOT NULL AND to_key IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX jobs_one_running ON jobs (state) WHERE state = 'running';

-- When the private key was last sealed: with its generation.
ALTER TABLE keys ADD COLUMN sealed_at INTEGER NOT NULL DEFAULT 0;
UPDATE keys SET sealed_at = created_at;

-- When a data key was last wrapped or unwrapped under it for something in the log.
ALTER TABLE wrapper_keys ADD COLUMN last_used_at INTEGER;
