//! The assertion with which a service account asks for an access token: a JWT with RS256 (RFC 7523), made from the key file of the account
//! (<https://developers.google.com/identity/protocols/oauth2/service-account#httprest>).

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::SCOPE;
use crate::{crypto::read_private_key, domain::Timestamp};

/// The key file of a service account.
pub(super) struct ServiceAccount {
    email: String,
    key_id: String,
    key: RsaKeyPair,
    /// Where it asks for tokens.
    pub(super) token_uri: String,
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default, deserialize_with = "secret_text")]
    private_key: Zeroizing<String>,
    #[serde(default)]
    token_uri: String,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl ServiceAccount {
    /// Reads the key file.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let file: KeyFile =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not a key file in JSON (line {})", error.line()))?;
        if [&file.client_email, &file.private_key_id, &file.token_uri].into_iter().any(String::is_empty) {
            return Err("client_email, private_key_id or token_uri is missing. Supply the file as Google made it".to_owned());
        }
        let key = match read_private_key(file.private_key.as_bytes())? {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("private_key is no RSA key".to_owned()),
        };
        let key = key.map_err(|error| format!("private_key is no RSA key that can sign: {error}"))?;
        Ok(Self { email: file.client_email, key_id: file.private_key_id, key, token_uri: file.token_uri })
    }

    /// An assertion of one hour from `now`.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn assertion(&self, now: Timestamp) -> Result<Zeroizing<String>, String> {
        let header = Header { alg: "RS256", typ: "JWT", kid: &self.key_id };
        let (iat, exp) = (now.seconds(), now.seconds().saturating_add(LIFETIME));
        let claims = Claims { iss: &self.email, scope: SCOPE, aud: &self.token_uri, iat, exp };
        let part =
            |json: Result<Vec<u8>, serde_json::Error>| json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|error| error.to_string());
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
        let mut signature = vec![0; self.key.public_modulus_len()];
        // PKCS#1 v1.5 is deterministic: the random numbers are not used.
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "private_key cannot sign".to_owned())?;
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn secret_text<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

/// Seconds; the longest that Google accepts.
const LIFETIME: i64 = 3600;

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der},
        rsa::KeySize,
        signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
    };
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn key_file(change: &str) -> (RsaKeyPair, String) {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
        let mut file = serde_json::json!({
            "type": "service_account", "client_email": "vault@canton-prod.iam.gserviceaccount.com", "private_key_id": "0123",
            "private_key": pem, "token_uri": "https://oauth2.googleapis.com/token", "project_id": "canton-prod",
        });
        let change: serde_json::Map<_, _> = serde_json::from_str(change).unwrap();
        file.as_object_mut().unwrap().extend(change);
        (pair, file.to_string())
    }

    #[test]
    fn an_assertion_names_account_audience_and_time_and_is_signed() {
        let (pair, file) = key_file("{}");
        let account = ServiceAccount::read(file.as_bytes()).unwrap();
        let jwt = account.assertion(Timestamp::from_micros(1_795_000_000_000_000)).unwrap();
        let parts: Vec<&str> = jwt.split('.').collect();
        let json = |part: &str| serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(json(parts[0]), serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": "0123" }));
        assert_eq!(
            json(parts[1]),
            serde_json::json!({
                "iss": "vault@canton-prod.iam.gserviceaccount.com", "scope": SCOPE, "aud": "https://oauth2.googleapis.com/token",
                "iat": 1_795_000_000, "exp": 1_795_003_600,
            })
        );
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref().to_vec());
        public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
    }

    #[test]
    fn another_file_is_refused_without_its_content() {
        for (change, says) in [(r#"{ "token_uri": "" }"#, "missing"), (r#"{ "private_key": "hidden" }"#, "private key")] {
            let error = ServiceAccount::read(key_file(change).1.as_bytes()).err().unwrap();
            assert!(error.contains(says) && !error.to_lowercase().contains("hidden"), "{change}: {error}");
        }
        assert!(ServiceAccount::read(b"{").err().unwrap().contains("JSON"));
    }
}
