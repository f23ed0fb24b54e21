//! `[[wrapper.pkcs11]]`: a token, the library that reaches it, and the file of its PIN.

use std::path::{Path, PathBuf};

/// One entry of `[[wrapper.pkcs11]]`: a token. It is used whenever one of its keys is a wrapper key.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The PKCS#11 library of the vendor, such as `/usr/lib/softhsm/libsofthsm2.so`. It is loaded at the first use. Nobody but root and its
    /// owner may be able to write it.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// File that holds the PIN of the user and nothing else. It is read at each login. A PIN that the token refused is not tried again until
    /// the file changes.
    pub pin_file: PathBuf,
    /// How many sessions are open at most, which is how many calls run at the same time. 1 to 256.
    #[serde(default = "sessions")]
    pub sessions: usize,
}

impl Pkcs11Config {
    /// Makes file names relative to the folder of the configuration.
    pub(in crate::kms) fn resolve(&mut self, folder: &Path) {
        for file in [&mut self.module, &mut self.pin_file] {
            *file = folder.join(&file);
        }
    }

    /// Checks what the types cannot express. The error is the fault and its fix.
    pub(in crate::kms) fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[wrapper.pkcs11]] {what}"));
        if self.token.is_empty() || self.token.len() > MAX_LABEL || self.token.trim() != self.token {
            return wrong("token: write the label of the token, at most 32 bytes, without spaces at either end");
        }
        if !(1..=MAX_SESSIONS).contains(&self.sessions) {
            return wrong("sessions is not between 1 and 256");
        }
        Ok(())
    }
}

const fn sessions() -> usize {
    8
}

/// Bytes; the field of a token has no more.
const MAX_LABEL: usize = 32;
/// Each running call occupies a blocking thread.
const MAX_SESSIONS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_relative_to_the_configuration() {
        let mut config: Pkcs11Config = toml::from_str("module = '/usr/lib/p11.so'\ntoken = 'canton'\npin_file = 'pin'").unwrap();
        config.resolve(Path::new("/etc/keyvault"));
        assert_eq!((config.module.as_path(), config.sessions), (Path::new("/usr/lib/p11.so"), 8));
        assert_eq!(config.pin_file, Path::new("/etc/keyvault/pin"));
        assert!(toml::from_str::<Pkcs11Config>("module = 'm'\ntoken = 't'\npin = '1234'").is_err(), "a PIN is in a file");
    }

    #[test]
    fn an_invalid_entry_is_refused_with_its_fix() {
        for (token, sessions, says) in [
            ("canton", 1, ""),
            ("canton", 256, ""),
            ("", 8, "label"),
            (" canton", 8, "label"),
            ("123456789012345678901234567890123", 8, "label"),
            ("canton", 0, "sessions"),
            ("canton", 257, "sessions"),
        ] {
            let config = Pkcs11Config { module: "m".into(), token: token.into(), pin_file: "p".into(), sessions };
            let error = config.check().err().unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{token} {sessions}: {error}");
        }
    }
}
