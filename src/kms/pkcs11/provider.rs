//! The provider of keys in tokens: only allowed keys are resolved, connected and created.

use std::sync::Arc;

use async_trait::async_trait;
use cryptoki::{mechanism::Mechanism, object::Attribute};

use super::{
    error::Pkcs11Error,
    key_reference::{KeyUri, NotAKeyUri, Pkcs11Key},
    token::Token,
    token_key::TokenKey,
};
use crate::{
    domain::{ProviderKind, WrapperKey},
    kms::{
        CreateOptions, Description, Wrapper, WrapperError,
        allowlist::Allowlist,
        provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
        resilience::RegionalWrapper,
    },
};

/// The entry in the table of providers.
pub(in crate::kms) const ENTRY: ProviderEntry =
    ProviderEntry { kind: ProviderKind::Pkcs11, own_pattern, warning: |_| None, new: |settings| Box::new(Pkcs11Provider::new(settings)) };

/// The pattern of the configured key. A label has none: the permission to label another key would be the permission to choose the wrapper key.
fn own_pattern(reference: &str) -> Result<String, String> {
    let uri: KeyUri = reference.parse().map_err(|error: NotAKeyUri| error.to_string())?;
    uri.pattern().ok_or_else(|| {
        "reference names the key by its label only, which another key can get. Name it by id, or put its identity (pkcs11:…), or \
         pkcs11:<serial number of the token>:*, under [wrapper] allowed"
            .to_owned()
    })
}

/// Wrapper keys in the tokens of the configuration.
struct Pkcs11Provider {
    settings: Arc<Settings>,
    tokens: Vec<Arc<Token>>,
}

#[async_trait]
impl Provider for Pkcs11Provider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, NO_REGIONS));
        }
        let uri: KeyUri = reference.parse().map_err(|error: NotAKeyUri| unfit(reference, &error.to_string()))?;
        // A URI without the serial number or the id is known only when the token was asked.
        let known = uri.identity().map(|key| key.to_string());
        let not_allowed = || WrapperError::NotAllowed { reference: reference.to_owned() };
        match &known {
            Some(identity) => self.settings.allowed.pkcs11(identity),
            None => self.settings.allowed.names_pkcs11_identities(),
        }
        .then_some(())
        .ok_or_else(not_allowed)?;
        let found = self.wrapper(self.token_of(reference, &uri)?, reference, uri, None).describe().await?;
        if self.settings.allowed.pkcs11(&found.identity) { Ok(found) } else { Err(not_allowed()) }
    }

    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&key.reference, what);
        let registered: Pkcs11Key = key.identity.parse().map_err(|_| wrong("the registered identity is not that of a key in a token"))?;
        let uri: KeyUri = key.reference.parse().map_err(|error: NotAKeyUri| wrong(&error.to_string()))?;
        if uri.identity().as_ref() != Some(&registered) {
            return Err(wrong(&format!("the registered identity, {registered}, is that of another key")));
        }
        if !self.settings.allowed.pkcs11(&key.identity) {
            return Err(WrapperError::NotAllowed { reference: key.reference.clone() });
        }
        let token = self.token_of(&key.reference, &uri).map_err(|_| wrong(NO_SUCH_TOKEN))?;
        Ok(self.wrapper(token, &key.reference, uri, Some(registered)))
    }

    /// Makes a key in the first token that can neither leave the token nor be changed.
    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        const NEW: &str = "a new key in a token";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(NEW, NO_REGIONS));
        }
        if !self.settings.config.may_create {
            return Err(unfit(NEW, "this vault may not create wrapper keys; set may_create under [wrapper], or create it yourself"));
        }
        let token = self.tokens.first().ok_or_else(|| unfit(NEW, "no [[wrapper.pkcs11]] is configured"))?;
        let mut id = vec![0; 16];
        self.settings.random.fill(&mut id).map_err(|_| misconfigured(NEW, "the random number generator of the system failed"))?;
        let serial = token.run(|session| Ok(session.serial.clone())).await.map_err(|error| error.about(NEW))?;
        let key = Pkcs11Key::new(&serial, &id);
        if !self.settings.allowed.pkcs11(&key.to_string()) {
            return Err(WrapperError::NotAllowed { reference: key.to_string() });
        }
        let reference = key.uri(&token.label);
        let made = token.run(move |session| {
            session.writing(|session| session.generate_key(&Mechanism::AesKeyGen, &template(&id))).map_err(|error| match error {
                // The token may have made the key. It is not made again.
                Pkcs11Error::Lost => Pkcs11Error::Ambiguous,
                error => error,
            })
        });
        made.await.map_err(|error| error.about(&reference))?;
        self.resolve(&reference, &[]).await
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        patterns.pkcs11(&key.identity)
    }

    /// Each token is there and accepts the PIN.
    async fn check_servers(&self) -> Vec<Result<String, String>> {
        let mut found = Vec::new();
        for token in &self.tokens {
            let name = format!("the PKCS#11 token {}", token.label);
            let checked = token.run(|session| session.token_is_present().map(|()| session.serial.clone()));
            let limit = self.settings.config.limits.timeout;
            let checked = tokio::time::timeout(limit, checked).await.unwrap_or(Err(Pkcs11Error::Outage(crate::kms::Outage::TimedOut)));
            found.push(match checked {
                Ok(serial) => Ok(format!("{name} has the serial number {serial} and accepts the PIN")),
                Err(error) => Err(error.about(&name).with_remedy()),
            });
        }
        found
    }
}

impl Pkcs11Provider {
    fn new(settings: Arc<Settings>) -> Self {
        let limits = &settings.config.limits;
        let numbered = settings.config.pkcs11.iter().zip(1..);
        let tokens = numbered.map(|(entry, number)| Arc::new(Token::new(entry, number, limits))).collect();
        Self { settings, tokens }
    }

    /// The token that a URI names by its label. With one token it is that one.
    fn token_of(&self, reference: &str, uri: &KeyUri) -> Result<&Arc<Token>, WrapperError> {
        let found = match (&uri.token, self.tokens.as_slice()) {
            (Some(label), all) => all.iter().find(|token| token.label == *label),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.ok_or_else(|| unfit(reference, NO_SUCH_TOKEN))
    }

    /// The key behind the guard.
    fn wrapper(&self, token: &Arc<Token>, reference: &str, uri: KeyUri, registered: Option<Pkcs11Key>) -> Arc<dyn Wrapper> {
        let key = TokenKey {
            token: Arc::clone(token),
            uri: Arc::new(uri),
            reference: reference.to_owned(),
            registered,
            random: Arc::clone(&self.settings.random),
        };
        let (region, circuit_breaker) = (Arc::clone(&token.region), Arc::clone(&token.circuit_breaker));
        let regional = RegionalWrapper { region, circuit_breaker, wrapper: Arc::new(key) };
        Arc::new(self.settings.resilient(reference, vec![regional], Arc::clone(&token.rate_limit)))
    }
}

/// The attributes of a new key: used for wrapping only, and never outside of the token.
fn template(id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
        Attribute::ValueLen(32.into()),
        Attribute::Id(id.to_vec()),
        Attribute::Label(b"canton-keyvault".to_vec()),
    ]
}

const NO_REGIONS: &str = "a key in a token has no regions";
const NO_SUCH_TOKEN: &str = "no [[wrapper.pkcs11]] of the configuration has a token with this label";
