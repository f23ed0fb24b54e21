-- Several replicas: which of them are alive, and which one runs each background task. Times are those of the database, so that the clocks of the
-- replicas do not matter.

ALTER TABLE instances
    ADD COLUMN version  text,
    ADD COLUMN seen_at  timestamptz;

CREATE TABLE leases (
    task            text    PRIMARY KEY,
    holder          integer NOT NULL REFERENCES instances (number),
    until           timestamptz NOT NULL
);

-- Programs that know at least this schema can work with the tables, so that two adjacent versions can run side by side.
ALTER TABLE meta ADD COLUMN oldest_schema integer NOT NULL DEFAULT 1;
