//! Everything that parses as a configuration gives a policy, and equals itself.
#![no_main]

use std::path::Path;

use canton_keyvault::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(config) = Config::parse(text, Path::new("/etc/canton-keyvault/keyvault.toml")) else { return };
    assert!(config.policy().is_ok());
    assert!(config.needs_restart(&config).is_empty());
    let _ = config.wrapper.warning();
});
