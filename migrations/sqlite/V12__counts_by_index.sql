-- Canton Key Vault, schema 12: a count over all keys reads indexes alone. Before, it read each row of keys and of wraps, which took longer than the time
-- limit of a read with a million keys.

-- All that tells whether a key has a verified wrap of its data key under a wrapper key. These columns of a wrap never change, except `quarantined`.
DROP INDEX wraps_by_wrapper_key;
CREATE INDEX wraps_by_wrapper_key ON wraps (wrapper_key, key, generation, quarantined, verified_at);

-- The keys that a job must process: all except destroyed ones.
CREATE INDEX keys_present ON keys (id, generation, sealed_at) WHERE sealed IS NOT NULL;
