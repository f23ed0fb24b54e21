//! The address of a server: scheme, host and port, with one text for each.

use std::{fmt, str::FromStr};

use http::{Uri, uri::Authority};

/// The address of a server: scheme, host and port. Shown as a URL, without the default port of the scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct Address {
    /// Whether TLS is used.
    pub(in crate::kms) tls: bool,
    /// A name or an IP address, lower case, without brackets.
    pub(in crate::kms) host: String,
    /// Its port.
    pub(in crate::kms) port: u16,
}

/// The text is not `https://host[:port]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kms) struct NotAnAddress;

impl Address {
    /// The address in a URL. Its path is ignored.
    pub(in crate::kms) fn from_uri(uri: &Uri) -> Result<Self, NotAnAddress> {
        let authority: &Authority = uri.authority().ok_or(NotAnAddress)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(NotAnAddress),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(NotAnAddress);
        }
        Ok(Self { tls, host, port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// Whether it is loopback, the only address where plain HTTP is allowed.
    pub(in crate::kms) fn is_loopback(&self) -> bool {
        self.host.parse().map_or(self.host == "localhost", |ip: std::net::IpAddr| ip.is_loopback())
    }

    /// Whether it is link-local, as the metadata servers of clouds are: no router forwards packets to it.
    #[cfg(feature = "gcp-kms")]
    pub(in crate::kms) fn is_link_local(&self) -> bool {
        self.host.parse().is_ok_and(|ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(ip) => ip.is_link_local(),
            std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
        })
    }

    /// `host:port`, as in a `Host` header.
    pub(in crate::kms) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    /// Reads `https://host[:port]`, with nothing after it.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let uri: Uri = text.parse().map_err(|_| NotAnAddress)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(NotAnAddress);
        }
        Self::from_uri(&uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (address, expected) in
            [("http://127.0.0.1:8200", true), ("http://[::1]", true), ("http://localhost", true), ("http://127.0.0.1.example.org", false)]
        {
            assert_eq!(address.parse::<Address>().unwrap().is_loopback(), expected, "{address}");
        }
    }
}
