//! Where the access tokens of the vault come from: the metadata server of the machine or pod, or a signed assertion of a service account.

use std::path::PathBuf;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Uri};

use super::assertion::ServiceAccount;
use crate::{
    client::connector::TlsFiles,
    domain::Clock,
    kms::{
        CallLimits, GcpKmsConfig,
        call_error::CallError,
        http::{Address, HttpRequest, HttpServer, ServerAddress},
        oauth::{AccessToken, TokenSource, form, request_token, secret_in},
    },
};

/// The source of tokens that the configuration names. It sends no request.
pub(super) fn token_source(config: &GcpKmsConfig, metadata: Address, limits: &CallLimits, clock: Clock) -> Box<dyn TokenSource> {
    let files = TlsFiles { ca: Some(config.ca.clone()), client: None };
    let connect_timeout = limits.connect_timeout;
    match &config.credentials_file {
        Some(file) => Box::new(AccountKey { file: file.clone(), files, connect_timeout, clock }),
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

/// The key file of a service account, which is read at each request, so that a key can be replaced while the vault serves.
struct AccountKey {
    file: PathBuf,
    files: TlsFiles,
    connect_timeout: std::time::Duration,
    clock: Clock,
}

#[async_trait]
impl TokenSource for AccountKey {
    async fn request(&self) -> Result<AccessToken, CallError> {
        let wrong = |what: String| CallError::Misconfigured(format!("credentials_file {}: {what}", self.file.display()));
        let bytes = secret_in("credentials_file", self.file.clone()).await?;
        let account = ServiceAccount::read(&bytes).map_err(wrong)?;
        let (address, path) = endpoint(&account.token_uri).map_err(wrong)?;
        let assertion = account.assertion((self.clock)()).map_err(wrong)?;
        let server = HttpServer::new(ServerAddress { address, files: self.files.clone(), connect_timeout: self.connect_timeout });
        let body = form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)]);
        request_token(&server, &HttpRequest::form(path, body), &[]).await
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
