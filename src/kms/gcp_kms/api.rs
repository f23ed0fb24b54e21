//! The calls of Cloud KMS. Each request has an id, which the audit log of Google has too.

use serde::{Serialize, de::DeserializeOwned};

use super::error::{Refusal, sort};
use crate::{
    domain::Hex,
    kms::{
        http::{HttpRequest, HttpResponse},
        oauth::{self, Api, AuthorizedServer},
    },
};

/// Cloud KMS at one address.
pub(super) type CloudKms = AuthorizedServer<GoogleApi>;
/// A call that failed.
pub(super) type Failed = oauth::Failed<Refusal>;
/// A successful answer.
pub(super) type Answered = oauth::Answered<Refusal>;

/// What is particular to Cloud KMS.
pub(super) struct GoogleApi;

impl Api for GoogleApi {
    /// Cloud Audit Logs have it as `requestMetadata.requestAttributes.reason` (<https://cloud.google.com/apis/docs/system-parameters>).
    const ID_HEADER: &'static str = "x-goog-request-reason";
    type Refusal = Refusal;

    fn request_id(random: [u8; 16]) -> String {
        format!("canton-keyvault-{}", Hex(&random))
    }

    fn sort(answer: &HttpResponse) -> Refusal {
        sort(answer)
    }
}

impl CloudKms {
    /// `GET /v1/<name>`, as the method `action` of the API.
    pub(super) async fn get<T: DeserializeOwned>(&self, action: &str, name: &str) -> Result<T, Failed> {
        self.send(action, name, &HttpRequest::get(format!("/v1/{name}"))).await?.read()
    }

    /// `POST /v1/<name><rest>`, as the method `action` of the API.
    pub(super) async fn post(&self, action: &str, name: &str, rest: &str, body: &impl Serialize) -> Result<Answered, Failed> {
        self.send(action, name, &HttpRequest::post(format!("/v1/{name}{rest}"), body)).await
    }
}
