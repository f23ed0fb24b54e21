//! The fault of a private key file that cannot be parsed, in words that say how to fix it.

/// Why a PEM file with a private key cannot be used. `error` is what the parser said. The text contains no part of the file.
pub fn key_file_fault(pem: &[u8], error: &dyn std::fmt::Display) -> String {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        "The key file is encrypted. Supply an unencrypted PKCS#8 key.".to_owned()
    } else {
        format!("{error}. Supply an unencrypted PKCS#8 key in PEM format")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_key_file_is_named_as_such() {
        let encrypted = "The key file is encrypted. Supply an unencrypted PKCS#8 key.";
        for pem in ["-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"] {
            assert_eq!(key_file_fault(pem.as_bytes(), &"base64 decode error"), encrypted);
        }
        assert!(key_file_fault(b"", &"no items found").starts_with("no items found"));
    }
}
