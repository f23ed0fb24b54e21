//! The `canton-keyvault` binary.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Freed heap memory is zeroed, so that buffers of libraries do not keep secrets.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    canton_keyvault::cli::run()
}
