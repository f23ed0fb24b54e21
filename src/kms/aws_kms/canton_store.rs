//! Decrypts rows of Canton's encrypted private key store: ciphertexts of one AWS KMS key, made without an encryption context
//! (`AwsKms.encryptSymmetric` in Canton).

use std::sync::Arc;

use aws_config::Region;
use aws_sdk_kms::{Client, primitives::Blob, types::EncryptionAlgorithmSpec};

use super::{
    credentials::{Action, AwsCredentials},
    error::unusable_answer,
    key_arn::AwsKey,
};
use crate::{
    crypto::SecretBytes,
    kms::{EndpointUrl, WrapperError},
};

/// Decrypts with the credentials of the environment.
pub struct CantonStoreDecryption {
    credentials: Arc<AwsCredentials>,
    region: Option<String>,
    endpoint: Option<EndpointUrl>,
}

impl CantonStoreDecryption {
    /// Reads the environment and the AWS configuration files. `region` overrides the region of key ARNs, for replicas of multi-Region keys.
    pub async fn new(region: Option<String>, endpoint: Option<EndpointUrl>) -> Self {
        Self { credentials: AwsCredentials::of_command(region.as_deref()).await, region, endpoint }
    }

    /// Decrypts the column `data` of a row. `key` is its column `wrapper_key_id`: a key ARN, a key id or an alias.
    ///
    /// # Errors
    /// [`WrapperError`]; `Misconfigured` without a region.
    pub async fn decrypt(&self, key: &str, data: &[u8]) -> Result<SecretBytes, WrapperError> {
        let request = self.client(key)?.decrypt().key_id(key).ciphertext_blob(Blob::new(data));
        let request = request.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        let answer =
            self.credentials.send(Action { name: "Decrypt", region: "any" }, key, "kms:Decrypt", || request.clone().send()).await?;
        Ok(answer.plaintext.ok_or_else(|| unusable_answer(key))?.into_inner().into())
    }

    fn client(&self, key: &str) -> Result<Client, WrapperError> {
        let of_key = || AwsKey::from_arn(key).ok().map(|(_, region)| Region::new(region));
        let region = self.region.clone().map(Region::new).or_else(of_key).or_else(|| self.credentials.region().cloned());
        let region = region.ok_or_else(|| WrapperError::Misconfigured {
            reference: key.to_owned(),
            what: "its region is not known. Add --aws-region, or set AWS_REGION".to_owned(),
        })?;
        let mut config = self.credentials.client_config().region(region);
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint.as_str());
        }
        Ok(Client::from_conf(config.build()))
    }
}
