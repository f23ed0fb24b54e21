//! The calls of one vault. Each request has an id, which the log of the vault has as its correlation id.

use serde::Serialize;

use super::error::{Refusal, sort};
use crate::kms::{
    http::{HttpRequest, HttpResponse},
    oauth::{self, Api, AuthorizedServer},
};

/// A vault.
pub(super) type AzureVault = AuthorizedServer<AzureApi>;
/// A call that failed.
pub(super) type Failed = oauth::Failed<Refusal>;
/// A successful answer.
pub(super) type Answered = oauth::Answered<Refusal>;

/// What is particular to Azure Key Vault.
pub(super) struct AzureApi;

impl Api for AzureApi {
    /// <https://learn.microsoft.com/azure/key-vault/general/logging>: `CorrelationId`
    const ID_HEADER: &'static str = "x-ms-client-request-id";
    type Refusal = Refusal;

    /// A random UUID.
    fn request_id(random: [u8; 16]) -> String {
        // Version 4 (RFC 9562, section 5.4).
        let number = u128::from_be_bytes(random) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let text = format!("{number:032x}");
        let part = |from, to| text.get(from..to).unwrap_or_default();
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    }

    fn sort(answer: &HttpResponse) -> Refusal {
        sort(answer)
    }
}

impl AzureVault {
    /// `GET /<path>`, as the operation `action` in the log of the vault.
    pub(super) async fn get(&self, action: &str, path: &str) -> Result<Answered, Failed> {
        self.send(action, path, &HttpRequest::get(format!("/{path}{API_VERSION}"))).await
    }

    /// `POST /<path>`, as the operation `action` in the log of the vault.
    pub(super) async fn post(&self, action: &str, path: &str, body: &impl Serialize) -> Result<Answered, Failed> {
        self.send(action, path, &HttpRequest::post(format!("/{path}{API_VERSION}"), body)).await
    }
}

const API_VERSION: &str = "?api-version=7.4";
