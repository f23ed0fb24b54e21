//! Access tokens by workload identity federation: a token of another issuer is exchanged at the Security Token Service of Google, and if the file says so, the
//! result for a token of a service account (<https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers>).

use std::time::Duration;

use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    SCOPE,
    external_account::{Endpoint, ExternalAccount, Format, Impersonation, Source},
};
use crate::{
    client::connector::TlsFiles,
    kms::{
        Outage,
        call_error::CallError,
        http::{HttpRequest, HttpServer, ServerAddress},
        oauth::{AccessToken, NewToken, form, one_line, request_token, request_token_in, token_in},
    },
};

/// How the servers of an exchange are reached.
pub(super) struct Exchange<'a> {
    pub(super) files: &'a TlsFiles,
    pub(super) connect_timeout: Duration,
}

impl Exchange<'_> {
    /// An access token for Cloud KMS.
    ///
    /// # Errors
    /// `LoginRefused` if Google refuses the token or the impersonation, `CredentialsUnavailable`, or `Misconfigured` for a source that cannot be used.
    pub(super) async fn access_token(&self, account: &ExternalAccount) -> Result<AccessToken, CallError> {
        let subject_token = self.subject_token(account).await?;
        let body = form(&[
            ("audience", &account.audience),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            // With impersonation, the token of the exchange may only ask for the token of the service account.
            ("scope", if account.impersonation.is_some() { IAM_SCOPE } else { SCOPE }),
            ("subject_token_type", &account.subject_token_type),
            ("subject_token", &subject_token),
        ]);
        let ask = HttpRequest::form(account.token_url.path.clone(), body);
        let exchanged = request_token(&self.server(&account.token_url), &ask, &[]).await?;
        match &account.impersonation {
            None => Ok(exchanged),
            Some(impersonation) => self.impersonated(impersonation, &exchanged).await,
        }
    }

    /// The token of the other issuer, as it is now.
    async fn subject_token(&self, account: &ExternalAccount) -> Result<Zeroizing<String>, CallError> {
        match &account.source {
            Source::File(file) => {
                let bytes = token_in(FILE, file.clone()).await?;
                token(&account.format, &bytes, &format!("{FILE} {}", file.display()))
            }
            Source::Url(endpoint, headers) => {
                let server = self.server(endpoint);
                let answer = server.send(&HttpRequest::get(endpoint.path.clone()), headers, None).await.map_err(|error| match error {
                    CallError::Outage(outage) if outage != Outage::TlsFailed => UNAVAILABLE,
                    error => error,
                })?;
                match answer.status {
                    200 => token(&account.format, &answer.body, &format!("the answer of {URL} {}", endpoint.address)),
                    404 | 410 | 429 | 500.. => {
                        tracing::warn!(address = %endpoint.address, status = answer.status, "no token of the other issuer is given now");
                        Err(UNAVAILABLE)
                    }
                    status => {
                        let what =
                            format!("{URL} {} gives no token (status {status}); check the address and the headers", endpoint.address);
                        Err(CallError::Misconfigured(what))
                    }
                }
            }
        }
    }

    /// An access token of the service account (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>).
    async fn impersonated(&self, Impersonation { url, lifetime }: &Impersonation, by: &AccessToken) -> Result<AccessToken, CallError> {
        let body = GenerateAccessToken { scope: [SCOPE], lifetime: format!("{lifetime}s") };
        let headers = [(AUTHORIZATION, by.header()?)];
        // The answer has the time of the end, which a wrong clock would misjudge. The lifetime is the one that was asked for.
        let read = |body: &[u8]| {
            let Generated { access_token } = serde_json::from_slice(body).ok()?;
            Some(NewToken { value: Zeroizing::new(access_token.into_owned()), lifetime: *lifetime })
        };
        request_token_in(&self.server(url), &HttpRequest::post(url.path.clone(), &body), &headers, read).await
    }

    fn server(&self, endpoint: &Endpoint) -> HttpServer {
        let (address, files) = (endpoint.address.clone(), self.files.clone());
        HttpServer::new(ServerAddress { address, files, connect_timeout: self.connect_timeout })
    }
}

#[derive(Serialize)]
struct GenerateAccessToken {
    scope: [&'static str; 1],
    lifetime: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated<'a> {
    /// Borrowed from the answer, which is wiped.
    #[serde(borrow)]
    access_token: std::borrow::Cow<'a, str>,
}

/// The token in what a source has. `place` is for the error.
fn token(format: &Format, bytes: &[u8], place: &str) -> Result<Zeroizing<String>, CallError> {
    let Format::Json(field) = format else { return one_line(place, bytes) };
    let wrong = || CallError::Misconfigured(format!("{place}: it is no JSON object with the token in the field {field:?}"));
    let fields: std::collections::BTreeMap<&str, &serde_json::value::RawValue> = serde_json::from_slice(bytes).map_err(|_| wrong())?;
    let value = fields.get(field.as_str()).ok_or_else(wrong)?;
    let text: std::borrow::Cow<'_, str> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
    one_line(place, Zeroizing::new(text.into_owned()).as_bytes())
}

/// Only for access tokens of service accounts.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";
const FILE: &str = "credential_source.file";
const URL: &str = "credential_source.url";
const UNAVAILABLE: CallError = CallError::Outage(Outage::CredentialsUnavailable);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_or_a_field_of_an_object() {
        let json = Format::Json("id_token".to_owned());
        let read = |format: &Format, text: &str| token(format, text.as_bytes(), "the file").map(|token| token.to_string());
        assert_eq!(read(&Format::Text, " a.b.c\n").unwrap(), "a.b.c");
        assert_eq!(read(&json, r#"{"expires_in":"3599","id_token":"a.b.c"}"#).unwrap(), "a.b.c");
        for (format, text) in [
            (&Format::Text, "a.b.c\nhidden"),
            (&Format::Text, ""),
            (&json, r#"{"token":"hidden"}"#),
            (&json, r#"{"id_token":7}"#),
            (&json, "hidden"),
        ] {
            let Err(CallError::Misconfigured(what)) = read(format, text) else { panic!("{text}") };
            assert!(what.contains("the file") && !what.contains("hidden"), "{what}");
        }
    }
}
