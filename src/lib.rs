//! Canton Key Vault: keeps the private keys of Canton nodes sealed, opens them only into memory, and audits every use.

pub mod api;
pub mod audit;
pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod files;
pub mod kms;
pub mod mtls;
pub mod server;
pub mod sinks;
pub mod storage;
pub mod topology;
pub mod traces;
pub mod vault;
