//! The `canton-keyvault` binary.

fn main() -> std::process::ExitCode {
    canton_keyvault::cli::run()
}
