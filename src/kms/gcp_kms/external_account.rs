//! A credential configuration of workload identity federation (`type: external_account`, <https://google.aip.dev/auth/4117>): where the vault finds a token of
//! another issuer, and where it exchanges it for an access token. Only what needs no other program is accepted.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::kms::http::Address;

/// A credential configuration.
pub(super) struct ExternalAccount {
    /// The provider of the workload identity pool.
    pub(super) audience: String,
    /// What the token is, as a URN.
    pub(super) subject_token_type: String,
    /// The Security Token Service.
    pub(super) token_url: Endpoint,
    /// Where the token is.
    pub(super) source: Source,
    /// How the token is written there.
    pub(super) format: Format,
    /// The service account that the vault acts as, if it is not the external identity itself.
    pub(super) impersonation: Option<Impersonation>,
}

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// With the query.
    pub(super) path: String,
}

/// Where the token of the other issuer is.
pub(super) enum Source {
    /// A file, which its issuer keeps current.
    File(PathBuf),
    /// A server on the machine or in its network, and the headers that it demands.
    Url(Endpoint, Vec<(HeaderName, HeaderValue)>),
}

/// How a source writes the token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The token alone.
    Text,
    /// A JSON object with the token in this field.
    Json(String),
}

/// The request for an access token of a service account.
pub(super) struct Impersonation {
    pub(super) url: Endpoint,
    /// Seconds.
    pub(super) lifetime: u64,
}

/// The file. Fields that change nothing here are not named.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    audience: String,
    #[serde(default)]
    subject_token_type: String,
    #[serde(default)]
    token_url: String,
    credential_source: Option<CredentialSource>,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: ImpersonationOptions,
    workforce_pool_user_project: Option<Value>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    format: Option<FormatOptions>,
    executable: Option<Value>,
    environment_id: Option<Value>,
    certificate: Option<Value>,
}

#[derive(Deserialize)]
struct FormatOptions {
    #[serde(default)]
    r#type: String,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize, Default)]
struct ImpersonationOptions {
    token_lifetime_seconds: Option<u64>,
}

impl ExternalAccount {
    /// Reads the configuration.
    ///
    /// # Errors
    /// What is wrong with it and how to fix it, without its content.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let File {
            audience,
            subject_token_type,
            token_url,
            credential_source,
            service_account_impersonation_url,
            service_account_impersonation,
            workforce_pool_user_project,
        } = serde_json::from_slice(bytes).map_err(|error| format!("a field has another type than documented (line {})", error.line()))?;
        if workforce_pool_user_project.is_some() {
            return Err("it is of a workforce pool, which is for people. Make a configuration of a workload identity pool".to_owned());
        }
        let source = credential_source.ok_or("credential_source is missing. Supply the file as gcloud made it")?;
        if [&audience, &subject_token_type].into_iter().any(String::is_empty) {
            return Err("audience or subject_token_type is missing. Supply the file as gcloud made it".to_owned());
        }
        let (source, format) = source.read()?;
        let impersonation = service_account_impersonation_url.map(|url| {
            let lifetime = service_account_impersonation.token_lifetime_seconds.unwrap_or(LIFETIME);
            if !(600..=43_200).contains(&lifetime) {
                return Err("service_account_impersonation.token_lifetime_seconds is not between 600 and 43200".to_owned());
            }
            Ok(Impersonation { url: endpoint("service_account_impersonation_url", &url, false)?, lifetime })
        });
        let token_url = endpoint("token_url", &token_url, false)?;
        Ok(Self { audience, subject_token_type, token_url, source, format, impersonation: impersonation.transpose()? })
    }
}

impl CredentialSource {
    fn read(self) -> Result<(Source, Format), String> {
        let refused = [
            (self.executable.is_some(), EXECUTABLE),
            (self.environment_id.is_some(), AWS),
            (self.certificate.is_some(), "credential_source.certificate is not supported: name a token in credential_source.file or url"),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(present, _)| *present) {
            return Err(why.to_owned());
        }
        let source = match (self.file, self.url) {
            (Some(file), None) if file.is_absolute() => Source::File(file),
            (Some(_), None) => return Err("credential_source.file is not an absolute path; write it from the root".to_owned()),
            (None, Some(url)) => Source::Url(endpoint("credential_source.url", &url, true)?, headers(&self.headers)?),
            _ => return Err("credential_source needs either file or url".to_owned()),
        };
        let format = match self.format.as_ref().map(|format| (format.r#type.as_str(), &format.subject_token_field_name)) {
            None | Some(("" | "text", _)) => Format::Text,
            Some(("json", Some(field))) => Format::Json(field.clone()),
            Some(("json", None)) => return Err("credential_source.format of type json needs subject_token_field_name".to_owned()),
            Some(_) => return Err("credential_source.format.type is neither text nor json".to_owned()),
        };
        Ok((source, format))
    }
}

fn headers(headers: &std::collections::BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let read = |(name, value): (&String, &String)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    let read: Option<Vec<_>> = headers.iter().map(read).collect();
    read.ok_or_else(|| "credential_source.headers has a name or value that an HTTP header cannot have".to_owned())
}

/// Where a URL of the file leads. Plain http is for this machine, and for the metadata servers of clouds if `link_local` is set: they have link-local
/// addresses, which no router forwards.
fn endpoint(field: &str, url: &str, link_local: bool) -> Result<Endpoint, String> {
    let uri = url.parse::<Uri>().ok().and_then(|uri| Some((Address::from_uri(&uri).ok()?, uri)));
    let (address, uri) = uri.ok_or_else(|| format!("{field} is not https://host[:port]/path"))?;
    let near = address.is_loopback() || (link_local && address.is_link_local());
    if !address.tls && !near {
        return Err(format!("{field} is plain http, which would show the token to the network; write https"));
    }
    Ok(Endpoint { address, path: uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned() })
}

/// Seconds; the longest lifetime that needs no policy of the organization.
const LIFETIME: u64 = 3600;
const EXECUTABLE: &str = "credential_source.executable is not supported: the vault runs no program that a credential file names. Let the program write its \
     token into a file, and name that in credential_source.file";
const AWS: &str = "credential_source is one of AWS (environment_id), which is not supported. Use an OIDC token of the workload, and name it in \
     credential_source.file or url";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<ExternalAccount, String> {
        let mut file = json!({
            "type": "external_account",
            "universe_domain": "googleapis.com",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/hidden",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": { "file": "/run/secrets/hidden" },
            "token_info_url": "https://sts.googleapis.com/v1/introspect",
        });
        file.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ExternalAccount::read(file.to_string().as_bytes())
    }

    #[test]
    fn sources_formats_and_impersonation_are_read() {
        let account = read(&json!({})).ok().unwrap();
        assert_eq!(
            (account.token_url.address.to_string().as_str(), account.token_url.path.as_str()),
            ("https://sts.googleapis.com", "/v1/token")
        );
        assert!(matches!(&account.source, Source::File(file) if file == "/run/secrets/hidden") && account.format == Format::Text);
        assert!(account.impersonation.is_none());
        let azure = json!({
            "url": "http://169.254.169.254/metadata/identity/oauth2/token?resource=x", "headers": { "Metadata": "True" },
            "format": { "type": "json", "subject_token_field_name": "access_token" },
        });
        let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/v@p.iam.gserviceaccount.com:generateAccessToken";
        let change = json!({
            "credential_source": azure, "service_account_impersonation_url": url, "service_account_impersonation": { "token_lifetime_seconds": 1200 },
        });
        let account = read(&change).ok().unwrap();
        let Source::Url(endpoint, headers) = &account.source else { panic!() };
        assert_eq!((endpoint.path.as_str(), headers.len()), ("/metadata/identity/oauth2/token?resource=x", 1));
        assert_eq!(account.format, Format::Json("access_token".to_owned()));
        let impersonation = account.impersonation.unwrap();
        assert_eq!((impersonation.lifetime, impersonation.url.address.host.as_str()), (1200, "iamcredentials.googleapis.com"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_fix_and_without_its_content() {
        let source = |source: Value| json!({ "credential_source": source });
        for (change, says) in [
            (source(json!({ "executable": { "command": "/usr/bin/hidden" } })), "name that in credential_source.file"),
            (source(json!({ "environment_id": "aws1", "url": "http://169.254.169.254/hidden" })), "one of AWS"),
            (source(json!({ "certificate": { "use_default_certificate_config": true } })), "certificate is not supported"),
            (source(json!({})), "either file or url"),
            (source(json!({ "file": "/hidden", "url": "https://hidden" })), "either file or url"),
            (source(json!({ "file": "hidden" })), "absolute path"),
            (source(json!({ "url": "http://hidden.example.org" })), "credential_source.url is plain http"),
            (source(json!({ "url": "https://example.org", "headers": { "a b": "hidden" } })), "credential_source.headers"),
            (source(json!({ "file": "/hidden", "format": { "type": "json" } })), "subject_token_field_name"),
            (source(json!({ "file": "/hidden", "format": { "type": "hidden" } })), "neither text nor json"),
            (source(Value::Null), "credential_source is missing"),
            (json!({ "audience": "" }), "audience or subject_token_type"),
            (json!({ "audience": ["hidden"] }), "another type than documented"),
            (json!({ "token_url": "http://sts.googleapis.com/hidden" }), "token_url is plain http"),
            (json!({ "token_url": "hidden" }), "token_url is not https"),
            (
                json!({ "service_account_impersonation_url": "http://169.254.169.254/hidden" }),
                "service_account_impersonation_url is plain http",
            ),
            (
                json!({ "service_account_impersonation_url": "https://hidden", "service_account_impersonation": { "token_lifetime_seconds": 60 } }),
                "between 600 and 43200",
            ),
            (json!({ "workforce_pool_user_project": "hidden" }), "workforce pool"),
        ] {
            let error = read(&change).err().unwrap_or_default();
            assert!(error.contains(says) && !error.contains("hidden"), "{change}: {error}");
        }
    }
}
