//! The double of workload identity federation: the server of a token of another issuer, the Security Token Service and the service account credentials of
//! Google, as their documentation describes them.
//!
//! Strict: other fields, scopes, audiences, tokens and headers are refused.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use super::{
    cloud_double::{Answer, Ask},
    gcp_kms::error_body,
};

pub(crate) const CLOUD_KMS: &str = "https://www.googleapis.com/auth/cloudkms";
const IAM: &str = "https://www.googleapis.com/auth/iam";
const AUDIENCE: &str = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/canton/providers/cluster";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const IMPERSONATION: &str = "/iam/v1/projects/-/serviceAccounts/vault@canton-test.iam.gserviceaccount.com:generateAccessToken";

/// The state of the double.
pub(crate) struct Federation {
    /// The token of the other issuer that is accepted now.
    subject: Mutex<String>,
    /// The tokens of exchanges for the impersonation.
    exchanged: Mutex<Vec<String>>,
    exchanges: AtomicU32,
    /// Whether the external identity may act as the service account.
    pub(crate) may_impersonate: Mutex<bool>,
}

impl Federation {
    pub(crate) fn new() -> Self {
        Self {
            subject: Mutex::new("header.first.signature".to_owned()),
            exchanged: Mutex::default(),
            exchanges: AtomicU32::new(0),
            may_impersonate: Mutex::new(true),
        }
    }

    /// The token of the other issuer that is accepted now.
    pub(crate) fn subject(&self) -> String {
        self.subject.lock().unwrap().clone()
    }

    /// Only this token of the other issuer is accepted from now on.
    pub(crate) fn set_subject(&self, token: &str) {
        token.clone_into(&mut self.subject.lock().unwrap());
    }

    /// How many exchanges succeeded.
    pub(crate) fn exchanges(&self) -> u32 {
        self.exchanges.load(Ordering::SeqCst)
    }

    /// The credential configuration, as gcloud makes it, with this source.
    pub(crate) fn file(address: &str, source: &Value, impersonates: bool) -> Value {
        let mut file = json!({
            "universe_domain": "googleapis.com", "type": "external_account", "audience": AUDIENCE, "subject_token_type": JWT,
            "token_url": format!("{address}/sts/v1/token"), "token_info_url": format!("{address}/sts/v1/introspect"),
            "credential_source": source,
        });
        if impersonates {
            file["service_account_impersonation_url"] = format!("{address}{IMPERSONATION}").into();
        }
        file
    }

    /// The answer to a request for a token. `issue` makes an access token for Cloud KMS, and gives it with its lifetime in seconds. `None` for another request.
    pub(crate) fn answer(&self, ask: &Ask, issue: impl Fn() -> (String, u32)) -> Option<Answer> {
        Some(match (ask.method.as_str(), ask.path.as_str()) {
            ("GET", "/subject") if ask.header("metadata") == "True" && ask.query == "audience=canton" => {
                Answer(200, json!({ "id_token": self.subject(), "expires_in": "3599" }))
            }
            ("GET", "/subject") => Answer(403, json!({ "error": "forbidden" })),
            ("POST", "/sts/v1/token") => self.exchange(ask, issue),
            ("POST", path) if path.starts_with("/iam/") => self.impersonate(ask, issue),
            _ => return None,
        })
    }

    fn exchange(&self, ask: &Ask, issue: impl Fn() -> (String, u32)) -> Answer {
        let form = ask.form();
        let names: Vec<&str> = form.keys().map(String::as_str).collect();
        let expected = ["audience", "grant_type", "requested_token_type", "scope", "subject_token", "subject_token_type"];
        let refused = |code: &str| Answer(400, json!({ "error": code, "error_description": "as documented" }));
        // The documentation says that a request with credentials can fail.
        if names != expected || !ask.header("authorization").is_empty() || !ask.tls {
            return refused("invalid_request");
        }
        let is = |name: &str, value: &str| form[name] == value;
        if !is("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            || !is("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
        {
            return refused("invalid_request");
        }
        if !is("audience", AUDIENCE) {
            return refused("invalid_target");
        }
        if !is("subject_token_type", JWT) || !is("subject_token", &self.subject()) {
            return refused("invalid_grant");
        }
        let (token, lifetime) = match form["scope"].as_str() {
            CLOUD_KMS => issue(),
            IAM => {
                let token = format!("ya29.exchanged-{}", self.exchanges());
                self.exchanged.lock().unwrap().push(token.clone());
                (token, 3600)
            }
            _ => return refused("invalid_scope"),
        };
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        let issued = "urn:ietf:params:oauth:token-type:access_token";
        Answer(200, json!({ "access_token": token, "issued_token_type": issued, "token_type": "Bearer", "expires_in": lifetime }))
    }

    fn impersonate(&self, ask: &Ask, issue: impl Fn() -> (String, u32)) -> Answer {
        let refused = |status: u16, code: &str| Answer(status, error_body(status, code));
        let bearer = ask.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if !self.exchanged.lock().unwrap().iter().any(|token| token == bearer) || !ask.tls {
            return refused(401, "UNAUTHENTICATED");
        }
        if ask.path != IMPERSONATION || !*self.may_impersonate.lock().unwrap() {
            return refused(403, "PERMISSION_DENIED");
        }
        let asked: Value = serde_json::from_slice(&ask.body).unwrap();
        if asked != json!({ "scope": [CLOUD_KMS], "lifetime": "3600s" }) || ask.header("content-type") != "application/json" {
            return refused(400, "INVALID_ARGUMENT");
        }
        Answer(200, json!({ "accessToken": issue().0, "expireTime": "2099-01-01T00:00:00Z" }))
    }
}
