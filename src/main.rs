//! The `canton-keyvault` binary.

fn main() {}
