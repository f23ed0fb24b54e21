//! The `openssl` program as an independent implementation: keys, signatures, ciphertexts.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Runs `openssl` with `input`, and gives what it prints; fails the test if it fails.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("openssl is needed (apt install openssl): {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// A new key as PKCS#8 DER: `openssl genpkey -algorithm …`.
pub(crate) fn genpkey(arguments: &[&str]) -> Vec<u8> {
    let pem = openssl(&[&["genpkey", "-algorithm"], arguments].concat(), b"");
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem)
}

/// A new key on a named curve as PKCS#8 DER.
pub(crate) fn ec_key(curve: &str) -> Vec<u8> {
    genpkey(&["EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
}

/// The public half of a PKCS#8 key as `SubjectPublicKeyInfo` DER.
pub(crate) fn public_key(pkcs8: &[u8]) -> Vec<u8> {
    openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], pkcs8)
}

/// Asserts that `signature` (DER for ECDSA) is one over `message` under `spki`.
pub(crate) fn assert_verifies(spki: &[u8], hash: Option<&str>, message: &[u8], signature: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (key, message, signature) = (file("key", spki), file("message", message), file("signature", signature));
    let mut arguments =
        vec!["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", &key, "-rawin", "-in", &message, "-sigfile", &signature];
    if let Some(hash) = hash {
        arguments.extend(["-digest", hash]);
    }
    openssl(&arguments, b"");
}

/// Encrypts to an RSA key by OAEP with SHA-256 for both hashes.
pub(crate) fn oaep(spki: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, spki).unwrap();
    let options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"];
    let mut arguments = vec!["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", path(&key)];
    arguments.extend(options.iter().flat_map(|option| ["-pkeyopt", option]));
    openssl(&arguments, plaintext)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
