//! The `canton-keyvault` binary.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Freed heap is zeroed: what passed through a buffer of somebody else's making does not stay.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    canton_keyvault::cli::run()
}
