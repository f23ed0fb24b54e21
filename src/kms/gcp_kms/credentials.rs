//! Where the access tokens of the vault come from: the metadata server of the machine or pod, a signed assertion of a service account, or an exchange of a token of
//! another issuer.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::{assertion::ServiceAccount, external_account::ExternalAccount, token_exchange::Exchange};
use crate::{
    client::connector::TlsFiles,
    domain::Clock,
    kms::{
        CallLimits, GcpKmsConfig,
        call_error::CallError,
        http::{Address, HttpRequest, HttpServer, ServerAddress},
        oauth::{AccessToken, TokenSource, form, request_token, secret_in, token_in},
    },
};

/// The source of tokens that the configuration names. It sends no request.
pub(super) fn token_source(config: &GcpKmsConfig, metadata: Address, limits: &CallLimits, clock: Clock) -> Box<dyn TokenSource> {
    let files = TlsFiles { ca: Some(config.ca.clone()), client: None };
    let connect_timeout = limits.connect_timeout;
    match &config.credentials_file {
        Some(file) => Box::new(CredentialsFile { file: file.clone(), files, connect_timeout, clock }),
        None => Box::new(MetadataServer(HttpServer::new(ServerAddress { address: metadata, files, connect_timeout }))),
    }
}

/// The metadata server (<https://cloud.google.com/compute/docs/access/authenticate-workloads#applications>).
struct MetadataServer(HttpServer);

#[async_trait]
impl TokenSource for MetadataServer {
    async fn request(&self) -> Result<AccessToken, CallError> {
        // Without the header it refuses, so that no page in a browser can ask.
        let flavor = [(HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"))];
        let ask = HttpRequest::get("/computeMetadata/v1/instance/service-accounts/default/token".to_owned());
        request_token(&self.0, &ask, &flavor).await
    }
}

/// A file that is read at each request, so that it can be replaced while the vault serves.
struct CredentialsFile {
    file: PathBuf,
    files: TlsFiles,
    connect_timeout: Duration,
    clock: Clock,
}

/// The kinds of credential files that the vault can use.
#[derive(Debug, PartialEq, Eq)]
enum FileKind {
    ServiceAccount,
    ExternalAccount,
}

#[async_trait]
impl TokenSource for CredentialsFile {
    async fn request(&self) -> Result<AccessToken, CallError> {
        let bytes = token_in(OPTION, self.file.clone()).await?;
        match FileKind::of(&bytes).map_err(|what| self.wrong(&what))? {
            FileKind::ServiceAccount => self.by_assertion().await,
            // Has no secret unless a header is one, and often comes from a file that everybody may read, such as one of a ConfigMap.
            FileKind::ExternalAccount => {
                let account = ExternalAccount::read(&bytes).map_err(|what| self.wrong(&what))?;
                Exchange { files: &self.files, connect_timeout: self.connect_timeout }.access_token(&account).await
            }
        }
    }
}

impl CredentialsFile {
    /// Reads the file as a secret.
    async fn by_assertion(&self) -> Result<AccessToken, CallError> {
        let wrong = |what: String| self.wrong(&what);
        let bytes = secret_in(OPTION, self.file.clone()).await?;
        let account = ServiceAccount::read(&bytes).map_err(wrong)?;
        let (address, path) = endpoint(&account.token_uri).map_err(wrong)?;
        let assertion = account.assertion((self.clock)()).map_err(wrong)?;
        let server = HttpServer::new(ServerAddress { address, files: self.files.clone(), connect_timeout: self.connect_timeout });
        let body = form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)]);
        request_token(&server, &HttpRequest::form(path, body), &[]).await
    }

    fn wrong(&self, what: &str) -> CallError {
        CallError::Misconfigured(format!("{OPTION} {}: {what}", self.file.display()))
    }
}

impl FileKind {
    /// The kind of a file by its `type`.
    fn of(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct File {
            r#type: String,
        }
        let File { r#type } = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is no credential file in JSON, which has a type (line {})", error.line()))?;
        match r#type.as_str() {
            "service_account" => Ok(Self::ServiceAccount),
            "external_account" => Ok(Self::ExternalAccount),
            other => {
                let plain = other.len() <= 40 && other.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let kind = if plain { other } else { "another kind" };
                Err(format!(
                    "its type is {kind}. Supply the key file of a service account (service_account), or a configuration of workload identity \
                     federation (external_account)"
                ))
            }
        }
    }
}

/// Address and path of `token_uri`.
fn endpoint(token_uri: &str) -> Result<(Address, String), String> {
    let wrong = || "token_uri is not an https address".to_owned();
    let uri: Uri = token_uri.parse().map_err(|_| wrong())?;
    let address = Address::from_uri(&uri).map_err(|_| wrong())?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    if address.tls || address.is_loopback() { Ok((address, path)) } else { Err(wrong()) }
}

const OPTION: &str = "credentials_file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_refused_without_its_content() {
        assert_eq!(FileKind::of(br#"{ "type": "service_account" }"#), Ok(FileKind::ServiceAccount));
        assert_eq!(FileKind::of(br#"{ "type": "external_account" }"#), Ok(FileKind::ExternalAccount));
        for (text, says) in [
            (r#"{ "type": "authorized_user" }"#, "authorized_user"),
            (r#"{ "type": "Hidden text" }"#, "another kind"),
            ("{}", "JSON"),
            ("hidden", "JSON"),
        ] {
            let error = FileKind::of(text.as_bytes()).unwrap_err();
            assert!(error.contains(says) && !error.to_lowercase().contains("hidden"), "{text}: {error}");
        }
    }
}
