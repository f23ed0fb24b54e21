//! Where the access tokens of the vault come from: Microsoft Entra ID, for a federated token or a client secret, or the metadata server of the machine
//! for a managed identity.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::config::CheckedVault;
use crate::{
    client::{connector::TlsFiles, percent_encoded},
    kms::{
        AzureKeyVaultConfig, CallLimits,
        call_error::CallError,
        http::{Address, HttpRequest, HttpServer, ServerAddress},
        oauth::{AccessToken, TokenSource, form, one_line, request_token, secret_in, token_in},
    },
};

/// The source of tokens that the configuration names. It sends no request.
pub(super) fn token_source(config: &AzureKeyVaultConfig, checked: &CheckedVault, limits: &CallLimits) -> Box<dyn TokenSource> {
    let server = |address: &Address| {
        let files = TlsFiles { ca: Some(config.ca.clone()), client: None };
        HttpServer::new(ServerAddress { address: address.clone(), files, connect_timeout: limits.connect_timeout })
    };
    let audience = checked.host.audience();
    let proof = match (&config.federated_token_file, &config.client_secret_file) {
        (Some(file), _) => Proof::FederatedToken(file.clone()),
        (None, Some(file)) => Proof::Secret(file.clone()),
        (None, None) => {
            let mut path = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}", percent_encoded(&audience));
            if let Some(client) = &config.client_id {
                path.push_str("&client_id=");
                path.push_str(&percent_encoded(client));
            }
            return Box::new(ManagedIdentity { server: server(&checked.metadata), path });
        }
    };
    Box::new(Application {
        server: server(&checked.login),
        path: format!("/{}/oauth2/v2.0/token", config.tenant.as_deref().unwrap_or_default()),
        client_id: config.client_id.clone().unwrap_or_default(),
        scope: format!("{audience}/.default"),
        proof,
    })
}

/// The metadata server
/// (<https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#get-a-token-using-http>).
struct ManagedIdentity {
    server: HttpServer,
    path: String,
}

#[async_trait]
impl TokenSource for ManagedIdentity {
    async fn request(&self) -> Result<AccessToken, CallError> {
        // Without the header it refuses, so that no forwarded request can ask.
        let metadata = [(HeaderName::from_static("metadata"), HeaderValue::from_static("true"))];
        request_token(&self.server, &HttpRequest::get(self.path.clone()), &metadata).await
    }
}

/// An application that logs in with the client credentials flow
/// (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).
struct Application {
    server: HttpServer,
    path: String,
    client_id: String,
    scope: String,
    proof: Proof,
}

/// The file that proves who the application is, which is read at each login.
enum Proof {
    FederatedToken(PathBuf),
    Secret(PathBuf),
}

#[async_trait]
impl TokenSource for Application {
    async fn request(&self) -> Result<AccessToken, CallError> {
        let common = [("client_id", self.client_id.as_str()), ("scope", &self.scope), ("grant_type", "client_credentials")];
        let body = match &self.proof {
            Proof::FederatedToken(file) => {
                let assertion = line("federated_token_file", file, &token_in("federated_token_file", file.clone()).await?)?;
                let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                form(&[common.as_slice(), &[kind, ("client_assertion", &assertion)]].concat())
            }
            Proof::Secret(file) => {
                let secret = line("client_secret_file", file, &secret_in("client_secret_file", file.clone()).await?)?;
                form(&[common.as_slice(), &[("client_secret", &secret)]].concat())
            }
        };
        request_token(&self.server, &HttpRequest::form(self.path.clone(), body), &[]).await
    }
}

fn line(option: &str, file: &Path, bytes: &[u8]) -> Result<Zeroizing<String>, CallError> {
    one_line(&format!("{option} {}", file.display()), bytes)
}
