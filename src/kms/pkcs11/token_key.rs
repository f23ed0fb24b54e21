//! A wrapper key in a token: AES-256-GCM in the token, with the context as associated data. The key never leaves the token.
//!
//! A wrap is `0x01 ‖ iv(12) ‖ ciphertext(32) ‖ tag(16)`. The IV is random and made by the vault. NIST SP 800-38D §8.3 permits 2^32 such encryptions under
//! one key, over all programs that use it.

use std::sync::Arc;

use async_trait::async_trait;
use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, ObjectClass, ObjectHandle},
};

use super::{
    error::{Pkcs11Error, of_decryption, of_encryption},
    key_attributes::KeyAttributes,
    key_reference::{KeyUri, Pkcs11Key},
    token::{Token, TokenSession},
};
use crate::{
    crypto::{Random, SecretBytes},
    domain::{EncryptionContext, PostureLine, VaultId},
    kms::{Denial, Description, KmsReceipt, Unwrapped, Wrapped, Wrapper, WrapperError},
};

/// A key in a token.
pub(super) struct TokenKey {
    pub(super) token: Arc<Token>,
    pub(super) uri: Arc<KeyUri>,
    /// How errors name it.
    pub(super) reference: String,
    /// The expected key. Unknown only while it is being resolved.
    pub(super) registered: Option<Pkcs11Key>,
    pub(super) random: Arc<dyn Random>,
}

#[async_trait]
impl Wrapper for TokenKey {
    /// Reads the attributes first, because a token wraps under a key that can be extracted.
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        let (data_key, context, iv) = (SecretBytes::copy_of(data_key.expose()), context.canonical_bytes(), self.iv()?);
        let bytes = self
            .run(move |session, key| {
                if let Some(denial) = KeyAttributes::read(&session.session, key)?.refusal() {
                    return Err(Pkcs11Error::Denied(denial));
                }
                encrypt(session, key, iv, &context, data_key.expose())
            })
            .await?;
        Ok(Wrapped { bytes, receipt: KmsReceipt::default() })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        let (wrapped, context) = (wrapped.to_vec(), context.canonical_bytes());
        let opened = self.try_run(move |session, key| decrypt(session, key, &wrapped, &context)).await;
        let data_key = match opened {
            Err(Pkcs11Error::Ambiguous) => Err(self.why_not().await),
            opened => opened,
        };
        let data_key = data_key.map_err(|error| error.about(&self.reference))?;
        Ok(Unwrapped { data_key, receipt: KmsReceipt::default() })
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        let (attributes, serial) =
            self.run(|session, key| Ok((KeyAttributes::read(&session.session, key)?, session.serial.clone()))).await?;
        if self.registered.is_none()
            && let Some(what) = attributes.unfit()
        {
            return Err(WrapperError::Unfit { reference: self.reference.clone(), what });
        }
        let key = Pkcs11Key::new(&serial, &attributes.id);
        let (identity, reference) = (key.to_string(), key.uri(&self.token.label));
        Ok(Description { identity, reference, regions: Vec::new(), usable: attributes.is_usable() })
    }

    async fn posture(&self, _: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        self.run(|session, key| Ok(KeyAttributes::read(&session.session, key)?.posture())).await
    }
}

impl TokenKey {
    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&TokenSession, ObjectHandle) -> Result<T, Pkcs11Error> + Send + 'static,
    ) -> Result<T, WrapperError> {
        self.try_run(work).await.map_err(|error| error.about(&self.reference))
    }

    /// Runs `work` with the key, which is looked for each time.
    async fn try_run<T: Send + 'static>(
        &self,
        work: impl Fn(&TokenSession, ObjectHandle) -> Result<T, Pkcs11Error> + Send + 'static,
    ) -> Result<T, Pkcs11Error> {
        let (uri, serial) = (Arc::clone(&self.uri), self.uri.serial.clone());
        self.token
            .run(move |session| {
                if let Some(serial) = serial.as_ref().filter(|serial| **serial != session.serial) {
                    return Err(Pkcs11Error::Misconfigured(format!(
                        "the token with this label has the serial number {}, not {serial}: it is another one",
                        session.serial
                    )));
                }
                work(session, find(session, &uri)?)
            })
            .await
    }

    /// Why a wrap does not open, if the token gives no reason: it is the wrap, if the key opens what it makes now.
    async fn why_not(&self) -> Pkcs11Error {
        let Ok(iv) = self.iv() else { return Pkcs11Error::Ambiguous };
        let control = self.try_run(move |session, key| {
            let made = encrypt(session, key, iv, b"control", &[0; DATA_KEY_LENGTH])?;
            decrypt(session, key, &made, b"control")
        });
        match control.await {
            Ok(_) => Pkcs11Error::Invalid,
            Err(error) => error,
        }
    }

    fn iv(&self) -> Result<[u8; IV_LENGTH], WrapperError> {
        let mut iv = [0; IV_LENGTH];
        let failed = |_| Pkcs11Error::Misconfigured("the random number generator of the system failed".to_owned()).about(&self.reference);
        self.random.fill(&mut iv).map_err(failed)?;
        Ok(iv)
    }
}

fn find(session: &TokenSession, uri: &KeyUri) -> Result<ObjectHandle, Pkcs11Error> {
    let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true)];
    template.extend(uri.id.clone().map(Attribute::Id));
    template.extend(uri.object.clone().map(|label| Attribute::Label(label.into_bytes())));
    match session.session.find_objects(&template)?.as_slice() {
        [key] => Ok(*key),
        [] => {
            session.token_is_present()?;
            Err(Pkcs11Error::Denied(Denial::NotFound))
        }
        _ => Err(Pkcs11Error::Misconfigured("the token has several keys with this id or label; give each an id of its own".to_owned())),
    }
}

fn encrypt(
    session: &TokenSession,
    key: ObjectHandle,
    mut iv: [u8; IV_LENGTH],
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, Pkcs11Error> {
    let parameters = GcmParams::new(&mut iv, context, TAG_BITS.into())?;
    let sealed = session.session.encrypt(&Mechanism::AesGcm(parameters), key, plaintext).map_err(of_encryption)?;
    if sealed.len() != SEALED_LENGTH {
        return Err(Pkcs11Error::Misconfigured(
            "the token changes the form of AES-GCM: it must return the ciphertext and a tag of 16 bytes, without an IV of its own"
                .to_owned(),
        ));
    }
    // The token may have replaced the IV. The buffer has the one that was used.
    Ok([&[VERSION], iv.as_slice(), &sealed].concat())
}

fn decrypt(session: &TokenSession, key: ObjectHandle, wrapped: &[u8], context: &[u8]) -> Result<SecretBytes, Pkcs11Error> {
    let [VERSION, rest @ ..] = wrapped else { return Err(Pkcs11Error::Invalid) };
    let (iv, sealed) = rest.split_first_chunk::<IV_LENGTH>().ok_or(Pkcs11Error::Invalid)?;
    if sealed.len() != SEALED_LENGTH {
        return Err(Pkcs11Error::Invalid);
    }
    let mut iv = *iv;
    let parameters = GcmParams::new(&mut iv, context, TAG_BITS.into())?;
    Ok(session.session.decrypt(&Mechanism::AesGcm(parameters), key, sealed).map_err(of_decryption)?.into())
}

const VERSION: u8 = 0x01;
const IV_LENGTH: usize = 12;
const TAG_BITS: u64 = 128;
const DATA_KEY_LENGTH: usize = 32;
const SEALED_LENGTH: usize = DATA_KEY_LENGTH + 16;
