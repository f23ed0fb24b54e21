//! Spans around the use of a wrapper key: one for the use, and within it one for each request to the KMS (`resilience`).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsRotation, PostureLine, ProviderKind, VaultId, WrapperKey, WrapperKeyId},
    traces::{SpanKind, in_span},
};

use super::{Description, ForeignWrap, KmsReceipt, Unwrapped, Wrapped, Wrapper, WrapperError, resilience::outcome};

/// A wrapper key whose uses in a traced call have spans.
pub(super) struct TracedWrapper {
    id: WrapperKeyId,
    provider: ProviderKind,
    wrapper: Arc<dyn Wrapper>,
}

impl TracedWrapper {
    pub(super) fn new(key: &WrapperKey, wrapper: Arc<dyn Wrapper>) -> Self {
        Self { id: key.id, provider: key.provider, wrapper }
    }

    /// Runs a use in a span. The receipt says who answered.
    async fn traced<T>(
        &self,
        operation: &'static str,
        part: BoxFuture<'_, Result<T, WrapperError>>,
        receipt: impl Fn(&T) -> Option<&KmsReceipt>,
    ) -> Result<T, WrapperError> {
        in_span(operation, SpanKind::Internal, part, |span, answer| {
            span.text("keyvault.wrapper_key", self.id.to_string());
            span.text("keyvault.kms.provider", self.provider.as_str());
            let (region, request_id) = match answer {
                Ok(answer) => {
                    receipt(answer).map_or((None, None), |KmsReceipt { region, request_id }| (region.as_deref(), request_id.as_deref()))
                }
                Err(error) => (None, error.request_id()),
            };
            if let Some(region) = region {
                span.text("keyvault.kms.region", region.to_owned());
            }
            if let Some(request_id) = request_id {
                span.text("keyvault.kms.request_id", request_id.to_owned());
            }
            if answer.is_err() {
                span.failed(outcome(answer));
            }
        })
        .await
    }
}

#[async_trait]
impl Wrapper for TracedWrapper {
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        self.traced("wrap", self.wrapper.wrap(data_key, context), |wrapped| Some(&wrapped.receipt)).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        self.traced("unwrap", self.wrapper.unwrap(wrapped, context), |unwrapped| Some(&unwrapped.receipt)).await
    }

    fn can_rewrap_from(&self, other: &WrapperKey) -> bool {
        self.wrapper.can_rewrap_from(other)
    }

    async fn rewrap(&self, from: ForeignWrap<'_>, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        self.traced("rewrap", self.wrapper.rewrap(from, context), |wrapped| Some(&wrapped.receipt)).await
    }

    fn single_round_timeout(&self) -> Duration {
        self.wrapper.single_round_timeout()
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        self.traced("describe", self.wrapper.describe(), |_| None).await
    }

    async fn still_there(&self) -> Result<(), WrapperError> {
        self.wrapper.still_there().await
    }

    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        self.traced("rotation", self.wrapper.rotation(), |_| None).await
    }

    async fn posture(&self, vault: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        self.traced("posture", self.wrapper.posture(vault), |_| None).await
    }
}
