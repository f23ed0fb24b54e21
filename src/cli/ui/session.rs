//! The secrets of a session: 256 random bits each, compared in constant time, wiped at the end, never printed except the first URL.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::crypto::{Random, RandomFailed};

/// The only session of a process. It ends with the process.
pub(super) struct Session {
    /// In the first URL, for one use.
    token: Secret,
    token_used: AtomicBool,
    /// In the cookie of the browser that used the token.
    cookie: Secret,
    /// In every form that changes something.
    form: Secret,
    address: SocketAddr,
}

/// A random text of 64 hex digits.
struct Secret(Zeroizing<String>);

impl Secret {
    fn new(random: &dyn Random) -> Result<Self, RandomFailed> {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(&mut *bytes)?;
        Ok(Self(Zeroizing::new(base16ct::lower::encode_string(&*bytes))))
    }

    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl Session {
    /// A session of the server at this address.
    ///
    /// # Errors
    /// [`RandomFailed`]
    pub(super) fn new(address: SocketAddr, random: &dyn Random) -> Result<Self, RandomFailed> {
        let secret = || Secret::new(random);
        Ok(Self { token: secret()?, token_used: AtomicBool::new(false), cookie: secret()?, form: secret()?, address })
    }

    /// The URL that begins the session.
    pub(super) fn first_url(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("http://{}/login?token={}", self.address, &*self.token.0))
    }

    /// Whether `Host` names this server. Another name is one that an attacker's DNS points to this machine.
    pub(super) fn is_host(&self, host: &str) -> bool {
        host == self.address.to_string() || host == format!("localhost:{}", self.address.port())
    }

    /// Exchanges the token for the value of `Set-Cookie`, once.
    pub(super) fn begin(&self, token: &str) -> Option<String> {
        let begins = self.token.is(token) && !self.token_used.swap(true, Ordering::SeqCst);
        begins.then(|| format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), &*self.cookie.0))
    }

    /// Whether the value of a `Cookie` header has the cookie of the session.
    pub(super) fn has_cookie(&self, header: &str) -> bool {
        let name = self.cookie_name();
        header.split(';').filter_map(|pair| pair.trim().split_once('=')).any(|(of, value)| of == name && self.cookie.is(value))
    }

    /// The token that a form sends.
    pub(super) fn form_token(&self) -> &str {
        &self.form.0
    }

    /// Whether a form sent the token.
    pub(super) fn is_form_token(&self, token: &str) -> bool {
        self.form.is(token)
    }

    /// A browser sends a cookie to all ports of a host, so that the name has the port.
    fn cookie_name(&self) -> String {
        format!("keyvault-ui-{}", self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    fn session() -> Session {
        Session::new("127.0.0.1:8444".parse().unwrap(), &SystemRandom::default()).unwrap()
    }

    #[test]
    fn the_token_begins_the_session_once() {
        let session = session();
        let url = session.first_url();
        let token = url.strip_prefix("http://127.0.0.1:8444/login?token=").unwrap();
        assert_eq!(token.len(), 64);
        assert!(session.begin("").is_none() && session.begin(&token[1..]).is_none());
        let cookie = session.begin(token).unwrap();
        assert!(session.begin(token).is_none());
        let pair = cookie.strip_suffix("; Path=/; HttpOnly; SameSite=Strict").unwrap();
        assert!(session.has_cookie(pair) && session.has_cookie(&format!("a=b; {pair}; c=d")));
        let value = pair.split_once('=').unwrap().1;
        for other in
            ["", "keyvault-ui-8444=", &format!("keyvault-ui-8445={value}"), &format!("keyvault-ui-8444={token}"), &pair[..pair.len() - 1]]
        {
            assert!(!session.has_cookie(other), "{other}");
        }
        assert!(!session.is_form_token(value) && !session.is_form_token(token) && session.is_form_token(session.form_token()));
    }

    #[test]
    fn two_sessions_have_no_secret_in_common() {
        let (one, other) = (session(), session());
        assert!(!one.is_form_token(other.form_token()));
        assert_ne!(one.first_url(), other.first_url());
    }

    #[test]
    fn only_names_of_this_server_are_its_host() {
        let session = session();
        assert!(session.is_host("127.0.0.1:8444") && session.is_host("localhost:8444"));
        for other in ["", "127.0.0.1", "localhost", "127.0.0.1:8445", "evil.example:8444", "localhost.evil.example:8444"] {
            assert!(!session.is_host(other), "{other}");
        }
    }
}
