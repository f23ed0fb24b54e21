//! All integration tests, in one binary: each more would link the whole tree again.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic; clippy.toml covers test functions, not their helpers")]

mod aws_faults;
mod aws_outage;
mod aws_regions;
mod aws_storm;
mod aws_vault;
mod backup;
mod audit_query;
mod bad_input;
mod aws_wrapper_keys;
mod canton_vectors;
mod client;
mod destruction;
mod example_config;
mod frozen_envelopes;
mod import_export;
mod kill;
mod known;
mod layers;
mod life;
mod matrix;
mod readme;
mod reload;
mod schemes;
mod storage_conformance;
mod storage_crash;
mod storage_disk;
mod storage_fixtures;
mod storage_sqlite;
mod support;
mod tamper;
mod transport;
mod vault_smoke;
mod wrapper_aws_kms;
mod wrapper_conformance;
mod wycheproof;
