//! The values that a printed configuration contains. Each type refuses what Canton, the driver or Kubernetes would refuse later.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use clap::ValueEnum;

/// Why a value cannot stand in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    /// Not a name of a node in Canton (`InstanceName` in `CantonRequireTypes.scala`).
    #[error("write a name as Canton accepts it: 1 to 30 of A-Z, a-z, 0-9, `_` and `-`")]
    CantonName,
    /// Not a URL that the driver accepts.
    #[error("write https://host:port, without a path")]
    VaultUrl,
    /// Not a path that every format can hold.
    #[error("write a path without control characters")]
    FilePath,
    /// Not one entry of a class path that the launcher of Canton passes on unchanged.
    #[error("write the path of one jar, without any of \" $ ` \\ : and without control characters")]
    JarPath,
    /// Not a name of a Kubernetes object, or one that the chart of Splice, which writes it without quotes, turns into another type.
    #[error("write a name of a-z, 0-9, `-` and `.` that starts with a letter, ends with a letter or digit, and is no word of YAML")]
    SecretName,
}

/// The kind of a Canton node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NodeKind {
    /// A participant
    Participant,
    /// A sequencer
    Sequencer,
    /// A mediator
    Mediator,
}

impl NodeKind {
    /// The word for one node. Splice gives this name to its node.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Participant => "participant",
            Self::Sequencer => "sequencer",
            Self::Mediator => "mediator",
        }
    }
}

/// The schemes of the keys that Canton creates from now on. Keys that exist keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Schemes {
    /// Those of a Canton node without a KMS
    Ed25519Ecies,
    /// Those of a Canton node with another KMS
    P256Rsa,
}

/// Declares a text that a function checks.
macro_rules! checked_text {
    ($(#[$meta:meta])* $name:ident, $error:expr, $check:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) struct $name(String);

        impl $name {
            /// The text.
            pub(super) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }
    };
}

checked_text!(
    /// The name of a node in the configuration of Canton.
    CantonName, ValueError::CantonName, |text| {
        (1..=30).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    }
);
checked_text!(
    /// The URL of a vault: `https://host[:port]`, without a path.
    VaultUrl, ValueError::VaultUrl, is_vault_url
);
checked_text!(
    /// The path of a file on the machine of the node.
    FilePath, ValueError::FilePath, |text| !text.is_empty() && is_printable(text)
);
checked_text!(
    /// The path of the driver's jar. `bin/canton` of Canton evaluates it in double quotes.
    JarPath, ValueError::JarPath, |text| !text.is_empty() && is_printable(text) && !text.contains(['"', '$', '`', '\\', ':'])
);
checked_text!(
    /// The name of a Kubernetes secret (RFC 1123 subdomain) that YAML takes for a text without quotes.
    SecretName, ValueError::SecretName, |text| {
        const YAML_WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let label = |label: &str| !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-');
        let as_text = text.starts_with(|first: char| first.is_ascii_lowercase()) && !YAML_WORDS.contains(&text);
        as_text && text.len() <= 253 && text.split('.').all(label)
    }
);

impl VaultUrl {
    /// Whether only the same machine (or pod) reaches it.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.0.trim_start_matches("https://");
        host.starts_with("127.") || host.starts_with("[::1]") || host.starts_with("localhost")
    }
}

/// Quoted for HOCON and for YAML, which have these two escapes in common. The text has no control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// No control characters, and no others that end a line or that YAML excludes.
fn is_printable(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

/// A URL whose host `java.net.URI` finds: the driver refuses others.
fn is_vault_url(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else { return false };
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => return host.parse::<Ipv6Addr>().is_ok(),
        Some((host, port)) => (host.parse::<Ipv6Addr>().is_ok(), port.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((host, port)) => (is_host(host), Some(port)),
            None => return is_host(authority),
        },
    };
    host && port.is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// An IPv4 address, or labels of which the last starts with a letter (RFC 2396, which `java.net.URI` follows).
fn is_host(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |label: &str| !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    text.parse::<std::net::Ipv4Addr>().is_ok()
        || text.split('.').all(label) && text.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks<T: FromStr>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(text.parse::<T>().is_ok(), "{text:?}");
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn values_that_would_be_refused_later_are_refused_here() {
        let (longest, too_long) = ("a".repeat(30), "a".repeat(31));
        checks::<CantonName>(&["participant1", "-a_B", "1", &longest], &["", "a.b", "a b", "ä", &too_long]);
        checks::<VaultUrl>(
            &[
                "https://vault:8443",
                "https://vault",
                "https://10.0.0.1:1/",
                "https://[::1]:65535",
                "https://[fd00::2]",
                "https://a-1.example.org",
            ],
            &[
                "http://vault",
                "vault:8443",
                "https://",
                "https://vault:",
                "https://vault:0",
                "https://vault:+1",
                "https://vault:65536",
                "https://vault/path",
                "https://vault?x",
                "https://user@vault",
                "https://vault_1:8443",
                "https://vault.1a",
                "https://999.0.0.1",
                "https://-a.org",
                "https://a..org",
                "https://[::1",
                "https://[::1]x",
                "https://[vault]:1",
                "https://a\"b",
            ],
        );
        checks::<FilePath>(&["tls/ca.pem", r#"C:\a "b" $c 'd' ü"#], &["", "a\nb", "a\u{7f}", "a\u{85}b", "a\u{2028}b", "\u{feff}a"]);
        checks::<JarPath>(&["/keyvault/driver jar.jar"], &["", "a:b", "a$b", "a\"b", "a`b", "a\\b", "a\nb"]);
        checks::<SecretName>(
            &["a", "participant1-keyvault-tls", "a.b"],
            &["", "A", "a_b", "-a", "a-", "a..b", "a.", "ä", "1", "1e5", "yes", "null"],
        );
    }

    #[test]
    fn addresses_of_the_same_machine_are_known() {
        for (url, loopback) in [
            ("https://127.0.0.1:8443", true),
            ("https://localhost:1", true),
            ("https://[::1]:1", true),
            ("https://vault:8443", false),
            ("https://10.127.0.0:1", false),
        ] {
            assert_eq!(url.parse::<VaultUrl>().unwrap().is_loopback(), loopback, "{url}");
        }
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted(r#"C:\a "b" $c"#), r#""C:\\a \"b\" $c""#);
    }
}
