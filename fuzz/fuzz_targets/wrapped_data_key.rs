//! No bytes unwrap under a local wrapper key but what it wrapped, for the context that it wrapped them for.
#![no_main]

use std::sync::{Arc, LazyLock};

use canton_keyvault::{
    crypto::{SecretBytes, SystemRandom},
    domain::{EncryptionContext, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{WrapperConfig, Providers, Wrapper, WrapperError, create_key_file},
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

struct Local {
    runtime: Runtime,
    wrapper: Arc<dyn Wrapper>,
    wrapped: Vec<u8>,
}

static LOCAL: LazyLock<Local> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let file = std::env::temp_dir().join(format!("canton-keyvault-fuzz-{}.key", std::process::id()));
    let identity = create_key_file(&file, &SystemRandom::default()).expect("a key file");
    let reference = file.display().to_string();
    let config: WrapperConfig = toml::from_str(&format!("provider = 'local'\nreference = '{reference}'\nallowed = ['{reference}']"))
        .expect("a configuration");
    let providers = Providers::new(config, Arc::new(SystemRandom::default())).expect("providers");
    let key = WrapperKey {
        id: WrapperKeyId::from_random([0; 6]),
        name: None,
        provider: ProviderKind::Local,
        identity,
        reference,
        regions: Vec::new(),
        state: WrapperState::Active,
        canary: Vec::new(),
        created_at: Timestamp::from_micros(0),
    };
    let wrapper = runtime.block_on(providers.connect(&key)).expect("a wrapper");
    std::fs::remove_file(file).expect("the file is there");
    let wrapped = runtime.block_on(wrapper.wrap(&SecretBytes::copy_of(&[7; 32]), &context())).expect("a wrap").bytes;
    Local { runtime, wrapper, wrapped }
});

fn context() -> EncryptionContext {
    EncryptionContext::new(vec![("version", "1".into()), ("vault", "fuzz".into())])
}

fuzz_target!(|data: &[u8]| {
    let Local { runtime, wrapper, wrapped } = &*LOCAL;
    // The good wrap with the input laid over it, so that the fuzzer need not guess a tag; and the input alone.
    let laid_over: Vec<u8> = wrapped.iter().zip(data.iter().chain(std::iter::repeat(&0))).map(|(good, change)| good ^ change).collect();
    for bytes in [laid_over.as_slice(), data] {
        match runtime.block_on(wrapper.unwrap(bytes, &context())) {
            Ok(unwrapped) => assert!(bytes == wrapped && unwrapped.data_key.expose() == [7; 32]),
            Err(error) => assert!(matches!(error, WrapperError::Invalid { .. })),
        }
    }
});
